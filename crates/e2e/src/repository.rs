//! Model repositories on disk, in Triton's layout.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A folder of models that goes away with the test.
#[derive(Debug)]
pub struct Repository(TempDir);

impl Repository {
    /// # Panics
    /// When no temporary folder can be made.
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// One file of a model, its folders made as needed.
    #[must_use]
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.0.path().join(path);
        let folder = path.parent().expect("it is under the repository");
        std::fs::create_dir_all(folder).expect("the folder is ours");
        std::fs::write(path, content).expect("the folder is ours");
        self
    }

    /// A model of a built-in engine with one input and one output.
    #[must_use]
    pub fn builtin(self, name: &str, model: &Builtin) -> Self {
        self.file(&format!("{name}/config.pbtxt"), model.config(name))
            .file(&format!("{name}/1/.keep"), "")
    }

    /// A real model's folder, by link.
    #[must_use]
    pub fn link(self, name: &str, folder: &Path) -> Self {
        std::os::unix::fs::symlink(folder, self.0.path().join(name)).expect("the folder is ours");
        self
    }
}

impl Default for Repository {
    fn default() -> Self {
        Self::new()
    }
}

/// `backend`, element type and shape (without the batch dimension) of a built-in.
#[derive(Debug, Clone, Copy)]
pub struct Builtin {
    pub backend: &'static str,
    pub dtype: &'static str,
    pub dims: &'static str,
    pub max_batch: u32,
    pub delay_ms: u32,
}

impl Default for Builtin {
    /// `identity` of FP32 with one free dimension and no batching.
    fn default() -> Self {
        Self {
            backend: "identity",
            dtype: "FP32",
            dims: "-1",
            max_batch: 0,
            delay_ms: 0,
        }
    }
}

impl Builtin {
    fn config(&self, name: &str) -> String {
        let Self {
            backend,
            dtype,
            dims,
            max_batch,
            delay_ms,
        } = self;
        let tensor = |key: &str, name: &str| {
            format!(
                "{key} [ {{ name: \"{name}\" data_type: TYPE_{kind} dims: [ {dims} ] }} ]\n",
                kind = if *dtype == "BYTES" { "STRING" } else { dtype }
            )
        };
        let mut text =
            format!("name: \"{name}\"\nbackend: \"{backend}\"\nmax_batch_size: {max_batch}\n");
        text.push_str(&tensor("input", "INPUT0"));
        text.push_str(&tensor("output", "OUTPUT0"));
        if *delay_ms > 0 {
            text.push_str(&format!(
                "parameters: {{ key: \"execute_delay_ms\" value: {{ string_value: \"{delay_ms}\" }} }}\n"
            ));
        }
        text
    }
}

/// Where `cargo xtask fetch` puts what is never committed: `KAPOK_TEST_CACHE` (set by `cargo xtask test`), `KAPOK_CACHE`,
/// or the user's cache folder.
pub fn cache() -> PathBuf {
    for name in ["KAPOK_TEST_CACHE", "KAPOK_CACHE"] {
        if let Some(given) = std::env::var_os(name) {
            return PathBuf::from(given);
        }
    }
    let base = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
        PathBuf::from,
    );
    base.join("kapok")
}

/// A model of the catalogue.
///
/// # Panics
/// When it was not fetched.
pub fn fetched(model: &str) -> PathBuf {
    let folder = cache().join("models").join(model);
    assert!(
        folder.is_dir(),
        "{} is missing: run `cargo xtask fetch` (`cargo xtask test` does)",
        folder.display()
    );
    folder
}

/// ONNX Runtime's library: the one named by `ORT_DYLIB_PATH`, or the one in the cache if it was fetched.
pub fn onnxruntime() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("ORT_DYLIB_PATH") {
        return Some(PathBuf::from(given));
    }
    let libraries = std::fs::read_dir(cache().join("lib")).ok()?;
    libraries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains("libonnxruntime.so"))
}
