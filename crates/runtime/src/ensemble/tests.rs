use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

use base::{Clock, Deadline, ErrorKind};
use protocol::{
    ApiError, DataType, InferRequest, InferResponse, ModelState, RequestedOutput, Tensor, Timing,
};
use tempfile::TempDir;

use crate::Runtime;
use crate::catalogue::{Ready, Version, Versions};
use crate::testing::{Fake, builtin, config, far, floats, ints, repository, start, until};

mod decoupled;
mod double;
mod fan_out;
mod items;
mod members;
mod random;

/// `config.pbtxt` of an ensemble of INT32 [-1] tensors; a step is `model: in=tensor,… -> out=tensor,…`.
fn ensemble(inputs: &[&str], outputs: &[&str], steps: &[&str]) -> String {
    let mut text = "platform: \"ensemble\"\n".to_owned();
    for (side, names) in [("input", inputs), ("output", outputs)] {
        for name in names {
            text += &format!("{side} {{ name: \"{name}\" data_type: TYPE_INT32 dims: -1 }}\n");
        }
    }
    text + &scheduling(steps)
}

fn scheduling(steps: &[&str]) -> String {
    let mut text = "ensemble_scheduling {\n".to_owned();
    for step in steps {
        let (model, maps) = step.split_once(':').expect("a model");
        text += &format!("step {{ model_name: \"{model}\" model_version: -1\n");
        let (reads, writes) = maps.split_once("->").expect("an arrow");
        for (map, pairs) in [("input_map", reads), ("output_map", writes)] {
            for pair in pairs.split(',') {
                let (key, value) = pair.trim().split_once('=').expect("a pair");
                text += &format!("{map} {{ key: \"{key}\" value: \"{value}\" }}\n");
            }
        }
        text += "}\n";
    }
    text + "}\n"
}

/// `left + …`: two inputs, two outputs, the same bytes.
fn pair() -> String {
    let tensor =
        |side, name| format!("{side} {{ name: \"{name}\" data_type: TYPE_INT32 dims: -1 }}\n");
    ["in0", "in1"].map(|name| tensor("input", name)).concat()
        + &["out0", "out1"].map(|name| tensor("output", name)).concat()
        + "backend: \"identity\"\n"
}

/// Double, identity, a pair, and the models given.
fn models(more: &[(&str, &str)]) -> TempDir {
    let (double, identity, pair) = (builtin("double", ""), builtin("identity", ""), pair());
    let mut files = vec![
        ("double/config.pbtxt", double.as_str()),
        ("identity/config.pbtxt", &identity),
        ("pair/config.pbtxt", &pair),
    ];
    files.extend(more);
    repository(&files)
}

fn tensor(name: &str, values: &[i32]) -> Tensor {
    let shape = vec![values.len()];
    Tensor::from_elements(name, DataType::Int32, shape, values.to_vec()).expect("as many")
}

fn ask(model: &str, inputs: &[(&str, &[i32])], outputs: &[&str]) -> InferRequest {
    let output = |name: &&str| RequestedOutput {
        name: (*name).to_owned(),
        ..RequestedOutput::default()
    };
    InferRequest {
        model: model.to_owned(),
        inputs: inputs
            .iter()
            .map(|(name, values)| tensor(name, values))
            .collect(),
        outputs: outputs.iter().map(output).collect(),
        ..InferRequest::default()
    }
}

async fn infer(
    runtime: &Runtime,
    request: InferRequest,
) -> Result<(InferResponse, Timing), ApiError> {
    runtime.infer(request, far()).await
}

fn values(response: &InferResponse, name: &str) -> Vec<i32> {
    let found = response.outputs.iter().find(|output| output.name == name);
    found
        .expect(name)
        .elements::<i32>()
        .expect("aligned")
        .to_vec()
}

fn executions(runtime: &Runtime, model: &str) -> u64 {
    runtime.statistics(Some(model), None).expect("known")[0].execution_count
}

fn standing(runtime: &Runtime, model: &str) -> (ModelState, String) {
    let index = runtime.index();
    let entry = index.into_iter().find(|entry| entry.name == model);
    let entry = entry.expect("known");
    (entry.state, entry.reason)
}

