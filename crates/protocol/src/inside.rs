use std::path::{Component, Path};

/// Whether a file that a repository names lies in the folder of the file that names it. A repository is data that may
/// come from elsewhere: it names no file outside itself.
pub(crate) fn stays_inside(path: &Path) -> bool {
    path.file_name().is_some()
        && path
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_downward_stay_inside() {
        for path in ["a", "a/b.onnx", "./a", "a/./b"] {
            assert!(stays_inside(Path::new(path)), "{path}");
        }
        for path in ["", ".", "..", "/", "/a", "../a", "a/../../b", "a/.."] {
            assert!(!stays_inside(Path::new(path)), "{path}");
        }
    }
}
