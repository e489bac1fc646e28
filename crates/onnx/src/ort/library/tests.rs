use std::fs;
use std::path::{Path, PathBuf};

use runtime::engine::EngineError;

use super::{OLDEST, Version, locate};
use crate::search::Search;

fn search(explicit: Option<PathBuf>, cache: Option<&Path>) -> Search {
    Search {
        explicit,
        cache: cache.map(Path::to_owned),
        system: Vec::new(),
        threads: 1,
    }
}

fn refusal(search: &Search) -> String {
    match locate(search) {
        Err(EngineError::Missing { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_on_this_machine_is_a_normal_state_with_a_hint() {
    let folder = tempfile::tempdir().expect("a folder");
    let reason = refusal(&search(None, Some(folder.path())));
    assert!(
        reason.starts_with("no ONNX Runtime library found"),
        "{reason}"
    );
    assert!(reason.contains("cargo xtask fetch onnxruntime"), "{reason}");
}

#[test]
fn a_file_that_is_no_library_is_named_without_its_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let lib = folder.path().join("lib");
    fs::create_dir(&lib).expect("a folder");
    let file = lib.join("libonnxruntime.so.1.99.0");
    fs::write(&file, "not a library").expect("a file");
    for search in [
        search(Some(file.clone()), None),
        search(None, Some(folder.path())),
    ] {
        let reason = refusal(&search);
        assert!(reason.contains("`libonnxruntime.so.1.99.0`: "), "{reason}");
        assert!(
            !reason.contains(&*folder.path().to_string_lossy()),
            "{reason}"
        );
    }
}

#[test]
fn a_named_file_is_the_only_one_tried() {
    let folder = tempfile::tempdir().expect("a folder");
    let reason = refusal(&search(
        Some(folder.path().join("gone.so")),
        Some(folder.path()),
    ));
    assert!(reason.contains("`gone.so`: "), "{reason}");
}

#[test]
fn versions_are_compared_by_number() {
    let new_enough = |text| Version::parse(text).is_some_and(|version| version >= OLDEST);
    assert!(new_enough("1.20.0") && new_enough("1.31.1") && new_enough("2.0.0-dev"));
    assert!(!new_enough("1.19.2") && !new_enough("0.99.0") && !new_enough("x"));
}
