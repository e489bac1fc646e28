use protocol::oip::proto::model_version_policy::{All, Latest, Specific};

use super::*;

fn repository(folders: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a temporary folder");
    for folder in folders {
        fs::create_dir_all(root.path().join(folder)).expect("creates");
    }
    root
}

#[test]
fn only_positive_integers_without_leading_zero_are_versions() {
    let root = repository(&[
        "m/1", "m/10", "m/007", "m/0", "m/-3", "m/v2", "m/1.5", "m/.4",
    ]);
    fs::write(root.path().join("m/9"), "a file").expect("writes");
    let found = scan(&[root.path().to_owned()]).expect("scans");
    assert_eq!(found.len(), 1);
    let versions: Vec<_> = found[0].versions.keys().copied().collect();
    assert_eq!(versions, [1, 10]);
}

#[test]
fn a_flat_folder_is_version_one_and_files_are_no_models() {
    let root = repository(&["flat", ".hidden"]);
    fs::write(root.path().join("README.md"), "").expect("writes");
    fs::write(root.path().join("flat/model.onnx"), "").expect("writes");
    let found = scan(&[root.path().to_owned()]).expect("scans");
    assert_eq!(found.len(), 1);
    let expected = BTreeMap::from([(1, root.path().join("flat"))]);
    assert_eq!(found[0].versions, expected);
}

#[test]
fn a_name_in_two_repositories_names_both_folders() {
    let (one, two) = (repository(&["m/1", "only/1"]), repository(&["m/1"]));
    let found = scan(&[one.path().to_owned(), two.path().to_owned()]).expect("scans");
    let problem = found[0].problem.as_deref().expect("a problem");
    for repository in [&one, &two] {
        let name = repository.path().file_name().expect("named");
        let name = format!("`{}`", name.to_string_lossy());
        assert!(problem.contains(&name), "{problem}");
    }
    assert!(!problem.contains('/'), "{problem}");
    assert_eq!(found[0].twin, Some(two.path().join("m")));
    assert_eq!(found[1].problem, None);
}

#[test]
fn a_missing_repository_is_named() {
    let error = scan(&[PathBuf::from("/nonexistent/models")]).expect_err("missing");
    assert!(error.to_string().contains("/nonexistent/models"), "{error}");
}

#[test]
fn the_version_policy_picks_from_what_is_there() {
    let on_disk = [2, 3, 7, 11]
        .map(|version| (version, PathBuf::new()))
        .into_iter()
        .collect();
    let policy = |choice| ModelVersionPolicy {
        policy_choice: Some(choice),
    };
    let latest = |num_versions| policy(PolicyChoice::Latest(Latest { num_versions }));
    let specific = |versions: &[i64]| {
        policy(PolicyChoice::Specific(Specific {
            versions: versions.to_vec(),
        }))
    };
    for (policy, expected) in [
        (None, Some(vec![11])),
        (Some(latest(2)), Some(vec![7, 11])),
        (Some(latest(9)), Some(vec![2, 3, 7, 11])),
        (
            Some(policy(PolicyChoice::All(All {}))),
            Some(vec![2, 3, 7, 11]),
        ),
        (Some(specific(&[3, 4])), Some(vec![3])),
        (Some(specific(&[5, -1])), None),
    ] {
        assert_eq!(
            select(&on_disk, policy.as_ref()).ok(),
            expected,
            "{policy:?}"
        );
    }
}
