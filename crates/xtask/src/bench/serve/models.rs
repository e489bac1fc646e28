//! Real models on ONNX Runtime: kapok beside the same library in a bare loop, which is the limit.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::thread::available_parallelism;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::eager::Eager;
use super::wire::{Doors, Input, Question, Request, Wire, floats};
use crate::bench::load::{self, Burst};
use crate::bench::results::Outcome;
use crate::bench::samples::{Compare, Sample, of_burst};
use crate::bench::usage::Cpu;
use crate::bench::{Bench, empty_dir};
use crate::catalogue::Catalogue;
use crate::fetch;
use crate::http::Http;
use crate::kapok::Kapok;
use crate::process::Running;
use crate::setup::{self, Install};
use crate::workspace::root;

const CALLERS: [u32; 3] = [1, 16, 64];

/// The library's version is the catalogue's.
const PACKAGES: &[&str] = &["onnxruntime==1.31.1", "tokenizers==0.23.3", "numpy==2.4.6"];

const RAW: &str = "ONNX Runtime";

const EAGER: &str = "PyTorch, FastAPI";

/// Answers of one file by one library; what remains is batches, which add in another order.
const TOLERANCE: f32 = 1e-4;

#[derive(Debug, Clone, Copy)]
enum Target {
    Raw,
    Eager,
    Kapok(Wire),
}

pub(in crate::bench) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    load::install()?;
    let questions = questions();
    let catalogue = Catalogue::read(&root())?;
    let names = questions.iter().map(|question| question.model);
    let entries = names.chain(["onnxruntime"]);
    let entries: Vec<_> = entries.map(|n| catalogue.entry(n)).collect::<Result<_>>()?;
    fetch::bring(&catalogue, &entries, &bench.store)?;
    let scratch = empty_dir(&bench.scratch, "serve-models")?;
    let lanes = available_parallelism()?.get();
    let library = fetch::ort_library(&catalogue, &bench.store)?;
    let kapok = start_kapok(bench, &scratch, (&questions, lanes, &library))?;
    let python = setup::venv(
        &bench.store.dir().join("bench-python"),
        &[Install::packages(PACKAGES)],
    )?;
    let eager = Eager::start(bench, lanes)
        .inspect_err(|error| eprintln!("without PyTorch: {error:#}"))
        .ok();
    let mut samples = Vec::new();
    for question in &questions {
        let file = model_file(bench, question.model);
        let (raw, answer) = Loop::start(&python, &scratch, (question, &file))?;
        let mut rivals = Rivals {
            bench,
            scratch: &scratch,
            kapok: &kapok,
            eager: eager.as_ref().filter(|_| Eager::has(question.model)),
            raw,
            lanes,
        };
        rivals.verify(question, &answer)?;
        rivals.measure(question, &mut samples)?;
    }
    Ok(Outcome {
        name: "serve-models",
        method: format!(
            "items of one row; kapok with engine onnxruntime, {lanes} lanes of one thread and the batching that it completes a \
             configuration with, REST binary by wrk -t1 and gRPC by h2load -t1 -m1 on the same cores; the limit is Python's \
             onnxruntime 1.31.1, as many threads calling one session in a loop as there are callers and lanes, batch 1; PyTorch 2.13.0 \
             in eager mode behind FastAPI with as many calls at a time, one thread each, and the same binary tensors; {} s a \
             burst, {} rounds, interleaved; added_us is the statistics extension's total less its compute_infer, per call of a \
             lone caller",
            bench.options.seconds, bench.options.rounds
        ),
        samples,
        compare: Some(Compare {
            figure: "per_second",
            baseline: RAW,
        }),
        reference: "goals: at least 0.95 of the engine's rate and 3.2 of PyTorch's behind FastAPI, at most 10 µs added in \
                    process",
    })
}

/// Small models, and real sizes of their inputs.
fn questions() -> Vec<Question> {
    let ids = |name, value: fn(usize) -> i64| Input {
        name,
        datatype: "INT64",
        shape: vec![1, 32],
        raw: (0..32).flat_map(|i| value(i).to_le_bytes()).collect(),
    };
    let image = |name, side: usize| {
        let values: Vec<f32> = (0..3 * side * side)
            .map(|index| (index * 31 % 255) as f32 / 127.5 - 1.0)
            .collect();
        Input::floats(name, vec![1, 3, side, side], &values)
    };
    vec![
        Question {
            model: "all-minilm-l6-v2",
            inputs: vec![
                ids("input_ids", |i| 1_000 + 97 * i64::try_from(i).unwrap_or(0)),
                ids("attention_mask", |_| 1),
                ids("token_type_ids", |_| 0),
            ],
            outputs: &["last_hidden_state"],
        },
        Question {
            model: "magika",
            inputs: vec![Input {
                name: "bytes",
                datatype: "INT32",
                shape: vec![1, 2048],
                raw: (0..2048i32)
                    .flat_map(|i| (i * 31 % 256).to_le_bytes())
                    .collect(),
            }],
            outputs: &["target_label"],
        },
        Question {
            model: "pp-ocrv4-det",
            inputs: vec![image("x", 320)],
            outputs: &["sigmoid_0.tmp_0"],
        },
        Question {
            model: "resnet50-light",
            inputs: vec![image("gpu_0/data_0", 224)],
            outputs: &["gpu_0/softmax_1"],
        },
    ]
}

