//! Embeddings per second through the OpenAI door, beside Python's onnxruntime on the same file: one thread each.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::results::Outcome;
use super::samples::{Compare, Sample};
use super::{Bench, empty_dir};
use crate::catalogue::Catalogue;
use crate::fetch;
use crate::kapok::Kapok;
use crate::process::Running;
use crate::setup::{self, Install};
use crate::workspace::{now, root};

const MODEL: &str = "all-minilm-l6-v2";

const PACKAGES: &[&str] = &["onnxruntime==1.31.1", "tokenizers==0.23.3", "numpy==2.4.6"];

/// Texts per request and words per text; a word of these texts is one to two tokens.
const CASES: [(usize, usize); 3] = [(1, 20), (8, 80), (32, 20)];

const WORDS: [&str; 12] = [
    "kapok", "flowers", "open", "in", "spring", "before", "the", "leaves", "and", "bees", "visit",
    "them",
];

#[derive(Debug, Clone, Copy)]
enum Target {
    Kapok,
    Python,
}

pub(super) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let catalogue = Catalogue::read(&root())?;
    let entries = [catalogue.entry(MODEL)?, catalogue.entry("onnxruntime")?];
    fetch::bring(&catalogue, &entries, &bench.store)?;
    let scratch = empty_dir(&bench.scratch, "embed")?;
    let folder = bench.store.models().join(MODEL);
    let ort = fetch::ort_library(&catalogue, &bench.store)?;
    let kapok = start_kapok(bench, &scratch, &ort)?;
    let venv = bench.store.dir().join("bench-python");
    let python = setup::venv(&venv, &[Install::packages(PACKAGES)])?;
    let mut peer = Peer::start(&python, &folder)?;
    let mut samples = Vec::new();
    for (texts, words) in CASES {
        let texts = make_texts(texts, words);
        for (round, target) in bench.rounds(&[Target::Kapok, Target::Python]) {
            let (name, (embeddings, seconds, tokens)) = match target {
                Target::Kapok => ("kapok", drive(&kapok, &texts, bench.duration())?),
                Target::Python => ("python", peer.measure(&texts, bench.duration())?),
            };
            samples.push(Sample {
                case: format!("{} texts of {tokens} tokens", texts.len()),
                target: name.to_owned(),
                round,
                figures: [("per_second", embeddings / seconds)].into(),
            });
        }
    }
    Ok(Outcome {
        name: "embed",
        method: format!(
            "{MODEL}, one thread and one caller each, {} s a burst, {} rounds, interleaved: kapok over HTTP (base64) with the \
             engine it chose; Python with onnxruntime 1.31.1 in process; both tokenise, pool and normalise",
            bench.options.seconds, bench.options.rounds
        ),
        samples,
        compare: Some(Compare {
            figure: "per_second",
            baseline: "python",
        }),
        reference: "Python's onnxruntime in the same run",
    })
}

fn make_texts(count: usize, words: usize) -> Vec<String> {
    let text = |first: usize| {
        let words =
            (0..words).filter_map(|index| WORDS.get((first + index) % WORDS.len()).copied());
        words.collect::<Vec<_>>().join(" ")
    };
    (0..count).map(text).collect()
}

/// A copy of the model's entry that may use one lane of one thread.
fn start_kapok(bench: &Bench<'_>, scratch: &Path, ort: &Path) -> Result<Kapok> {
    let repository = scratch.join("models");
    let from = bench.store.models().join(MODEL);
    let to = repository.join(MODEL);
    fs::create_dir_all(to.join("1"))?;
    for file in ["1/model.onnx", "tokenizer.json"] {
        std::os::unix::fs::symlink(from.join(file), to.join(file))?;
    }
    let sidecar = fs::read_to_string(from.join("kapok.toml"))?;
    fs::write(
        to.join("kapok.toml"),
        format!("lanes = 1\nthreads = 1\n{sidecar}"),
    )?;
    let mut command = Kapok::up(&bench.binary, scratch);
    command
        .arg("--model-repo")
        .arg(&repository)
        .env("ORT_DYLIB_PATH", ort);
    Kapok::start(&mut command, scratch)
}

/// Embeddings, seconds, and tokens of a text.
fn drive(kapok: &Kapok, texts: &[String], length: Duration) -> Result<(f64, f64, u64)> {
    let body = json!({"model": MODEL, "input": texts, "encoding_format": "base64"});
    let ask = || kapok.public().post_json("/v1/embeddings", &body);
    let tokens = ask()?.json()?["usage"]["prompt_tokens"]
        .as_u64()
        .context("no usage")?;
    let started = now();
    let mut done = 0;
    while now().duration_since(started) < length {
        let reply = ask()?;
        ensure!(reply.status == 200, "status {}", reply.status);
        done += texts.len();
    }
    let seconds = now().duration_since(started).as_secs_f64();
    Ok((done as f64, seconds, tokens / texts.len() as u64))
}

/// The Python side: one request and one answer a line.
struct Peer {
    _running: Running,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Peer {
    fn start(python: &Path, folder: &Path) -> Result<Self> {
        let mut command = Command::new(python);
        command
            .arg(root().join("bench/embed_peer.py"))
            .arg(folder)
            .stdout(Stdio::piped());
        let mut running = Running::start_with_input("embed_peer.py", &mut command)?;
        let child = running.child();
        let to = child.stdin.take().context("stdin is piped")?;
        let from = child.stdout.take().context("stdout is piped")?;
        Ok(Self {
            _running: running,
            to,
            from: BufReader::new(from),
        })
    }

    fn measure(&mut self, texts: &[String], length: Duration) -> Result<(f64, f64, u64)> {
        writeln!(
            self.to,
            "{}",
            json!({"texts": texts, "seconds": length.as_secs_f64()})
        )?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line)
            .with_context(|| format!("embed_peer.py said `{}`", line.trim()))?;
        let number = |name: &str| {
            answer[name]
                .as_f64()
                .with_context(|| format!("no `{name}`"))
        };
        let tokens = answer["tokens"].as_u64().context("no `tokens`")?;
        Ok((number("embeddings")?, number("seconds")?, tokens))
    }
}
