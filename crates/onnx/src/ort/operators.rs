//! Libraries of operators that a model brings: `model_operations.op_library_filename`, and `[custom_ops] libs` of its
//! `kapok.toml`.
//!
//! Loading one runs its code in this process, as loading the model does with an engine's: who may write to the repository
//! or name a path in a configuration decides what runs here.

use std::path::{Path, PathBuf};

use runtime::engine::Source;

/// Each library with the field that names it.
pub(crate) fn named(source: &Source) -> impl Iterator<Item = (&'static str, &Path)> {
    let operations = source.config.model_operations.iter();
    operations
        .flat_map(|all| &all.op_library_filename)
        .map(|name| ("model_operations.op_library_filename", Path::new(name)))
        .chain(
            source
                .sidecar
                .custom_ops
                .libs
                .iter()
                .map(|name| ("[custom_ops] libs", name.as_path())),
        )
}

/// The libraries' files; a relative path is inside the model's folder, as is what links in it lead to.
pub(super) fn libraries(source: &Source) -> Result<Vec<PathBuf>, String> {
    named(source)
        .map(|(field, name)| {
            library(&source.folder, name)
                .map_err(|reason| format!("`{field}`: `{}` {reason}", name.display()))
        })
        .collect()
}

fn library(folder: &Path, name: &Path) -> Result<PathBuf, String> {
    let missing = |error: std::io::Error| format!("cannot be opened: {error}");
    if name.is_absolute() {
        return name.canonicalize().map_err(missing);
    }
    let found = folder.join(name).canonicalize().map_err(missing)?;
    let home = folder.canonicalize().map_err(missing)?;
    if found.starts_with(home) {
        Ok(found)
    } else {
        Err("leads out of the model's folder; give its absolute path".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use protocol::sidecar::Sidecar;

    use super::*;

    #[test]
    fn a_relative_path_stays_in_the_models_folder() {
        let root = tempfile::tempdir().expect("a folder");
        let model = root.path().join("m");
        fs::create_dir(&model).expect("a folder");
        fs::write(model.join("ops.so"), "x").expect("a file");
        fs::write(root.path().join("other.so"), "x").expect("a file");
        let found = |name: &Path| {
            let mut sidecar = Sidecar::default();
            sidecar.custom_ops.libs.push(name.to_owned());
            libraries(&Source {
                folder: model.clone(),
                sidecar: Arc::new(sidecar),
                ..Source::default()
            })
        };
        assert!(found(Path::new("ops.so")).is_ok());
        assert!(found(&root.path().join("other.so")).is_ok());
        for name in ["../other.so", "gone.so"] {
            let error = found(Path::new(name)).expect_err(name);
            assert!(
                error.contains(name) && error.contains("[custom_ops] libs"),
                "{error}"
            );
        }
    }
}