fn model_file(bench: &Bench<'_>, model: &str) -> PathBuf {
    bench.store.models().join(model).join("1/model.onnx")
}

fn start_kapok(
    bench: &Bench<'_>,
    scratch: &Path,
    (questions, lanes, library): (&[Question], usize, &Path),
) -> Result<Kapok> {
    let repository = scratch.join("models");
    for question in questions {
        let to = repository.join(question.model);
        fs::create_dir_all(to.join("1"))?;
        let file = model_file(bench, question.model);
        std::os::unix::fs::symlink(file, to.join("1/model.onnx"))?;
        let mut sidecar =
            format!("engine = \"onnxruntime\"\nlanes = {lanes}\nthreads = 1\n[warmup.shapes]\n");
        for input in &question.inputs {
            sidecar.push_str(&format!("\"{}\" = {:?}\n", input.name, input.shape));
        }
        fs::write(to.join("kapok.toml"), sidecar)?;
    }
    let mut command = Kapok::up(&bench.binary, scratch);
    command
        .arg("--model-repo")
        .arg(&repository)
        .env("ORT_DYLIB_PATH", library);
    Kapok::start(&mut command, scratch)
}

/// What is compared, on one model.
struct Rivals<'a> {
    bench: &'a Bench<'a>,
    scratch: &'a Path,
    kapok: &'a Kapok,
    eager: Option<&'a Eager>,
    raw: Loop,
    lanes: usize,
}

impl Rivals<'_> {
    fn doors(&self) -> Doors {
        Doors {
            rest: self.kapok.public().clone(),
            grpc: self.kapok.public().clone(),
        }
    }

    /// What is measured must be right.
    fn verify(&self, question: &Question, expected: &[f32]) -> Result<()> {
        for wire in [Wire::Binary, Wire::Grpc] {
            let model = question.model;
            let answer = question.request(wire)?.ask(&self.doors(), self.scratch)?;
            ensure!(
                !answer.is_empty() && answer.len() == expected.len(),
                "`{model}`: {} numbers over {}, the engine alone has {}",
                answer.len(),
                wire.name(),
                expected.len()
            );
            let differs = answer.iter().zip(expected);
            let worst = differs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            ensure!(
                worst <= TOLERANCE,
                "`{model}` over {} differs from the engine alone by {worst}",
                wire.name()
            );
        }
        self.eager.map_or(Ok(()), |eager| {
            eager.verify(question, expected, self.scratch)
        })
    }

    fn measure(&mut self, question: &Question, samples: &mut Vec<Sample>) -> Result<()> {
        let binary = question.request(Wire::Binary)?;
        let grpc = question.request(Wire::Grpc)?;
        let mut targets = vec![Target::Raw];
        targets.extend(self.eager.map(|_| Target::Eager));
        targets.extend([Wire::Binary, Wire::Grpc].map(Target::Kapok));
        for callers in CALLERS {
            for (round, target) in self.bench.rounds(&targets) {
                let case = format!("{}, {callers} callers", question.model);
                samples.push(match target {
                    Target::Raw => self.loop_burst((case, round), callers)?,
                    Target::Eager => self.eager_burst((question, case, round), callers)?,
                    Target::Kapok(Wire::Grpc) => self.kapok_burst(
                        (question.model, case, round),
                        (&grpc, Wire::Grpc),
                        callers,
                    )?,
                    Target::Kapok(wire) => {
                        self.kapok_burst((question.model, case, round), (&binary, wire), callers)?
                    }
                });
            }
        }
        Ok(())
    }

    fn loop_burst(&mut self, (case, round): (String, u32), callers: u32) -> Result<Sample> {
        let threads = self.lanes.min(callers as usize);
        let before = Cpu::now(self.raw.running.id())?;
        let burst = self.raw.burst(threads, self.bench.options.seconds)?;
        let after = Cpu::now(self.raw.running.id())?;
        Ok(of_burst((RAW, case, round), burst, (before, after)))
    }

    fn eager_burst(
        &self,
        (question, case, round): (&Question, String, u32),
        callers: u32,
    ) -> Result<Sample> {
        let eager = self.eager.context("PyTorch is measured where it started")?;
        let before = Cpu::now(eager.id())?;
        let burst = eager.burst(question, callers, (self.bench, self.scratch))?;
        let after = Cpu::now(eager.id())?;
        Ok(of_burst((EAGER, case, round), burst, (before, after)))
    }

    fn kapok_burst(
        &self,
        (model, case, round): (&str, String, u32),
        (request, wire): (&Request, Wire),
        callers: u32,
    ) -> Result<Sample> {
        let doors = self.doors();
        let post = request.post(&doors);
        let (name, drive): (_, fn(&_, &_, _, _) -> _) = match wire {
            Wire::Grpc => ("kapok, gRPC", load::h2load),
            Wire::Json | Wire::Binary => ("kapok, REST", load::wrk),
        };
        let books = Books::of(&doors.rest, model)?;
        let before = Cpu::now(self.kapok.id())?;
        let burst = drive(self.scratch, &post, callers, self.bench.duration())
            .with_context(|| format!("`{model}`, {callers} callers, {}", wire.name()))?;
        let after = Cpu::now(self.kapok.id())?;
        let mut sample = of_burst((name, case, round), burst, (before, after));
        if callers == 1 {
            let added_us = Books::of(&doors.rest, model)?.added_us(&books)?;
            sample.figures.insert("added_us", added_us);
        }
        Ok(sample)
    }
}

