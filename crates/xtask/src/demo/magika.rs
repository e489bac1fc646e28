//! File types by the model `magika`: bytes in, scores out. What goes in and what the scores mean is in the model's own
//! `config.min.json`; the steps are those of the package it comes from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Parts, Step};
use crate::http::{Http, Reply, Stages};
use crate::process::run;
use crate::workspace::root;

const MODEL: &str = "magika";

/// A file and the type it has.
pub(super) struct Sample {
    path: PathBuf,
    kind: &'static str,
}

/// The model's `config.min.json`, as far as it concerns us.
#[derive(Debug, Deserialize)]
struct Config {
    beg_size: usize,
    end_size: usize,
    block_size: usize,
    padding_token: i32,
    medium_confidence_threshold: f64,
    target_labels_space: Vec<String>,
    thresholds: BTreeMap<String, f64>,
    overwrite_map: BTreeMap<String, String>,
}

/// Real files: of this checkout, of the build, of the cache, and some made by Python's standard library.
pub(super) fn samples(parts: &Parts) -> Result<Vec<Sample>> {
    let made = parts.scratch.join("samples");
    run(Command::new(&parts.python)
        .arg(root().join("demo/make_samples.py"))
        .arg(&made))?;
    let root = root();
    let onnx = parts.store.models().join(MODEL).join("1/model.onnx");
    let samples = vec![
        (root.join("crates/xtask/src/demo.rs"), "rust"),
        (root.join("models.toml"), "toml"),
        (root.join("ARCHITECTURE.md"), "markdown"),
        (root.join("demo/llama_server.py"), "python"),
        (root.join(".ci/run"), "shell"),
        (root.join("examples/kapok.yaml"), "yaml"),
        (
            root.join("crates/protocol/proto/grpc_service.proto"),
            "proto",
        ),
        (root.join("LICENSE"), "txt"),
        (parts.binary.clone(), "elf"),
        (onnx, "onnx"),
        (made.join("picture.png"), "png"),
        (made.join("notes.zip"), "zip"),
        (made.join("table.csv.gz"), "gzip"),
        (made.join("table.csv"), "csv"),
        (made.join("page.html"), "html"),
        (made.join("trees.json"), "json"),
        (made.join("tone.wav"), "wav"),
    ];
    Ok(samples
        .into_iter()
        .map(|(path, kind)| Sample { path, kind })
        .collect())
}

