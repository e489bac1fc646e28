//! Hundreds of registered models under a small budget of memory: each answers, and memory stays where it was told to.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::results::Outcome;
use super::samples::Sample;
use super::swap::settled_mb;
use super::usage::resident_mb;
use super::{Bench, empty_dir};
use crate::catalogue::Catalogue;
use crate::fetch;
use crate::kapok::Kapok;
use crate::workspace::root;

/// 3 MB in its file.
const MODEL: &str = "magika";

const MODELS: u32 = 500;

const BUDGET_MB: u32 = 50;

/// Of models in no order, after the cold ones, for each of `--rounds`. Nearly all are loads, of 30 ms and more each (ten
/// times that in a dev build).
const RANDOM_HITS: u32 = 200;

/// Cold hits, each of another model.
const COLD_HITS: u32 = 100;

const MIB_IN_MB: f64 = 1.048_576;

/// Its input.
const BYTES: u32 = 2_048;

pub(super) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let catalogue = Catalogue::read(&root())?;
    let entries = [catalogue.entry(MODEL)?, catalogue.entry("onnxruntime")?];
    fetch::bring(&catalogue, &entries, &bench.store)?;
    let scratch = empty_dir(&bench.scratch, "density")?;
    make_repository(bench, &scratch)?;
    let library = fetch::ort_library(&catalogue, &bench.store)?;
    let mut command = Kapok::up(&bench.binary, &scratch);
    command
        .args(["--config", "kapok.yaml", "--model-repo", "models"])
        .env("ORT_DYLIB_PATH", library);
    let mut kapok = Kapok::start(&mut command, &scratch)?;
    let [empty, one, base] = first(&kapok)?;
    let mut peak = one;
    let mut samples = Vec::new();
    let mut random = 1_u32;
    let random_hits = RANDOM_HITS * bench.options.rounds;
    for index in 1..=COLD_HITS + random_hits {
        if index.is_multiple_of(100) {
            eprintln!("  {index} of {} hits", COLD_HITS + random_hits);
        }
        let cold = index <= COLD_HITS;
        let model = if cold {
            index
        } else {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) % MODELS
        };
        let millis = hit(&kapok, model)?;
        peak = peak.max(resident_mb(kapok.id())?);
        samples.push(Sample {
            case: format!("{MODELS} models, {BUDGET_MB} MiB"),
            target: if cold { "cold hits" } else { "random hits" }.to_owned(),
            round: index,
            figures: [("ms", millis)].into(),
        });
        kapok.check()?;
    }
    let last = settled_mb(kapok.id())?;
    ensure!(
        peak - base <= f64::from(BUDGET_MB) * MIB_IN_MB,
        "{peak:.1} MB were resident, of which {base:.1} MB are the base: more than the budget of {BUDGET_MB} MiB"
    );
    samples.push(Sample {
        case: "memory".to_owned(),
        target: "kapok".to_owned(),
        round: 0,
        figures: [
            ("empty_mb", empty),
            ("base_mb", base),
            ("first_model_mb", one - base),
            ("last_mb", last),
            ("peak_mb", peak),
            ("peak_over_base_mb", peak - base),
        ]
        .into(),
    });
    Ok(Outcome {
        name: "density",
        method: format!(
            "{MODELS} copies of {MODEL} in a budget of {BUDGET_MB} MiB, one caller over REST: {COLD_HITS} hits of models that were \
             not asked for before, then {random_hits} of random ones; memory is VmRSS, empty_mb is that of kapok with all models \
             registered and none loaded, base_mb that after the first model has come and gone: its engine stays"
        ),
        samples,
        compare: None,
        reference: "goals: every hit is answered; peak_over_base_mb within the budget (52.4 MB)",
    })
}

fn make_repository(bench: &Bench<'_>, scratch: &Path) -> Result<()> {
    fs::write(
        scratch.join("kapok.yaml"),
        format!(
            "apiVersion: kapok.dev/v1alpha1\nkind: Node\nmetadata: {{name: node}}\nspec:\n  memoryBudgetMb: {BUDGET_MB}\n"
        ),
    )?;
    let from = bench.store.models().join(MODEL);
    for index in 0..MODELS {
        let to = scratch.join(format!("models/m{index}"));
        fs::create_dir_all(to.join("1"))?;
        std::os::unix::fs::symlink(from.join("1/model.onnx"), to.join("1/model.onnx"))?;
        let sidecar = fs::read_to_string(from.join("kapok.toml"))?;
        fs::write(
            to.join("kapok.toml"),
            format!("engine = \"onnxruntime\"\nlanes = 1\nthreads = 1\n{sidecar}"),
        )?;
    }
    Ok(())
}

/// Megabytes before the first model, with it, and after it: its engine's library and pools stay when it goes.
fn first(kapok: &Kapok) -> Result<[f64; 3]> {
    let empty = settled_mb(kapok.id())?;
    hit(kapok, 0)?;
    let one = settled_mb(kapok.id())?;
    ask(kapok, "/v2/repository/models/m0/unload", &json!({}))?;
    let base = settled_mb(kapok.id())?;
    ask(kapok, "/v2/repository/models/m0/load", &json!({}))?;
    eprintln!("  base: {base:.1} MB, {empty:.1} MB of it before the engine was used");
    Ok([empty, one, base])
}

/// Milliseconds until a model has answered.
fn hit(kapok: &Kapok, model: u32) -> Result<f64> {
    let data: Vec<Value> = (0..BYTES).map(|index| json!(index * 31 % 256)).collect();
    let input = json!({"name": "bytes", "datatype": "INT32", "shape": [1, BYTES], "data": data});
    let path = format!("/v2/models/m{model}/infer");
    ask(kapok, &path, &json!({"inputs": [input]}))
}

/// Milliseconds until this is answered.
fn ask(kapok: &Kapok, path: &str, body: &Value) -> Result<f64> {
    let reply = kapok.public().post_json(path, body)?;
    ensure!(
        reply.status == 200,
        "{path}: status {}: {}",
        reply.status,
        String::from_utf8_lossy(&reply.body)
    );
    Ok(reply.took.as_secs_f64() * 1e3)
}
