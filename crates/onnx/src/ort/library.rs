//! Finds ONNX Runtime on this machine and loads it, once for the process.

use std::ffi::CStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::environment::{Environment, GlobalThreadPoolOptions};
use ort::logging::LogLevel;
use parking_lot::Mutex;
use runtime::engine::EngineError;

use super::{NAME, arena};
use crate::reason;
use crate::search::{Search, file_name};

/// The first release whose C API is the one that this build speaks, and that is tested.
const OLDEST: Version = Version {
    major: 1,
    minor: 20,
};

const STEM: &str = "libonnxruntime";

const HINT: &str = "get it with `cargo xtask fetch onnxruntime`, or set ORT_DYLIB_PATH to a `libonnxruntime` of version \
                    1.20 or newer";

/// ONNX Runtime can be loaded and set up once in a process, and stays.
static LOADED: Mutex<Option<Arc<Library>>> = Mutex::new(None);

/// The loaded library.
#[derive(Debug)]
pub(super) struct Library {
    pub(super) environment: Environment,
    pub(super) version: String,
    pub(super) path: PathBuf,
    /// Of the shared pool.
    pub(super) threads: usize,
    /// Lanes may have arenas of their own.
    pub(super) arenas: bool,
}

/// The first usable library of the search, or the one that this process has loaded before.
pub(super) fn find(search: &Search) -> Result<Arc<Library>, EngineError> {
    let mut loaded = LOADED.lock();
    if let Some(library) = loaded.as_ref() {
        return Ok(Arc::clone(library));
    }
    let (path, version) = locate(search)?;
    let library = Arc::new(load(path, version, search.threads.max(1))?);
    *loaded = Some(Arc::clone(&library));
    Ok(library)
}

/// The first library that is new enough, and its version.
fn locate(search: &Search) -> Result<(PathBuf, String), EngineError> {
    let mut refused = Vec::new();
    for path in search.candidates(STEM, None) {
        match check(&path) {
            Ok(version) => return Ok((path, version)),
            Err(reason) => refused.push(format!("`{}`: {reason}", file_name(&path))),
        }
    }
    let found = if refused.is_empty() {
        "no ONNX Runtime library found".to_owned()
    } else {
        format!("no usable ONNX Runtime library: {}", refused.join("; "))
    };
    Err(missing(format!("{found}; {HINT}")))
}

fn check(path: &Path) -> Result<String, String> {
    let text = version_of(path)?;
    match Version::parse(&text) {
        Some(version) if version >= OLDEST => Ok(text),
        Some(_) => Err(format!(
            "its version is {text}, {OLDEST} or newer is needed"
        )),
        None => Err(format!("its version `{text}` is not a version")),
    }
}

/// Asks a library for its version and lets it go again: what ort loads stays for the life of the process.
#[expect(
    unsafe_code,
    reason = "a foreign library can only be asked through its C interface"
)]
fn version_of(path: &Path) -> Result<String, String> {
    use libloading::{Library, Symbol};
    type ApiBase = unsafe extern "system" fn() -> *const ort::sys::OrtApiBase;

    let public = |error: libloading::Error| reason::public(&error.to_string());
    // SAFETY: runs the library's initialisers. The operator named this file, or put it into one of the folders that
    // hold this machine's libraries; nothing can be promised about what is in it beyond that trust.
    let library = unsafe { Library::new(path) }.map_err(public)?;
    // SAFETY: `OrtGetApiBase` has had this signature in every release, and the symbol is not used after `library` ends.
    let api_base: Symbol<'_, ApiBase> =
        unsafe { library.get(b"OrtGetApiBase\0") }.map_err(|_| "it is not ONNX Runtime")?;
    // SAFETY: takes nothing, may be called at any time from any thread.
    let base = unsafe { api_base() };
    // SAFETY: null, or a static of the library, which is still open.
    let base = unsafe { base.as_ref() }.ok_or("it gives no interface")?;
    // SAFETY: takes nothing and returns a static string.
    let text = unsafe { (base.GetVersionString)() };
    if text.is_null() {
        return Err("it gives no version".to_owned());
    }
    // SAFETY: not null, ends in NUL by the API's contract, and the library is still open.
    let text = unsafe { CStr::from_ptr(text) };
    Ok(text.to_string_lossy().into_owned())
}

fn load(path: PathBuf, version: String, threads: usize) -> Result<Library, EngineError> {
    let broken = |words: String| {
        missing(format!(
            "`{}`: {}",
            file_name(&path),
            reason::public(&words)
        ))
    };
    let builder = ort::init_from(&path).map_err(|error| broken(error.to_string()))?;
    let pool = || {
        GlobalThreadPoolOptions::default()
            .with_intra_threads(threads)?
            .with_inter_threads(1)?
            // Spinning threads starve the other lanes on a busy machine.
            .with_spin_control(false)
    };
    let environment = builder
        .with_global_thread_pool(pool().map_err(|error| broken(error.to_string()))?)
        .with_name("kapok")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| broken(error.to_string()))?;
    environment.set_log_level(LogLevel::Warning);
    let registered = arena::register(&environment);
    if let Err(error) = &registered {
        tracing::warn!(%error, "ONNX Runtime takes no allocator: lanes of a model share an arena");
    }
    Ok(Library {
        arenas: registered.is_ok(),
        environment,
        version,
        path,
        threads,
    })
}

/// The library's own messages; what fails is also returned as an error, which is logged where it stops.
fn log(level: LogLevel, category: &str, id: &str, place: &str, message: &str) {
    match level {
        LogLevel::Verbose | LogLevel::Info => {
            tracing::trace!(target: "onnxruntime", category, id, place, "{message}");
        }
        LogLevel::Warning | LogLevel::Error | LogLevel::Fatal => {
            tracing::debug!(target: "onnxruntime", category, id, place, "{message}");
        }
    }
}

fn missing(reason: String) -> EngineError {
    EngineError::Missing {
        engine: NAME,
        reason,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| part.parse().ok());
        Some(Self {
            major: parts.next()??,
            minor: parts.next()??,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests;