/// Asks for each file's type; all must be right.
pub(super) fn classify(http: &Http, parts: &Parts, samples: &[Sample]) -> Result<Step> {
    let path = parts.store.models().join(MODEL).join("config.min.json");
    let config: Config = serde_json::from_slice(&std::fs::read(&path)?)
        .with_context(|| format!("in `{}`", path.display()))?;
    let mut files = Vec::new();
    let mut lines = Vec::new();
    let mut right = 0;
    let mut took = Duration::ZERO;
    let mut stages = Stages::new();
    for sample in samples {
        let content = std::fs::read(&sample.path)
            .with_context(|| format!("reading `{}`", sample.path.display()))?;
        let reply = infer(http, &features(&content, &config))?;
        let (named, score) = label(&reply.json()?, &config)?;
        let name = file_name(&sample.path);
        let ok = named == sample.kind;
        right += usize::from(ok);
        took += reply.took;
        add(&mut stages, reply.stages()?);
        let remark = if ok {
            String::new()
        } else {
            format!("  expected {}", sample.kind)
        };
        lines.push(format!("{name:22} {named:10} {score:.3}{remark}"));
        files.push(
            json!({"file": name, "type": named, "expected": sample.kind, "score": score, "ok": ok}),
        );
    }
    lines.insert(
        0,
        format!(
            "{right} of {} files named rightly; times are sums",
            samples.len()
        ),
    );
    Ok(Step {
        ok: right == samples.len(),
        result: json!({"right": right, "files": files}),
        lines,
        took,
        stages,
    })
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn add(sums: &mut Stages, stages: Stages) {
    for (stage, millis) in stages {
        match sums.iter_mut().find(|(name, _)| *name == stage) {
            Some((_, sum)) => *sum += millis,
            None => sums.push((stage, millis)),
        }
    }
}

/// The first and the last bytes without the white space around them, padded towards the middle.
fn features(content: &[u8], config: &Config) -> Vec<i32> {
    let block = content.len().min(config.block_size);
    let (first, last) = (content.get(..block), content.get(content.len() - block..));
    // Python's idea of white space has one character more than Rust's: vertical tab.
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    let first = first
        .unwrap_or_default()
        .iter()
        .skip_while(|byte| is_space(byte));
    let mut out: Vec<i32> = first
        .take(config.beg_size)
        .map(|byte| i32::from(*byte))
        .collect();
    out.resize(config.beg_size, config.padding_token);
    let last = last
        .unwrap_or_default()
        .iter()
        .rev()
        .skip_while(|byte| is_space(byte));
    let mut end: Vec<i32> = last
        .take(config.end_size)
        .map(|byte| i32::from(*byte))
        .collect();
    end.resize(config.end_size, config.padding_token);
    end.reverse();
    out.extend(end);
    out
}

/// One call of the Open Inference Protocol with a binary input.
fn infer(http: &Http, features: &[i32]) -> Result<Reply> {
    let data: Vec<u8> = features
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let header = json!({
        "inputs": [{
            "name": "bytes",
            "datatype": "INT32",
            "shape": [1, features.len()],
            "parameters": {"binary_data_size": data.len()},
        }],
    });
    let mut body = serde_json::to_vec(&header)?;
    let length = body.len().to_string();
    body.extend(data);
    let headers = [
        ("content-type", "application/octet-stream"),
        ("inference-header-content-length", length.as_str()),
    ];
    http.post(&format!("/v2/models/{MODEL}/infer"), &headers, &body)
}

fn label(answer: &Value, config: &Config) -> Result<(String, f64)> {
    let scores = answer["outputs"][0]["data"]
        .as_array()
        .context("no scores in the answer")?;
    ensure!(
        scores.len() == config.target_labels_space.len(),
        "{} scores for {} labels",
        scores.len(),
        config.target_labels_space.len()
    );
    let (score, label) = scores
        .iter()
        .filter_map(Value::as_f64)
        .zip(&config.target_labels_space)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .context("no scores")?;
    let threshold = config.thresholds.get(label).copied();
    if score < threshold.unwrap_or(config.medium_confidence_threshold) {
        return Ok(("unsure".to_owned(), score));
    }
    Ok((
        config.overwrite_map.get(label).unwrap_or(label).clone(),
        score,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            beg_size: 4,
            end_size: 4,
            block_size: 8,
            padding_token: 256,
            medium_confidence_threshold: 0.5,
            target_labels_space: vec!["a".into(), "randomtxt".into()],
            thresholds: [("a".to_owned(), 0.9)].into(),
            overwrite_map: [("randomtxt".to_owned(), "txt".to_owned())].into(),
        }
    }

    #[test]
    fn both_ends_are_stripped_cut_and_padded() {
        let of = |content: &[u8]| features(content, &config());
        assert_eq!(of(b""), [256; 8]);
        assert_eq!(of(b" ab\x0b"), [97, 98, 11, 256, 256, 32, 97, 98]);
        assert_eq!(of(b"abcdefghijkl"), [97, 98, 99, 100, 105, 106, 107, 108]);
        // Only the block at each end counts, even when it is all white space.
        assert_eq!(of(b"        x"), [256, 256, 256, 256, 32, 32, 32, 120]);
    }

    #[test]
    fn an_unsure_answer_is_not_a_type() {
        let of = |scores: &[f64]| {
            label(&json!({"outputs": [{"data": scores}]}), &config())
                .unwrap()
                .0
        };
        assert_eq!(of(&[0.95, 0.0]), "a");
        assert_eq!(of(&[0.8, 0.0]), "unsure");
        assert_eq!(of(&[0.2, 0.6]), "txt");
        assert!(label(&json!({"outputs": [{"data": [1.0]}]}), &config()).is_err());
    }
}
