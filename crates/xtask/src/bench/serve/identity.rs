//! `identity` of FP32[16]: what a server costs when the model costs nothing.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::peers::{self, Peer};
use super::wire::{Doors, Input, Question, Request, Wire};
use crate::bench::load;
use crate::bench::results::Outcome;
use crate::bench::samples::{Compare, Sample, of_burst};
use crate::bench::usage::Cpu;
use crate::bench::{Bench, empty_dir};
use crate::kapok::Kapok;

const CONNECTIONS: [u32; 3] = [1, 16, 64];

const WIRES: [Wire; 3] = [Wire::Json, Wire::Binary, Wire::Grpc];

const ELEMENTS: usize = 16;

/// For kapok and for Triton, whose backend here has the same name.
pub(super) const CONFIG: &str = r#"name: "identity"
backend: "identity"
max_batch_size: 0
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]
"#;

#[derive(Debug, Clone)]
struct Target {
    name: &'static str,
    doors: Doors,
    pid: u32,
}

pub(in crate::bench) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    load::install()?;
    let scratch = empty_dir(&bench.scratch, "serve-identity")?;
    let kapok = start(bench, &scratch)?;
    let peers = peers::all(bench, &scratch);
    let mut targets = vec![Target {
        name: "kapok",
        doors: Doors {
            rest: kapok.public().clone(),
            grpc: kapok.public().clone(),
        },
        pid: kapok.id(),
    }];
    targets.extend(peers.iter().map(|peer: &Peer| Target {
        name: peer.name,
        doors: peer.doors.clone(),
        pid: peer.id(),
    }));
    let mut samples = Vec::new();
    for wire in WIRES {
        measure(bench, &scratch, (wire, &targets), &mut samples)?;
    }
    Ok(Outcome {
        name: "serve-identity",
        method: format!(
            "`identity` of FP32[{ELEMENTS}]: REST by wrk -t1, gRPC with raw contents by h2load -t1 -m1, which has no \
             percentiles, {} s a burst, {} rounds, all servers interleaved and the order reversed each round; Triton is its \
             frontends and core with a backend of our own (bench/triton_identity.c); cpu_ms_per_1k is user and kernel time of \
             the server's process tree",
            bench.options.seconds, bench.options.rounds
        ),
        samples,
        compare: Some(Compare {
            figure: "per_second",
            baseline: "Triton",
        }),
        reference: "goals: at most 25 CPU ms per 1,000, at least 1.2 × Triton's rate",
    })
}

fn measure(
    bench: &Bench<'_>,
    scratch: &Path,
    (wire, targets): (Wire, &[Target]),
    samples: &mut Vec<Sample>,
) -> Result<()> {
    let values: Vec<f32> = (0..ELEMENTS).map(|index| index as f32 / 4.0).collect();
    let question = Question {
        model: "identity",
        inputs: vec![Input::floats("INPUT0", vec![ELEMENTS], &values)],
        outputs: &["OUTPUT0"],
    };
    let request = question.request(wire)?;
    let mut able = Vec::new();
    for target in targets {
        match verify(&request, target, scratch, &values) {
            Ok(()) => able.push(target.clone()),
            Err(error) if target.name == "kapok" => return Err(error),
            Err(error) => eprintln!("{}: without {}: {error:#}", wire.name(), target.name),
        }
    }
    for connections in CONNECTIONS {
        for (round, target) in bench.rounds(&able) {
            let post = request.post(&target.doors);
            let drive = match wire {
                Wire::Json | Wire::Binary => load::wrk,
                Wire::Grpc => load::h2load,
            };
            let before = Cpu::at_rest(target.pid)?;
            let burst = drive(scratch, &post, connections, bench.duration())
                .with_context(|| format!("`{}`, {connections} connections", target.name))?;
            let after = Cpu::now(target.pid)?;
            let case = format!("{}, {connections} connections", wire.name());
            samples.push(of_burst((target.name, case, round), burst, (before, after)));
        }
    }
    Ok(())
}

fn start(bench: &Bench<'_>, scratch: &Path) -> Result<Kapok> {
    let repository = scratch.join("models");
    fs::create_dir_all(repository.join("identity/1"))?;
    fs::write(repository.join("identity/config.pbtxt"), CONFIG)?;
    let mut command = Kapok::up(&bench.binary, scratch);
    command.arg("--model-repo").arg(&repository);
    Kapok::start(&mut command, scratch)
}

/// What is measured must be right.
fn verify(request: &Request, target: &Target, scratch: &Path, values: &[f32]) -> Result<()> {
    let answer = request.ask(&target.doors, scratch)?;
    ensure!(answer == values, "{} answered {answer:?}", target.name);
    Ok(())
}
