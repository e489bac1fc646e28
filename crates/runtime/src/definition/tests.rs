//! Triton's own cases, when they lie beside the checkout: they are not part of it. Each goes through what loading uses.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use protocol::config::ensemble;
use protocol::oip::proto::ModelConfig;
use protocol::{DataType, TensorSpec};

use super::*;
use crate::Builtin;
use crate::choose::no_backend;
use crate::engine::Engine;
use crate::repository::scan;
use crate::testing::Fake;

/// A model whose configuration gets a `model_metrics` at the end.
const METRICS_BASE: &str = "backend: \"identity\" max_batch_size: 8
    input { name: \"INPUT0\" data_type: TYPE_FP32 dims: 16 } output { name: \"OUTPUT0\" data_type: TYPE_FP32 dims: 16 }\n";

fn corpus() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/triton-config");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} is not there", folder.display());
    None
}

/// Every folder that says what is expected of it.
fn cases(folder: &Path) -> Vec<PathBuf> {
    let mut cases = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let mut expected = false;
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                expected |= name(&path).starts_with("expected");
            }
        }
        if expected {
            cases.push(folder);
        }
    }
    cases.sort();
    cases
}

fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .expect("UTF-8")
}

/// The texts of the files that begin with `expected`; patterns escape only brackets.
fn expectations(case: &Path) -> BTreeMap<String, String> {
    let files = fs::read_dir(case).expect("a case");
    let paths = files.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| name(path).starts_with("expected"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("text").replace('\\', "");
            (name(&path).to_owned(), text.trim().to_owned())
        })
        .collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("created");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(name(&path));
        if path.is_dir() {
            copy(&path, &target);
        } else if !name(&path).starts_with("expected") {
            fs::copy(&path, &target).expect("copied");
        }
    }
}

/// A repository with the models of a case: its folder is a model, or holds some.
fn repository(case: &Path, platform: Option<&str>) -> tempfile::TempDir {
    let repository = tempfile::tempdir().expect("created");
    let alone = ["config.pbtxt", "1", "partial.pbtxt"]
        .iter()
        .any(|entry| case.join(entry).exists());
    if alone {
        let model = repository.path().join(name(case));
        copy(case, &model);
        let partial = model.join("partial.pbtxt");
        if let Ok(text) = fs::read_to_string(partial) {
            fs::write(model.join("config.pbtxt"), format!("{METRICS_BASE}{text}"))
                .expect("written");
        }
        if let Some(platform) = platform {
            let file = model.join("config.pbtxt");
            let text = fs::read_to_string(&file).expect("text");
            let others = text.lines().filter(|line| !line.starts_with("platform:"));
            let text = others.collect::<Vec<_>>().join("\n");
            fs::write(file, format!("{text}\nplatform: \"{platform}\"\n")).expect("written");
        }
    } else {
        copy(case, repository.path());
    }
    repository
}

/// The model of the ONNX cases.
fn onnx_model() -> (Vec<TensorSpec>, Vec<TensorSpec>) {
    let tensors = |kind: &str, dtype| {
        [0, 1]
            .map(|index| TensorSpec::new(format!("{kind}{index}"), dtype, vec![-1, 16]))
            .to_vec()
    };
    (
        tensors("INPUT", DataType::Int32),
        tensors("OUTPUT", DataType::Int8),
    )
}

/// What is said of every model of a repository, and the configurations that are whole.
fn load(repository: &Path) -> (Vec<String>, Vec<ModelConfig>) {
    let (mut said, mut whole) = (Vec::new(), Vec::new());
    for found in scan(&[repository.to_owned()]).expect("readable") {
        let definition = match Definition::read(&found, None, &Terms::of(&[], true)) {
            Ok(definition) => definition,
            Err(reason) => {
                said.push(reason);
                continue;
            }
        };
        let on_file = definition.normalized().backend == "onnxruntime";
        let config = definition.normalized();
        if ensemble::steps(config).is_none() {
            let engines = [
                Arc::new(Builtin) as Arc<dyn Engine>,
                Fake::new("onnxruntime").engine(),
            ];
            let version = found.versions.values().next().expect("a version");
            match definition.source(version) {
                Ok(source) if !engines.iter().any(|engine| engine.accepts(&source)) => {
                    said.push(no_backend(&source.backend));
                }
                // What a case without files lacks is not what it is about.
                Ok(_) | Err(_) => {}
            }
        }
        let (inputs, outputs) = if on_file {
            onnx_model()
        } else {
            Default::default()
        };
        match definition.complete(&inputs, &outputs) {
            Ok(config) => whole.push(config),
            Err(reason) => said.push(reason),
        }
    }
    for config in &whole {
        let Some(steps) = ensemble::steps(config) else {
            continue;
        };
        let member = |step: &protocol::oip::proto::model_ensembling::Step| {
            let model = whole.iter().find(|model| model.name == step.model_name);
            model.map(|config| ensemble::Member { config, over: &[] })
        };
        let members: Vec<_> = steps.iter().map(member).collect();
        let checked = ensemble::check_members(config, &config.name, &members);
        said.extend(checked.err().map(|problem| problem.to_string()));
    }
    (said, whole)
}

