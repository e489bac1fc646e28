use std::path::{Component, Path};

/// Whether a file that somebody names lies in the folder that the name is meant for. A repository is data that may come
/// from elsewhere, and so is what a client sends: neither names a file outside.
pub fn stays_inside(path: &Path) -> bool {
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
