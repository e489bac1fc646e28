//! Triton's own configurations, when they lie beside the checkout: they are not part of it.

use std::path::{Path, PathBuf};

use prost_reflect::DynamicMessage;

use super::super::parse::descriptor;
use super::*;
use crate::oip::proto::ModelInstanceGroup;
use crate::oip::proto::model_instance_group::Kind;

fn corpus() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/triton-config");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} is not there", folder.display());
    None
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .expect("UTF-8")
}

/// Triton's files leave out the colon before a list of messages, which the oracle insists on.
fn with_colons(text: &str) -> String {
    let mut result = String::new();
    for c in text.chars() {
        let after_name = result
            .trim_end()
            .ends_with(|c: char| c.is_ascii_lowercase());
        if c == '[' && after_name {
            result.push(':');
        }
        result.push(c);
    }
    result
}

/// The oracle is prost-reflect's own parser of the text format.
#[test]
fn our_parser_reads_what_another_reads() {
    let Some(folder) = corpus() else { return };
    let mut paths = Vec::new();
    files(&folder, &mut paths);
    let mut compared = 0;
    for path in paths {
        let completed = name(&path).starts_with("expected");
        if !completed && !name(&path).ends_with(".pbtxt") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("text");
        let theirs = DynamicMessage::parse_text_format(descriptor(), &with_colons(&text));
        if completed && theirs.is_err() {
            continue; // The text of an error, not a configuration.
        }
        let theirs =
            theirs.map(|message| message.transcode_to::<ModelConfig>().expect("same type"));
        let ours = parse("config.pbtxt", &text).map(|file| file.config);
        assert_eq!(
            ours.as_ref().ok(),
            theirs.as_ref().ok(),
            "{}: {ours:?} {theirs:?}",
            path.display()
        );
        compared += 1;
    }
    assert!(compared >= 55, "{compared} configurations");
}

/// The model of the ONNX cases.
fn onnx_model() -> (Vec<TensorSpec>, Vec<TensorSpec>) {
    let tensors = |kind: &str, dtype| {
        [0, 1]
            .map(|index| spec(&format!("{kind}{index}"), dtype, &[-1, 16]))
            .to_vec()
    };
    (
        tensors("INPUT", DataType::Int32),
        tensors("OUTPUT", DataType::Int8),
    )
}

fn complete_case(case: &Path, inputs: &[TensorSpec], outputs: &[TensorSpec]) -> ModelConfig {
    let text = std::fs::read_to_string(case.join("config.pbtxt")).unwrap_or_default();
    // The recorded models without tensors are those of custom backends.
    let file = if inputs.is_empty() {
        ModelFile::Missing
    } else {
        ModelFile::Found
    };
    let mut config = config(&text);
    complete(&mut config, name(case), file, inputs, outputs).expect("completes");
    config
}

fn expectations(case: &Path) -> Vec<String> {
    std::fs::read_dir(case)
        .expect("a case")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| name(path).starts_with("expected"))
        .map(|path| std::fs::read_to_string(path).expect("text"))
        .collect()
}

/// The recordings were made on a machine with a GPU: where instances land is ours, their names are not.
fn on_cpu(text: &str, ours: &ModelConfig) -> ModelConfig {
    let mut expected = config(text);
    assert_eq!(expected.instance_group.len(), ours.instance_group.len());
    for (expected, ours) in expected.instance_group.iter_mut().zip(&ours.instance_group) {
        expected.kind = ours.kind;
        expected.count = ours.count;
        expected.gpus.clear();
    }
    expected
}

#[test]
fn configurations_are_completed_as_triton_completes_them() {
    let Some(folder) = corpus() else { return };
    let (inputs, outputs) = onnx_model();
    let success = folder.join("autofill_noplatform_success");
    let ensemble = success.join("ensemble");
    for (case, inputs, outputs) in [
        (success.join("onnx/empty_config"), &inputs[..], &outputs[..]),
        (success.join("onnx/no_config"), &inputs, &outputs),
        (success.join("custom/no_backend.identity"), &[], &[]),
        (
            ensemble.join("embedded_ensemble/embedded_ensemble"),
            &[],
            &[],
        ),
        (ensemble.join("unmapped_output/unmapped_output"), &[], &[]),
    ] {
        let ours = complete_case(&case, inputs, outputs);
        let matches = expectations(&case)
            .iter()
            .any(|text| on_cpu(text, &ours) == ours);
        assert!(matches, "{}: {ours:#?}", case.display());
        let on_cpu = |group: &ModelInstanceGroup| group.kind() == Kind::Cpu;
        assert!(ours.instance_group.iter().all(on_cpu));
        assert_eq!(
            validate(&ours, name(&case), inputs, outputs),
            [],
            "{}",
            case.display()
        );
    }
}

#[test]
fn configurations_that_contradict_the_model_are_refused_in_tritons_words() {
    let Some(folder) = corpus() else { return };
    let (inputs, outputs) = onnx_model();
    for case in ["bad_input_dims", "too_many_inputs", "unknown_input"] {
        let case = folder.join("autofill_noplatform/onnx").join(case);
        let config = complete_case(&case, &inputs, &outputs);
        let problems: Vec<_> = validate(&config, name(&case), &inputs, &outputs)
            .iter()
            .map(ToString::to_string)
            .collect();
        // The files hold patterns; only brackets are escaped.
        let matches = expectations(&case).iter().any(|pattern| {
            problems
                .iter()
                .any(|problem| problem.contains(&pattern.replace('\\', "")))
        });
        assert!(matches, "{}: {problems:?}", case.display());
    }
}

/// The configurations of the models around an ensemble in the corpus.
fn beside(folder: &Path) -> Vec<ModelConfig> {
    let mut paths = Vec::new();
    files(folder, &mut paths);
    paths
        .iter()
        .filter(|path| path.ends_with("config.pbtxt"))
        .map(|path| config(&std::fs::read_to_string(path).expect("text")))
        .collect()
}

fn ensemble_problem(config: &ModelConfig, models: &[ModelConfig]) -> Option<String> {
    let problems = validate(config, &config.name, &[], &[]);
    if let Some(first) = problems.first() {
        return Some(first.to_string());
    }
    let members: Vec<_> = ensemble::steps(config)?
        .iter()
        .map(|step| {
            let model = models.iter().find(|model| model.name == step.model_name);
            model.map(|config| ensemble::Member { config, over: &[] })
        })
        .collect();
    let checked = ensemble::check_members(config, &config.name, &members);
    checked.err().map(|problem| problem.to_string())
}

#[test]
fn ensembles_are_refused_in_tritons_words() {
    let Some(folder) = corpus() else { return };
    let mut compared = 0;
    for case in std::fs::read_dir(folder.join("autofill_noplatform/ensemble")).expect("a folder") {
        let case = case.expect("a case").path();
        // Which models and versions exist is the repository's business.
        if ["non_existing_model", "no_required_version_3"].contains(&name(&case)) {
            continue;
        }
        let models = beside(&case);
        let found: Vec<_> = models
            .iter()
            .filter_map(|config| ensemble_problem(config, &models))
            .collect();
        let said = expectations(&case).iter().any(|pattern| {
            let pattern = pattern.replace('\\', "");
            found.iter().any(|found| found.contains(&pattern))
        });
        assert!(said, "{}: {found:?}", case.display());
        compared += 1;
    }
    assert!(compared >= 10, "{compared} ensembles");
}