#[tokio::test]
async fn a_diamond_answers_and_only_what_is_asked_for_runs() {
    let diamond = ensemble(
        &["x"],
        &["both", "left"],
        &[
            "pair: in0=l, in1=r -> out0=left, out1=both",
            "double: in=x -> out=l",
            "identity: in=x -> out=r",
        ],
    );
    let chain = ensemble(
        &["x", "unread"],
        &["a", "b"],
        &["double: in=x -> out=a", "identity: in=unread -> out=b"],
    );
    let root = models(&[
        ("diamond/config.pbtxt", &diamond),
        ("two/config.pbtxt", &chain),
    ]);
    let (runtime, _) = start(config(&[root.path()]), double::engines()).await;
    assert!(runtime.ready(), "{:?}", runtime.index());

    let (response, timing) = infer(&runtime, ask("diamond", &[("x", &[3, -4])], &[]))
        .await
        .expect("answers");
    assert_eq!(values(&response, "left"), [6, -8]);
    assert_eq!(values(&response, "both"), [3, -4]);
    assert!(timing.total() > std::time::Duration::ZERO);

    let asked = ask("two", &[("x", &[5]), ("unread", &[1])], &["a"]);
    let before = executions(&runtime, "identity");
    let (response, _) = infer(&runtime, asked).await.expect("answers");
    assert_eq!(response.outputs.len(), 1);
    assert_eq!(values(&response, "a"), [10]);
    assert_eq!(
        executions(&runtime, "identity"),
        before,
        "nobody asked for `b`"
    );
    assert_eq!(executions(&runtime, "two"), 1);
}

#[tokio::test]
async fn ensembles_nest_and_look_like_models() {
    let inner = ensemble(&["x"], &["y"], &["double: in=x -> out=y"]);
    let outer = ensemble(&["x"], &["z"], &["inner: x=x -> y=m", "inner: x=m -> y=z"]);
    let root = models(&[
        ("outer/config.pbtxt", &outer),
        ("inner/config.pbtxt", &inner),
    ]);
    let (runtime, _) = start(config(&[root.path()]), double::engines()).await;
    let (response, _) = infer(&runtime, ask("outer", &[("x", &[2, 3])], &[]))
        .await
        .expect("answers");
    assert_eq!(values(&response, "z"), [8, 12]);
    let metadata = runtime.metadata("outer", None).expect("ready");
    assert_eq!(metadata.platform, "ensemble");
    assert_eq!(metadata.inputs[0].shape, [-1]);
    let config = runtime.config("outer", None).expect("ready");
    assert_eq!(
        protocol::config::ensemble::steps(&config).map(<[_]>::len),
        Some(2)
    );
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
async fn an_ensemble_says_what_it_waits_for() {
    let over = |model: &str| ensemble(&["x"], &["y"], &[&format!("{model}: in=x -> out=y")]);
    let cases = [
        (
            "unknown",
            over("nobody"),
            "contains models that are not available or ambiguous: nobody",
        ),
        (
            "broken",
            over("bad"),
            "depends on 'bad' which has no loaded version",
        ),
        (
            "versioned",
            over("double").replace("model_version: -1", "model_version: 7"),
            "depends on 'double' whose required version 7 is not loaded",
        ),
        (
            "misnamed",
            ensemble(&["x"], &["y"], &["double: wrong=x -> out=y"]),
            "ensemble tensor x is mapping to non-existing input wrong in model double",
        ),
        (
            "typed",
            over("double").replace("TYPE_INT32", "TYPE_FP32"),
            "inconsistent data type: TYPE_FP32 is inferred from model typed while TYPE_INT32",
        ),
        (
            "one",
            ensemble(&["x"], &["y"], &["other: x=x -> y=y"]),
            "circular dependency between ensembles: one -> ... -> other -> one",
        ),
        (
            "other",
            ensemble(&["x"], &["y"], &["one: x=x -> y=y"]),
            "circular dependency between ensembles: other -> ... -> one -> other",
        ),
        (
            "itself",
            ensemble(&["x"], &["y"], &["itself: x=x -> y=y"]),
            "circular dependency between ensembles: itself -> ... -> itself -> itself",
        ),
        (
            "onlooker",
            ensemble(&["x"], &["y"], &["one: x=x -> y=y"]),
            "ensemble 'onlooker' depends on ensembles that depend on each other",
        ),
        (
            "idle",
            over("double") + "input { name: \"z\" data_type: TYPE_INT32 dims: -1 }",
            "'z' for ensemble idle' is not used",
        ),
    ];
    let paths: Vec<String> = cases
        .iter()
        .map(|(name, ..)| format!("{name}/config.pbtxt"))
        .collect();
    let mut files: Vec<(&str, &str)> = Vec::new();
    for (path, (_, text, _)) in paths.iter().zip(&cases) {
        files.push((path, text));
    }
    let bad = builtin("nothing", "");
    files.push(("bad/config.pbtxt", &bad));
    let root = models(&files);
    let (runtime, _) = start(config(&[root.path()]), double::engines()).await;
    for (name, _, expected) in &cases {
        let (state, reason) = standing(&runtime, name);
        assert_eq!(state, ModelState::Unavailable, "{name}");
        assert!(reason.contains(expected), "{name}: {reason}");
        let error = infer(&runtime, ask(name, &[("x", &[1])], &[])).await;
        assert_eq!(error.expect_err("not ready").kind, ErrorKind::Unavailable);
    }
}

/// `fake` and what its ensemble `e` answers for one row.
async fn doubled(runtime: &Runtime) -> Result<Vec<f32>, ApiError> {
    let (response, _) = infer(runtime, floats("e", [1.0, 2.0])).await?;
    Ok(response.outputs[0]
        .elements::<f32>()
        .expect("aligned")
        .to_vec())
}

fn over_fake(more: &str) -> TempDir {
    let text = format!(
        "platform: \"ensemble\"\n{}\n{}",
        "input { name: \"x\" data_type: TYPE_FP32 dims: [-1, 2] }\n\
         output { name: \"y\" data_type: TYPE_FP32 dims: [-1, 2] }",
        scheduling(&["fake: x=x -> y=y"]).replace(
            "ensemble_scheduling {",
            &format!("ensemble_scheduling {{ {more}")
        ),
    );
    repository(&[
        ("e/config.pbtxt", &text),
        ("fake/1/model.onnx", "good"),
        ("fake/config.pbtxt", "max_batch_size: 0"),
    ])
}

#[tokio::test]
async fn an_error_names_its_step_and_counts_once() {
    let fake = Fake::new("rten");
    let root = over_fake("");
    let (runtime, registry) = start(config(&[root.path()]), [fake.engine()]).await;
    assert_eq!(doubled(&runtime).await.expect("answers"), [2.0, 4.0]);
    fake.failing.store(true, Ordering::SeqCst);
    let error = doubled(&runtime).await.expect_err("fails");
    assert_eq!(error.kind, ErrorKind::Internal);
    assert!(
        error
            .message
            .starts_with("in ensemble 'e', step 0 (model 'fake'): "),
        "{}",
        error.message
    );
    let text = registry.encode();
    let failures: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("failure") && line.contains("\"e\"") && !line.ends_with(" 0"))
        .collect();
    assert!(
        matches!(failures[..], [line] if line.contains("BACKEND") && line.ends_with(" 1")),
        "{failures:?}"
    );
    let known = runtime
        .statistics(Some("e"), None)
        .expect("known")
        .remove(0);
    let stats = known.inference_stats.expect("counted");
    assert_eq!(stats.fail.expect("counted").count, 1);
    assert_eq!(stats.success.expect("counted").count, 1);
}

