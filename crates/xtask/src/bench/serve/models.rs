//! Real models on ONNX Runtime: kapok beside the same library in a bare loop, which is the limit.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::eager::Eager;
use super::wire::{Doors, Input, Question, Wire, floats};
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

/// A burst is long enough for so many calls of each caller at the engine's own rate: fewer say how the burst began.
const CALLS_MIN: f64 = 8.0;

/// Cores that others may take of a burst; one more disturbed is measured again.
const OTHERS_MAX: f64 = 0.1;

/// Tries of a burst; of as many that were disturbed the least disturbed one counts.
const TRIES: u32 = 4;

/// Answers of one file by one library; what remains is batches, which add in another order.
const TOLERANCE: f32 = 1e-4;

#[derive(Debug, Clone, Copy)]
enum Target {
    Raw,
    Eager,
    Kapok(Wire),
}

/// What is asked of a target: by so many callers, for so long.
#[derive(Debug, Clone, Copy)]
struct Ask<'a> {
    question: &'a Question,
    callers: u32,
    length: Duration,
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
             burst, or as long as {CALLS_MIN} calls of each caller take the engine, {} rounds, interleaved; a burst of which other \
             programs took more than {OTHERS_MAX} cores is repeated, {TRIES} tries in all, and others_cores is what they took; added_us is the statistics extension's total less its compute_infer, per call of a \
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
        let mut targets = vec![Target::Raw];
        targets.extend(self.eager.map(|_| Target::Eager));
        targets.extend([Wire::Binary, Wire::Grpc].map(Target::Kapok));
        let warm = self.raw.burst(self.lanes, Duration::from_secs(1))?;
        for callers in CALLERS {
            let length = length(self.bench.duration(), callers, warm.requests / warm.seconds);
            let ask = Ask {
                question,
                callers,
                length,
            };
            for (round, target) in self.bench.rounds(&targets) {
                samples.push(self.undisturbed(target, ask, round)?);
            }
        }
        Ok(())
    }

    /// Repeats a burst of which others took too much, as long as there are tries.
    fn undisturbed(&mut self, target: Target, ask: Ask<'_>, round: u32) -> Result<Sample> {
        let mut best: Option<(f64, Sample)> = None;
        for _ in 0..TRIES {
            let (others, sample) = self.burst(target, ask, round)?;
            if best.as_ref().is_none_or(|(least, _)| others < *least) {
                best = Some((others, sample));
            }
            if others <= OTHERS_MAX {
                break;
            }
        }
        best.map(|(_, sample)| sample).context("no burst was tried")
    }

    /// And how many cores others took meanwhile.
    fn burst(&mut self, target: Target, ask: Ask<'_>, round: u32) -> Result<(f64, Sample)> {
        let (name, pid) = match target {
            Target::Raw => (RAW, self.raw.running.id()),
            Target::Eager => (EAGER, self.eager()?.id()),
            Target::Kapok(Wire::Grpc) => ("kapok, gRPC", self.kapok.id()),
            Target::Kapok(_) => ("kapok, REST", self.kapok.id()),
        };
        let lone = ask.callers == 1 && matches!(target, Target::Kapok(_));
        let books = || Books::of(self.kapok.public(), ask.question.model);
        let since = lone.then(books).transpose()?;
        let before = Cpu::at_rest(pid)?;
        let burst = match target {
            Target::Raw => {
                let threads = self.lanes.min(ask.callers as usize);
                self.raw.burst(threads, ask.length)?
            }
            Target::Eager => {
                let place = (ask.length, self.scratch);
                self.eager()?.burst(ask.question, ask.callers, place)?
            }
            Target::Kapok(wire) => self.kapok_burst(ask, wire)?,
        };
        let after = Cpu::now(pid)?;
        let case = format!("{}, {} callers", ask.question.model, ask.callers);
        let mut sample = of_burst((name, case, round), burst, (before, after));
        let others = after.others_since(&before) / burst.seconds;
        sample.figures.insert("others_cores", others);
        if let Some(since) = since {
            let books = Books::of(self.kapok.public(), ask.question.model)?;
            sample.figures.insert("added_us", books.added_us(&since)?);
        }
        Ok((others, sample))
    }

    fn eager(&self) -> Result<&Eager> {
        self.eager.context("PyTorch is measured where it started")
    }

    fn kapok_burst(&self, ask: Ask<'_>, wire: Wire) -> Result<Burst> {
        let request = ask.question.request(wire)?;
        let doors = self.doors();
        let (post, model) = (request.post(&doors), ask.question.model);
        let burst = match wire {
            Wire::Grpc => load::h2load(self.scratch, &post, ask.callers, ask.length),
            Wire::Json | Wire::Binary => load::wrk(self.scratch, &post, ask.callers, ask.length),
        };
        burst.with_context(|| format!("`{model}`, {} callers, {}", ask.callers, wire.name()))
    }
}

/// Whole seconds, as wrk and h2load want them.
fn length(asked: Duration, callers: u32, rate: f64) -> Duration {
    let needed = f64::from(callers) * CALLS_MIN / rate.max(1.0);
    asked.max(Duration::from_secs_f64(needed.ceil()))
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

    fn burst(&mut self, callers: usize, length: Duration) -> Result<Burst> {
        let ask = json!({"callers": callers, "seconds": length.as_secs()});
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
    fn slow_models_get_longer_bursts() {
        let asked = Duration::from_secs(3);
        for (callers, rate, seconds) in
            [(1, 47.0, 3), (64, 47.0, 11), (64, 400.0, 3), (64, 0.0, 512)]
        {
            assert_eq!(
                length(asked, callers, rate).as_secs(),
                seconds,
                "{callers} at {rate}"
            );
        }
    }

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
