//! The built-in `identity`, FP32[16], over REST and gRPC: what the doors and the runtime cost when the model costs nothing.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::load::{self, Post};
use super::relay::sample;
use super::results::Outcome;
use super::samples::Compare;
use super::usage::Cpu;
use super::{Bench, empty_dir};
use crate::kapok::Kapok;
use crate::protobuf::Message;

const CONNECTIONS: [u32; 3] = [1, 16, 64];

const ELEMENTS: usize = 16;

/// The target that the other is compared with.
const REST: &str = "REST, JSON";

const CONFIG: &str = r#"name: "identity"
backend: "identity"
max_batch_size: 0
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]
"#;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Door {
    Rest,
    Grpc,
}

pub(super) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    load::install()?;
    let scratch = empty_dir(&bench.scratch, "identity")?;
    let kapok = start(bench, &scratch)?;
    let values: Vec<f32> = (0..ELEMENTS).map(|index| index as f32 / 4.0).collect();
    let rest = rest_body(&values)?;
    verify(&kapok, &rest, &values)?;
    let grpc = grpc_body(&values)?;
    let mut samples = Vec::new();
    for connections in CONNECTIONS {
        for (round, door) in bench.rounds(&[Door::Rest, Door::Grpc]) {
            let before = Cpu::now(kapok.id())?;
            let burst = match door {
                Door::Rest => {
                    let post = Post {
                        url: format!("{}/v2/models/identity/infer", kapok.public().base()),
                        content_type: "application/json",
                        body: &rest,
                    };
                    load::wrk(&scratch, &post, connections, bench.duration())?
                }
                Door::Grpc => {
                    let post = Post {
                        url: format!(
                            "{}/inference.GRPCInferenceService/ModelInfer",
                            kapok.public().base()
                        ),
                        content_type: "application/grpc",
                        body: &grpc,
                    };
                    load::h2load(&scratch, &post, connections, bench.duration())?
                }
            };
            let after = Cpu::now(kapok.id())?;
            let name = match door {
                Door::Rest => REST,
                Door::Grpc => "gRPC, raw",
            };
            let case = format!("{connections} connections");
            samples.push(sample((name, case, round), burst, (before, after)));
        }
    }
    Ok(Outcome {
        name: "identity",
        method: format!(
            "`identity` of FP32[{ELEMENTS}]: REST with JSON by wrk -t1, gRPC with raw contents by h2load -t1 -m1, which has \
             no percentiles, {} s a burst, {} rounds, interleaved",
            bench.options.seconds, bench.options.rounds
        ),
        samples,
        compare: Some(Compare {
            figure: "cpu_ms_per_1k",
            baseline: REST,
        }),
        reference: "REST at 16 connections on two shared cores: Triton's native backend 32,000/s at 37 CPU ms per 1,000",
    })
}

fn start(bench: &Bench<'_>, scratch: &Path) -> Result<Kapok> {
    let repository = scratch.join("models");
    fs::create_dir_all(repository.join("identity/1"))?;
    fs::write(repository.join("identity/config.pbtxt"), CONFIG)?;
    let mut command = Kapok::up(&bench.binary, scratch);
    command.arg("--model-repo").arg(&repository);
    Kapok::start(&mut command, scratch)
}

fn rest_body(values: &[f32]) -> Result<Vec<u8>> {
    let input =
        json!({"name": "INPUT0", "datatype": "FP32", "shape": [values.len()], "data": values});
    Ok(serde_json::to_vec(&json!({"inputs": [input]}))?)
}

/// A gRPC message: a zero byte (not compressed), the length, and `ModelInferRequest` with raw contents.
fn grpc_body(values: &[f32]) -> Result<Vec<u8>> {
    let raw: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let length = i64::try_from(values.len())?;
    let input = Message::new()
        .text(1, "INPUT0")
        .text(2, "FP32")
        .int(3, length);
    let message = Message::new()
        .text(1, "identity")
        .message(5, input)
        .bytes(7, &raw)
        .into_bytes();
    let mut body = vec![0];
    body.extend(u32::try_from(message.len())?.to_be_bytes());
    body.extend(message);
    Ok(body)
}

/// What is measured must be right.
fn verify(kapok: &Kapok, body: &[u8], values: &[f32]) -> Result<()> {
    let headers = [("content-type", "application/json")];
    let reply = kapok
        .public()
        .post("/v2/models/identity/infer", &headers, body)?;
    let answer = reply.json()?;
    let data = answer["outputs"][0]["data"]
        .as_array()
        .context("no data in the answer")?;
    let same = data.len() == values.len()
        && data
            .iter()
            .zip(values)
            .all(|(have, want)| have.as_f64() == Some(f64::from(*want)));
    ensure!(same, "identity answered {}", Value::Array(data.clone()));
    Ok(())
}