#[tokio::test]
async fn a_dropped_request_leaves_no_place_taken() {
    let slow = builtin(
        "identity",
        "parameters { key: \"execute_delay_ms\" value { string_value: \"60000\" } }",
    );
    let both = ensemble(
        &["x"],
        &["a", "b"],
        &["slow: in=x -> out=a", "slow: in=x -> out=b"],
    );
    let root = models(&[("slow/config.pbtxt", &slow), ("both/config.pbtxt", &both)]);
    let (runtime, _) = start(config(&[root.path()]), double::engines()).await;
    let model = runtime.model("slow", None).expect("ready");
    let lanes = || model.by_engine().expect("an engine").queue.idle();
    let idle = lanes();
    let running = begin(infer(&runtime, ask("both", &[("x", &[1])], &[])));
    until("a lane is held", || lanes() < idle).await;
    drop(running);
    until("all lanes are free", || lanes() == idle).await;
    let known = runtime
        .statistics(Some("both"), None)
        .expect("known")
        .remove(0);
    assert_eq!(
        known
            .inference_stats
            .expect("counted")
            .fail
            .expect("counted")
            .count,
        1
    );
}

#[tokio::test]
async fn a_full_step_makes_others_wait_and_then_refuses() {
    let fake = Fake::new("rten");
    let root = over_fake("max_inflight_requests: 1 ");
    let (runtime, _) = start(config(&[root.path()]), [fake.engine()]).await;
    let before = fake.gate.runs();
    fake.gate.close();
    let asked = [(); 3].map(|()| begin(doubled(&runtime)));
    let full = |error: &ApiError| error.message.contains("queue of model `e` is full");
    until("one runs", || fake.gate.runs() == before + 1).await;
    // Two wait, which is as many as may: `config` allows two in a queue.
    let error = doubled(&runtime).await.expect_err("a fourth is refused");
    assert!(full(&error), "{error}");
    assert_eq!(fake.gate.runs(), before + 1, "one at a time");
    let soon = Deadline::after(Clock::real().now(), std::time::Duration::ZERO);
    assert!(runtime.infer(floats("e", [0.0, 0.0]), soon).await.is_err());
    fake.gate.open();
    for answer in asked {
        assert_eq!(answer.await.expect("answers"), [2.0, 4.0]);
    }
}

