use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::repository;
use crate::testing;

/// SHA-256 of `ok`.
const OK: &str = "2689367b205c16ce32ed4200942b8b8b1e262dfc70d9bc9fbc77c49699a4f1df";

/// Made for this test; the private half is not kept.
const KEY: &str = "RWRrYXBva3RzdMEDcDky7N5lOKlopH4K4PYQPchhbUfGngoqhHd7JUAp";

/// Signs a manifest of `1/model.onnx` holding `ok`.
const SIGNATURE: &str = "untrusted comment: signature for tests\nRURrYXBva3RzdAsDDvELSIGg9l4+FOcBPOA64YAICmzaIo09DfOFh4ADKba4WGYry825c7PIiJsk4cPDJDGFN11JrsACL3ESqgA=\ntrusted comment: timestamp:1\tfile:manifest.sha256\nMF0IHeCyaG+W2EQvNveITMJIbwFWGIkp8m+/g6E2LKvWti6LvQqo78cp50IhUwHV/YO8PQVZFPNvfWWNpU+8DQ==\n";

fn check(files: &[(&str, &str)], integrity: &Integrity, key: Option<&str>) -> Result<(), String> {
    let root = testing::repository(files);
    let found = repository::find(&[root.path().to_owned()], "m").expect("there");
    let node_key = key;
    Check {
        integrity,
        node_key,
    }
    .version(&found, 1)
}

#[test]
fn a_manifest_knows_every_file_and_its_hash() {
    let manifest = format!("{OK}  1/model.onnx\n");
    let inner = format!("{OK} *model.onnx\n");
    let model = ("m/1/model.onnx", "ok");
    let required = Integrity {
        required: true,
        ..Integrity::default()
    };
    let twice = format!("{manifest}{manifest}");
    let outside = format!("{OK}  ../model.onnx");
    let missing = format!("{manifest}{OK}  1/weights.bin\n");
    let other = format!("{manifest}{OK}  2/model.onnx\n");
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a Integrity, &'a str);
    let plain = &Integrity::default();
    let cases: [Case<'_>; 11] = [
        (&[model], plain, ""),
        (&[model], &required, "asks for a manifest"),
        (&[model, ("m/manifest.sha256", &manifest)], &required, ""),
        (&[model, ("m/1/manifest.sha256", &inner)], &required, ""),
        (
            &[
                model,
                ("m/2/model.onnx", "x"),
                ("m/manifest.sha256", &other),
            ],
            plain,
            "",
        ),
        (
            &[("m/1/model.onnx", "no"), ("m/manifest.sha256", &manifest)],
            plain,
            "does not have the SHA-256 hash",
        ),
        (
            &[
                model,
                ("m/1/extra.bin", ""),
                ("m/manifest.sha256", &manifest),
            ],
            plain,
            "`1/extra.bin` is not in `manifest.sha256`",
        ),
        (
            &[model, ("m/manifest.sha256", &missing)],
            plain,
            "not on disk",
        ),
        (
            &[model, ("m/manifest.sha256", &twice)],
            plain,
            "line 2: the file is named twice",
        ),
        (
            &[model, ("m/manifest.sha256", &outside)],
            plain,
            "not below the manifest",
        ),
        (
            &[model, ("m/manifest.sha256", "abc  1/model.onnx")],
            plain,
            "64 hex digits",
        ),
    ];
    for (files, integrity, expected) in cases {
        let outcome = check(files, integrity, None);
        let reason = outcome.err().unwrap_or_default();
        assert!(
            reason.contains(expected) && reason.is_empty() == expected.is_empty(),
            "{files:?}: {reason}"
        );
    }
}

#[test]
fn a_signature_is_of_this_manifest_by_this_key() {
    let manifest = format!("{OK}  1/model.onnx\n");
    let longer = format!("{OK}  1/model.onnx\n\n");
    let stranger = KEY.replace("RWRrYXBva3", "RWRrYXBva4");
    let files = |manifest: &str, signature: Option<&str>| {
        let mut files = BTreeMap::from([
            ("m/1/model.onnx", "ok".to_owned()),
            ("m/manifest.sha256", manifest.to_owned()),
        ]);
        files
            .extend(signature.map(|signature| ("m/manifest.sha256.minisig", signature.to_owned())));
        files
    };
    for (files, key, expected) in [
        (files(&manifest, Some(SIGNATURE)), KEY, ""),
        (files(&manifest, None), KEY, "must be signed"),
        (files(&longer, Some(SIGNATURE)), KEY, "does not sign"),
        (
            files(&manifest, Some(SIGNATURE)),
            stranger.as_str(),
            "does not sign",
        ),
        (files(&manifest, Some("nonsense")), KEY, "does not sign"),
    ] {
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(name, text)| (*name, text.as_str()))
            .collect();
        let own = Integrity {
            public_key: Some(key.to_owned()),
            ..Integrity::default()
        };
        for outcome in [
            check(&files, &own, None),
            check(&files, &Integrity::default(), Some(key)),
        ] {
            let reason = outcome.err().unwrap_or_default();
            assert!(
                reason.contains(expected) && reason.is_empty() == expected.is_empty(),
                "{reason}"
            );
        }
    }
    // Beside the version it would say nothing of the configuration.
    let inner = format!("{OK}  model.onnx\n");
    let files = [
        ("m/1/model.onnx", "ok"),
        ("m/1/manifest.sha256", inner.as_str()),
    ];
    let refused = check(&files, &Integrity::default(), Some(KEY)).expect_err("not the model's");
    assert!(refused.contains("signed models only"), "{refused}");
}

#[test]
fn a_folder_is_whole_when_every_version_has_a_manifest_that_matches() {
    let manifest = format!("{OK}  1/model.onnx\n");
    let root = testing::repository(&[("m/1/model.onnx", "o"), ("m/manifest.sha256", &manifest)]);
    let repositories = [root.path().to_owned()];
    let found = || repository::find(&repositories, "m").expect("there");
    assert!(!whole(&found()));
    fs::write(root.path().join("m/1/model.onnx"), "ok").expect("writes");
    assert!(whole(&found()));
    fs::remove_file(root.path().join("m/manifest.sha256")).expect("removes");
    assert!(!whole(&found()));
}
