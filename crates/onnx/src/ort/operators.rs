//! Libraries of operators that a model brings: `model_operations.op_library_filename`.
//!
//! Loading one runs its code in this process, as loading the model does with an engine's: who may write to the repository
//! or name a path in a configuration decides what runs here.

use std::path::{Path, PathBuf};

use runtime::engine::Source;

/// The libraries' files; a relative path is inside the model's folder, as is what links in it lead to.
pub(super) fn libraries(source: &Source) -> Result<Vec<PathBuf>, String> {
    let operations = source.config.model_operations.as_ref();
    let names = operations.map_or(&[][..], |all| &all.op_library_filename);
    names
        .iter()
        .map(|name| library(&source.folder, name))
        .collect()
}

fn library(folder: &Path, name: &str) -> Result<PathBuf, String> {
    let field = "`model_operations.op_library_filename`";
    let path = Path::new(name);
    let missing = |error| format!("{field}: `{name}`: {error}");
    if path.is_absolute() {
        return path.canonicalize().map_err(missing);
    }
    let found = folder.join(path).canonicalize().map_err(missing)?;
    let home = folder.canonicalize().map_err(missing)?;
    if found.starts_with(home) {
        Ok(found)
    } else {
        Err(format!(
            "{field}: `{name}` leads out of the model's folder; give its absolute path"
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_relative_path_stays_in_the_models_folder() {
        let root = tempfile::tempdir().expect("a folder");
        let model = root.path().join("m");
        fs::create_dir(&model).expect("a folder");
        fs::write(model.join("ops.so"), "x").expect("a file");
        fs::write(root.path().join("other.so"), "x").expect("a file");
        assert!(library(&model, "ops.so").is_ok());
        let absolute = root.path().join("other.so");
        assert!(library(&model, &absolute.to_string_lossy()).is_ok());
        for name in ["../other.so", "gone.so"] {
            let error = library(&model, name).expect_err(name);
            assert!(
                error.contains(name) && error.contains("op_library_filename"),
                "{error}"
            );
        }
    }
}