/// Polls a call once, which puts it in line or on a thread.
fn begin<F: Future>(future: F) -> Pin<Box<F>> {
    let mut future = Box::pin(future);
    let mut context = Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_pending());
    future
}

#[tokio::test]
async fn a_batch_of_one_enters_and_leaves_models_without_batches() {
    let fp32 = |side: &str, name: &str, dims: &str| {
        format!("{side} {{ name: \"{name}\" data_type: TYPE_FP32 dims: {dims} }}\n")
    };
    let member = |batch: usize| {
        format!("backend: \"identity\" max_batch_size: {batch}\n")
            + &fp32("input", "in", "[3]")
            + &fp32("output", "out", "[3]")
    };
    let text = "platform: \"ensemble\" max_batch_size: 4\n".to_owned()
        + &fp32("input", "x", "[3]")
        + &fp32("output", "y", "[3]")
        + &scheduling(&[
            "batched: in=x -> out=a",
            "plain: in=a -> out=b",
            "batched: in=b -> out=y",
        ]);
    let root = repository(&[
        ("e/config.pbtxt", &text),
        ("batched/config.pbtxt", &member(4)),
        ("plain/config.pbtxt", &member(0)),
    ]);
    let (runtime, _) = start(config(&[root.path()]), double::engines()).await;
    let request = |rows: usize| {
        let x = Tensor::from_elements("x", DataType::Fp32, vec![rows, 3], vec![1.5_f32; rows * 3]);
        InferRequest {
            model: "e".to_owned(),
            inputs: vec![x.expect("as many")],
            ..InferRequest::default()
        }
    };
    let (response, _) = infer(&runtime, request(1)).await.expect("answers");
    assert_eq!(response.outputs[0].shape, [1, 3]);
    let error = infer(&runtime, request(2))
        .await
        .expect_err("two rows do not fit");
    assert!(
        error.message.contains("step 1 (model 'plain')"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn plain_models_go_on_as_before() {
    let root = models(&[]);
    let (runtime, _) = start(config(&[root.path()]), double::engines()).await;
    let (response, _) = infer(&runtime, ints("double", &[4]))
        .await
        .expect("answers");
    assert_eq!(values(&response, "out"), [8]);
}

#[tokio::test]
async fn a_swapped_member_is_used_at_once_and_a_lost_one_is_missed() {
    let over = ensemble(&["x"], &["y"], &["double: in=x -> out=y"]);
    let outer = ensemble(&["x"], &["y"], &["e: x=x -> y=y"]);
    let root = models(&[("e/config.pbtxt", &over), ("outer/config.pbtxt", &outer)]);
    let (runtime, _) = start(config(&[root.path()]), double::engines()).await;
    let answer = async || {
        let answer = infer(&runtime, ask("outer", &[("x", &[7])], &[])).await;
        answer.map(|(response, _)| values(&response, "y"))
    };
    assert_eq!(answer().await.expect("answers"), [14]);
    let double = runtime.model("double", None).expect("ready");
    let identity = runtime.model("identity", None).expect("ready");
    let publish = |version| {
        let inner = runtime.inner();
        let entry = inner.catalogue.get("double").expect("known");
        entry.publish(Versions::one(1, version));
        super::settle(&inner.catalogue);
    };
    let ready = |model| {
        Version::Ready(Ready {
            model,
            digest: [0; 32],
            bytes: 0,
            working: 0,
            note: String::new(),
            over: None,
        })
    };
    publish(ready(identity));
    assert_eq!(answer().await.expect("answers"), [7]);
    publish(Version::Unavailable("unloaded".to_owned()));
    for name in ["e", "outer"] {
        let (state, reason) = standing(&runtime, name);
        assert_eq!(state, ModelState::Unavailable, "{name}");
        assert!(reason.contains("unloaded"), "{name}: {reason}");
    }
    assert!(!runtime.ready());
    let error = answer().await.expect_err("nobody doubles");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    publish(ready(double));
    assert_eq!(answer().await.expect("answers"), [14]);
}
