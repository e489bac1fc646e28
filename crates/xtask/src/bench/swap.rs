//! Models replaced again and again while requests keep coming: none may fail, few may be late, no memory may stay behind.

mod pace;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use self::pace::{Answers, Load, Question};
use super::results::Outcome;
use super::samples::{Compare, Sample};
use super::usage::resident_mb;
use super::{Bench, empty_dir};
use crate::catalogue::Catalogue;
use crate::fetch;
use crate::kapok::Kapok;
use crate::workspace::{now, poll_every, root, sleep_until};

const MODEL: &str = "all-minilm-l6-v2";

/// Of `identity`, in requests a second.
const RATE: f64 = 500.0;

/// One swap in so many is of the real model, the first one included: what memory it keeps is there from the start.
const MODEL_EVERY: u32 = 100;

/// Swaps of `identity` a second; one after another without a pause would measure how well two programs share a core.
const SWAPS_PER_SECOND: u32 = 20;

/// Swaps after which memory is looked at, and is expected to stay.
const SETTLED: [u32; 2] = [10, 1_000];

const TOKENS: usize = 32;

const IDENTITY: &str = "name: \"identity\"\nbackend: \"identity\"\nmax_batch_size: 0\n\
    input [ { name: \"INPUT0\" data_type: TYPE_FP32 dims: [ -1 ] } ]\n\
    output [ { name: \"OUTPUT0\" data_type: TYPE_FP32 dims: [ -1 ] } ]\n";

/// What happened in the course of all swaps.
#[derive(Debug, Default)]
struct Swaps {
    /// Of the real model; the others are of `identity`.
    model: u32,
    refused: u32,
    /// Megabytes after so many swaps.
    resident: Vec<(u32, f64)>,
    /// Seconds of each swap of the real model, load to answer.
    model_seconds: Vec<f64>,
}

pub(super) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let catalogue = Catalogue::read(&root())?;
    let entries = [catalogue.entry(MODEL)?, catalogue.entry("onnxruntime")?];
    fetch::bring(&catalogue, &entries, &bench.store)?;
    let scratch = empty_dir(&bench.scratch, "swap")?;
    let repository = make_repository(bench, &scratch)?;
    let library = fetch::ort_library(&catalogue, &bench.store)?;
    let mut command = Kapok::up(&bench.binary, &scratch);
    command
        .arg("--model-repo")
        .arg(&repository)
        .env("ORT_DYLIB_PATH", library);
    let mut kapok = Kapok::start(&mut command, &scratch)?;
    let [identity, model] = questions();
    let capacity = pace::capacity(kapok.public(), &model, bench.duration())?;
    let loads = [
        Load::start(kapok.public(), identity, RATE)?,
        Load::start(kapok.public(), model, capacity / 2.0)?,
    ];
    let began = now();
    // A part of the time that the swaps take, and enough requests for a 99th percentile.
    sleep_until(began + bench.duration() * 5);
    let middle = now();
    let swaps = swap(bench, &mut kapok, &repository)?;
    let ended = now();
    let counted = counted(&kapok)?;
    let phases = [("steady", began, middle), ("swapping", middle, ended)];
    let samples = report(loads, phases, &swaps)?;
    Ok(Outcome {
        name: "swap",
        method: format!(
            "{} swaps over REST, {SWAPS_PER_SECOND} a second, {} of them of {MODEL} and the others of `identity` with a changed \
             configuration, {} refused; kapok counts {counted}; open loop, latency from the moment a request was due: `identity` \
             {RATE} a second, {MODEL} ({TOKENS} tokens) {:.0} a second, which is half of what a closed loop got",
            bench.options.swaps,
            swaps.model,
            swaps.refused,
            capacity / 2.0,
        ),
        samples,
        compare: Some(Compare {
            figure: "p99_us",
            baseline: "steady",
        }),
        reference: "goals: 0 failed, p99 while swapping at most 1.5 × steady, memory after 1,000 swaps at most 1.05 × after 10",
    })
}

fn make_repository(bench: &Bench<'_>, scratch: &Path) -> Result<std::path::PathBuf> {
    let repository = scratch.join("models");
    fs::create_dir_all(repository.join("identity/1"))?;
    fs::write(repository.join("identity/config.pbtxt"), IDENTITY)?;
    let to = repository.join(MODEL);
    fs::create_dir_all(to.join("1"))?;
    let file = bench.store.models().join(MODEL).join("1/model.onnx");
    std::os::unix::fs::symlink(file, to.join("1/model.onnx"))?;
    let shape = format!("[1, {TOKENS}]");
    let inputs = ["input_ids", "attention_mask", "token_type_ids"];
    let shapes: String = inputs
        .iter()
        .map(|input| format!("{input} = {shape}\n"))
        .collect();
    // The engine that loads fastest: what is measured is the swap.
    let sidecar =
        format!("engine = \"onnxruntime\"\nlanes = 1\nthreads = 1\n[warmup.shapes]\n{shapes}");
    fs::write(to.join("kapok.toml"), sidecar)?;
    Ok(repository)
}