/// The recordings were made on a machine with a GPU: where instances land is ours, their names are not.
fn on_cpu(text: &str, ours: &ModelConfig) -> ModelConfig {
    let mut expected = config::parse("expected", text)
        .expect("a configuration")
        .config;
    assert_eq!(expected.instance_group.len(), ours.instance_group.len());
    for (expected, ours) in expected.instance_group.iter_mut().zip(&ours.instance_group) {
        expected.kind = ours.kind;
        expected.count = ours.count;
        expected.gpus.clear();
    }
    expected
}

#[test]
fn every_case_of_tritons_is_refused_or_completed_as_triton_does() {
    let Some(folder) = corpus() else { return };
    let mut wrong = Vec::new();
    let mut compared = 0;
    for case in cases(&folder) {
        // Which models and versions are loaded is said by whoever loads them.
        if ["non_existing_model", "no_required_version_3"].contains(&name(&case)) {
            continue;
        }
        compared += 1;
        let completed = case.starts_with(folder.join("autofill_noplatform_success"));
        let fault = if completed {
            completes(&case)
        } else {
            refuses(&case, case.starts_with(folder.join("noautofill_platform")))
        };
        wrong.extend(fault.map(|fault| format!("{}: {fault}", name(&case))));
    }
    assert!(compared >= 50, "{compared} cases");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn completes(case: &Path) -> Option<String> {
    let holder = repository(case, None);
    // A folder without files of its own is a model without a configuration.
    let (said, whole) = load(holder.path());
    let Some(ours) = whole.iter().find(|config| config.name == name(case)) else {
        return Some(format!("refused: {said:?}"));
    };
    let matches = expectations(case)
        .values()
        .any(|text| on_cpu(text, ours) == *ours);
    (!matches).then(|| format!("{ours:#?}"))
}

/// The cases without a platform are tried with each that Triton tries, as its own test does.
fn refuses(case: &Path, platforms: bool) -> Option<String> {
    let expected = expectations(case);
    let mut tried = vec![(None, expected.values().cloned().collect::<Vec<_>>())];
    if platforms {
        for (platform, file) in [
            ("onnxruntime_onnx", "expected"),
            ("ensemble", "expected_ensemble"),
        ] {
            if let Some(text) = expected.get(file) {
                tried.push((Some(platform), vec![text.clone()]));
            }
        }
    }
    for (platform, patterns) in tried {
        let holder = repository(case, platform);
        let (said, _) = load(holder.path());
        let matches = patterns
            .iter()
            .any(|pattern| said.iter().any(|said| said.contains(pattern)));
        if !matches {
            return Some(format!("{platform:?}: {patterns:?} is not in {said:?}"));
        }
    }
    None
}

#[test]
fn only_an_owner_says_what_batches_are_worth() {
    let io = "backend: \"identity\" max_batch_size: 8
        input { name: \"A\" data_type: TYPE_FP32 dims: 1 } output { name: \"B\" data_type: TYPE_FP32 dims: 1 }\n";
    for (written, preferred) in [
        ("dynamic_batching { }", &[][..]),
        ("dynamic_batching { preferred_batch_size: [ 8 ] }", &[8]),
        (
            "dynamic_batching { preferred_batch_size: [ 4, 2 ] }",
            &[2, 4],
        ),
    ] {
        let config = format!("{io}{written}");
        let root = crate::testing::repository(&[("m/config.pbtxt", &config)]);
        let found = scan(&[root.path().to_owned()]).expect("a repository");
        let definition = Definition::read(&found[0], None, &Terms::of(&[], true)).expect("valid");
        let settings = definition.batching(definition.normalized(), 1);
        assert_eq!(settings.preferred, preferred, "{written}");
    }
}
