//! Finds OpenVINO on this machine and loads it, once for the process.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use runtime::engine::EngineError;

use super::api::Api;
use super::handles::{self, Core};
use super::{NAME, failed};
use crate::search::{self, Search};

const STEM: &str = "libopenvino_c";

const HINT: &str = "get it with `cargo xtask fetch openvino`, or set OPENVINO_DYLIB_PATH to a `libopenvino_c` of version \
                    2023.0 or newer";

/// The library's plug-ins keep threads and statics of their own: it is loaded once and stays.
static LOADED: Mutex<Option<Arc<Library>>> = Mutex::new(None);

/// The loaded library.
pub(super) struct Library {
    pub(super) version: String,
    pub(super) path: PathBuf,
    api: Arc<Api>,
    /// Made at the first model: it loads the processor's plug-in.
    core: Mutex<Option<Arc<Core>>>,
}

impl Library {
    pub(super) fn core(&self) -> Result<Arc<Core>, EngineError> {
        let mut core = self.core.lock();
        if let Some(core) = core.as_ref() {
            return Ok(Arc::clone(core));
        }
        let made = Core::new(&self.api).map_err(|failure| failed(failure.words))?;
        Ok(Arc::clone(core.insert(Arc::new(made))))
    }
}

/// The first usable library of the search, or the one that this process has loaded before.
pub(super) fn find(search: &Search) -> Result<Arc<Library>, EngineError> {
    let mut loaded = LOADED.lock();
    if let Some(library) = loaded.as_ref() {
        return Ok(Arc::clone(library));
    }
    let library = Arc::new(locate(search)?);
    *loaded = Some(Arc::clone(&library));
    Ok(library)
}

fn locate(search: &Search) -> Result<Library, EngineError> {
    let mut refused = Vec::new();
    for path in search.candidates(STEM, Some(NAME)) {
        match load(&path) {
            Ok(library) => return Ok(library),
            Err(reason) => refused.push(format!("`{}`: {reason}", search::file_name(&path))),
        }
    }
    let found = if refused.is_empty() {
        "no OpenVINO library found".to_owned()
    } else {
        format!("no usable OpenVINO library: {}", refused.join("; "))
    };
    Err(EngineError::Missing {
        engine: NAME,
        reason: format!("{found}; {HINT}"),
    })
}

fn load(path: &Path) -> Result<Library, String> {
    let api = Arc::new(Api::load(path)?);
    let version = handles::version(&api).map_err(|failure| failure.words)?;
    Ok(Library {
        version: short(&version),
        path: path.to_owned(),
        api,
        core: Mutex::new(None),
    })
}

/// `2026.4.1-22982-a1b2c3-releases/2026/4` is version 2026.4.1.
fn short(build: &str) -> String {
    build.split('-').next().unwrap_or(build).to_owned()
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_version_is_the_part_that_people_know() {
        assert_eq!(short("2026.4.1-22982-ab12-releases/2026/4"), "2026.4.1");
        assert_eq!(short("2025.0"), "2025.0");
    }

    #[test]
    fn nothing_on_this_machine_is_a_normal_state_with_a_hint() {
        let folder = tempfile::tempdir().expect("a folder");
        let search = Search {
            explicit: None,
            cache: Some(folder.path().to_owned()),
            system: Vec::new(),
            threads: 1,
        };
        let reason = locate(&search).expect_err("nothing is there").to_string();
        assert!(reason.contains("no OpenVINO library found"), "{reason}");
        assert!(reason.contains("cargo xtask fetch openvino"), "{reason}");
        let lib = folder.path().join("lib/openvino");
        fs::create_dir_all(&lib).expect("a folder");
        fs::write(lib.join("libopenvino_c.so.9999"), "no library").expect("a file");
        let reason = locate(&search).expect_err("no library").to_string();
        assert!(reason.contains("`libopenvino_c.so.9999`: "), "{reason}");
    }
}