fn questions() -> [Question; 2] {
    let values: Vec<f32> = (0..16_u8).map(|index| f32::from(index) / 4.0).collect();
    let identity = json!({"inputs": [
        {"name": "INPUT0", "datatype": "FP32", "shape": [16], "data": values}]});
    let ids = |name: &str, value: &dyn Fn(usize) -> usize| {
        let data: Vec<usize> = (0..TOKENS).map(value).collect();
        json!({"name": name, "datatype": "INT64", "shape": [1, TOKENS], "data": data})
    };
    let model = json!({
        "inputs": [
            ids("input_ids", &|index| 1_000 + 97 * index),
            ids("attention_mask", &|_| 1),
            ids("token_type_ids", &|_| 0),
        ],
        "outputs": [{"name": "last_hidden_state", "parameters": {"binary_data": true}}]});
    [
        Question::new("identity", &identity),
        Question::new(MODEL, &model),
    ]
}

/// All of them, at an even pace as far as the server keeps up with it.
fn swap(bench: &Bench<'_>, kapok: &mut Kapok, repository: &Path) -> Result<Swaps> {
    let mut swaps = Swaps::default();
    let pause = Duration::from_secs(1) / SWAPS_PER_SECOND;
    let count = bench.options.swaps;
    for index in 0..count {
        let started = now();
        let real = index.is_multiple_of(MODEL_EVERY);
        let name = if real { MODEL } else { "identity" };
        if !real {
            let content = format!(
                "{IDENTITY}parameters {{ key: \"round\" value {{ string_value: \"{index}\" }} }}\n"
            );
            let file = repository.join("identity/config.pbtxt");
            // Renamed into place: the server never sees half of it.
            fs::write(file.with_extension("new"), content)?;
            fs::rename(file.with_extension("new"), file)?;
        }
        let path = format!("/v2/repository/models/{name}/load");
        let reply = kapok.public().post_json(&path, &json!({}))?;
        if reply.status != 200 {
            swaps.refused += 1;
            eprintln!("swap {index}: {}", String::from_utf8_lossy(&reply.body));
        }
        if real {
            swaps.model += 1;
            swaps.model_seconds.push(reply.took.as_secs_f64());
        }
        kapok.check()?;
        let done = index + 1;
        if SETTLED.contains(&done) || done == count {
            let resident = settled_mb(kapok.id())?;
            eprintln!("{done} swaps, {resident:.1} MB");
            swaps.resident.push((done, resident));
        }
        sleep_until(started + pause);
    }
    Ok(swaps)
}

/// The median of a second: requests come and go meanwhile.
pub(super) fn settled_mb(pid: u32) -> Result<f64> {
    let mut seen = Vec::new();
    poll_every(Duration::from_millis(50), Duration::from_secs(1), || {
        seen.push(resident_mb(pid));
        None::<()>
    });
    let mut seen = seen.into_iter().collect::<Result<Vec<_>>>()?;
    seen.sort_by(f64::total_cmp);
    seen.get(seen.len() / 2)
        .copied()
        .context("no look at memory")
}

/// What became of the swaps, in kapok's own words.
fn counted(kapok: &Kapok) -> Result<String> {
    let text = String::from_utf8(kapok.admin().get("/metrics")?.body)?;
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("kapok_model_swaps_total"));
    let said: Vec<_> = lines.map(str::trim).collect();
    ensure!(!said.is_empty(), "no `kapok_model_swaps_total`");
    Ok(said.join(", "))
}

type Phase = (&'static str, Instant, Instant);

fn report(loads: [Load; 2], phases: [Phase; 2], swaps: &Swaps) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let mut add = |case: &str, target: String, figures: Vec<(&'static str, f64)>| {
        samples.push(Sample {
            case: case.to_owned(),
            target,
            round: 0,
            figures: figures.into_iter().collect(),
        });
    };
    for load in loads {
        let (name, answers) = load.stop()?;
        for (phase, from, to) in phases {
            let Answers {
                failed,
                count,
                p50_us,
                p99_us,
                max_us,
            } = answers.between(from, to)?;
            let per_second = count / to.duration_since(from).as_secs_f64();
            add(
                name,
                phase.to_owned(),
                vec![
                    ("failed", failed),
                    ("per_second", per_second),
                    ("p50_us", p50_us),
                    ("p99_us", p99_us),
                    ("max_us", max_us),
                ],
            );
        }
    }
    let first = swaps
        .resident
        .first()
        .map_or(1.0, |(_, megabytes)| *megabytes);
    for (after, megabytes) in &swaps.resident {
        add(
            "memory",
            format!("after {after}"),
            vec![
                ("resident_mb", *megabytes),
                ("to_first_ratio", megabytes / first),
            ],
        );
    }
    for seconds in &swaps.model_seconds {
        add(
            "time of a swap",
            MODEL.to_owned(),
            vec![("seconds", *seconds)],
        );
    }
    Ok(samples)
}