/// What the statistics extension says of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Books {
    calls: u64,
    total_ns: u64,
    compute_ns: u64,
}

impl Books {
    fn of(http: &Http, model: &str) -> Result<Self> {
        let said = http.get(&format!("/v2/models/{model}/stats"))?.json()?;
        Self::read(&said).with_context(|| format!("no statistics of `{model}` in {said}"))
    }

    fn read(said: &Value) -> Option<Self> {
        let stats = &said["model_stats"][0]["inference_stats"];
        Some(Self {
            calls: stats["success"]["count"].as_u64()?,
            total_ns: stats["success"]["ns"].as_u64()?,
            compute_ns: stats["compute_infer"]["ns"].as_u64()?,
        })
    }

    /// Per call since then.
    fn added_us(&self, since: &Self) -> Result<f64> {
        let calls = self.calls - since.calls;
        ensure!(calls > 0, "no call in the books");
        let total = (self.total_ns - since.total_ns) as f64;
        let compute = (self.compute_ns - since.compute_ns) as f64;
        Ok((total - compute) / calls as f64 / 1e3)
    }
}

/// `bench/onnx_loop.py` on one model.
struct Loop {
    running: Running,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

#[derive(Deserialize)]
struct Done {
    requests: f64,
    seconds: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Loop {
    /// And what it answers.
    fn start(
        python: &Path,
        scratch: &Path,
        (question, file): (&Question, &Path),
    ) -> Result<(Self, Vec<f32>)> {
        let mut inputs = Vec::new();
        for input in &question.inputs {
            let path = scratch.join(format!("input-{}", inputs.len()));
            fs::write(&path, &input.raw)?;
            inputs.push(json!({"name": input.name, "datatype": input.datatype, "shape": input.shape, "path": path}));
        }
        let list = scratch.join("inputs.json");
        fs::write(&list, serde_json::to_vec(&inputs)?)?;
        let answer = scratch.join("answer");
        let mut command = Command::new(python);
        command
            .arg(root().join("bench/onnx_loop.py"))
            .args([file, &list, &answer])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut running = Running::start_with_input("onnx_loop.py", &mut command)?;
        let child = running.child();
        let mut raw = Self {
            to: child.stdin.take().context("stdin is piped")?,
            from: BufReader::new(child.stdout.take().context("stdout is piped")?),
            running,
        };
        raw.line()?;
        Ok((raw, floats(&fs::read(answer)?)?))
    }

    fn burst(&mut self, callers: usize, seconds: u32) -> Result<Burst> {
        let ask = json!({"callers": callers, "seconds": seconds});
        writeln!(self.to, "{ask}")?;
        let line = self.line()?;
        let done: Done = serde_json::from_str(&line)
            .with_context(|| format!("onnx_loop.py said `{}`", line.trim()))?;
        Ok(Burst {
            requests: done.requests,
            seconds: done.seconds,
            latency: [("p50_us", done.p50_us), ("p99_us", done.p99_us)],
        })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.from.read_line(&mut line)?;
        ensure!(read > 0, "onnx_loop.py has ended");
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_the_total_less_the_computation() {
        let said = |calls: u64, total: u64, compute: u64| {
            let stats =
                json!({"success": {"count": calls, "ns": total}, "compute_infer": {"ns": compute}});
            Books::read(&json!({"model_stats": [{ "inference_stats": stats }]})).unwrap()
        };
        let since = said(10, 1_000, 900);
        assert_eq!(said(12, 31_000, 10_900).added_us(&since).unwrap(), 10.0);
        assert!(since.added_us(&since).is_err());
        assert_eq!(Books::read(&json!({})), None);
    }
}
