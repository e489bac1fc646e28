//! Triton's own configurations, when they lie beside the checkout: they are not part of it.

use std::path::{Path, PathBuf};

use prost_reflect::DynamicMessage;

use super::super::parse::descriptor;
use super::*;

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

fn expectations(case: &Path) -> Vec<String> {
    std::fs::read_dir(case)
        .expect("a case")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| name(path).starts_with("expected"))
        .map(|path| std::fs::read_to_string(path).expect("text"))
        .collect()
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
    let mut normalized = config.clone();
    let _undetermined = normalize(&mut normalized, &config.name, None);
    let setting = Setting {
        folder: &config.name,
        gpus: &[],
    };
    let problems = validate(&normalized, setting);
    if !problems.is_empty() {
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        return Some(problems.join("; "));
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
