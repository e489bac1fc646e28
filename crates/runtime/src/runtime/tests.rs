use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::Duration;

use base::ErrorKind;
use protocol::{DataType, ModelState, Parameter, RequestedOutput, Tensor};

use super::*;
use crate::testing::{
    Fake, Gate, PANIC, builtin, config, far, floats, ints, repository, start, until,
};

/// Polls a call once, which puts it in the line or on a thread.
fn begin<F: Future>(future: F) -> std::pin::Pin<Box<F>> {
    let mut future = Box::pin(future);
    let mut context = Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_pending());
    future
}

fn idle_lanes(runtime: &Runtime, model: &str) -> usize {
    let model = runtime.model(model, None).expect("ready");
    model.by_engine().expect("an engine").queue.idle()
}

fn soon() -> Deadline {
    Deadline::after(Clock::real().now(), Duration::from_millis(20))
}

#[tokio::test]
async fn identity_answers_without_copying() {
    let root = repository(&[("echo/config.pbtxt", &builtin("identity", ""))]);
    let (runtime, _) = start(config(&[root.path()]), []).await;
    assert!(runtime.ready() && runtime.has("echo"));
    let request = InferRequest {
        id: Some("7".to_owned()),
        ..ints("echo", &[1, 2, 3])
    };
    let address = request.inputs[0].data.as_ptr();
    let (response, _) = runtime.infer(request, far()).await.expect("answers");
    assert_eq!(
        (response.model.as_str(), response.version.as_str()),
        ("echo", "1")
    );
    assert_eq!(response.id.as_deref(), Some("7"));
    assert_eq!(response.outputs[0].name, "out");
    assert_eq!(response.outputs[0].data.as_ptr(), address);
    let metadata = runtime.metadata("echo", None).expect("ready");
    assert_eq!(
        (metadata.platform.as_str(), &metadata.versions[..]),
        ("identity", &["1".to_owned()][..])
    );
    assert_eq!(metadata.inputs[0].shape, [-1]);
}

#[tokio::test]
async fn a_model_without_configuration_is_completed_from_the_file() {
    let root = repository(&[("m/3/model.onnx", "ok")]);
    let fake = Fake::new("onnxruntime");
    let (runtime, _) = start(config(&[root.path()]), [fake.engine()]).await;
    let (response, _) = runtime
        .infer(floats("m", [1.5, -2.0]), far())
        .await
        .expect("answers");
    assert_eq!(response.version, "3");
    assert_eq!(
        response.outputs[0].elements::<f32>(),
        Some(&[3.0, -4.0][..])
    );
    let config = runtime.config("m", None).expect("ready");
    assert_eq!(config.backend, "onnxruntime");
    assert_eq!(config.input[0].dims, [2]);
    assert_eq!(config.instance_group[0].count, 2);
    let described = &runtime.describe()[0];
    assert_eq!(
        (described.engine.as_str(), described.lanes),
        ("onnxruntime", 2)
    );
    let mut wrong = floats("m", [0.0, 0.0]);
    wrong.outputs = vec![RequestedOutput {
        name: "z".to_owned(),
        ..RequestedOutput::default()
    }];
    let error = runtime
        .infer(wrong, far())
        .await
        .expect_err("no such output");
    assert_eq!(
        (error.kind, error.param.as_deref()),
        (ErrorKind::Invalid, Some("outputs"))
    );
}

#[tokio::test]
async fn a_broken_model_says_why_beside_a_good_one() {
    let typo = builtin("identity", "max_bach_size: 3");
    let policy = builtin("identity", "version_policy { specific { versions: 7 } }");
    let root = repository(&[
        ("good/config.pbtxt", &builtin("identity", "")),
        ("broken/1/model.onnx", "broken"),
        ("empty/1/notes.txt", ""),
        ("flat/notes.txt", ""),
        ("typo/config.pbtxt", &typo),
        ("sidecar/1/model.onnx", "ok"),
        ("sidecar/kapok.toml", "engin = \"auto\""),
        ("warmup/1/model.onnx", "ok"),
        ("warmup/kapok.toml", "[warmup.shapes]\nxx = [1, 2]"),
        ("panics/1/model.onnx", "panics"),
        ("text/1/model.onnx", "ok"),
        ("text/kapok.toml", "[text]"),
        ("strange/config.pbtxt", "backend: \"teleport\""),
        ("policy/config.pbtxt", &policy),
    ]);
    let fake = Fake::new("onnxruntime");
    let (runtime, _) = start(config(&[root.path()]), [fake.engine()]).await;
    assert!(!runtime.ready());
    let reasons: BTreeMap<_, _> = runtime
        .index()
        .into_iter()
        .map(|entry| (entry.name, (entry.state, entry.reason)))
        .collect();
    assert_eq!(reasons["good"], (ModelState::Ready, String::new()));
    for (model, named) in [
        ("broken", "the file is broken"),
        ("empty", "`1/model.onnx`"),
        (
            "flat",
            "no version folder, such as `1`, and no `model.onnx`",
        ),
        ("typo", "config.pbtxt:"),
        ("typo", "max_bach_size"),
        ("sidecar", "engin"),
        ("warmup", "`xx`"),
        ("panics", "panicked"),
        ("text", "[text]"),
        ("strange", "teleport"),
        ("policy", "[7]"),
    ] {
        let (state, reason) = &reasons[model];
        assert_eq!(*state, ModelState::Unavailable, "{model}");
        assert!(reason.contains(named), "{model}: {reason}");
        // Clients see it: nothing above the model's folder.
        let path = root.path().display().to_string();
        assert!(!reason.contains(&path), "{model}: {reason}");
    }
    runtime
        .infer(ints("good", &[1]), far())
        .await
        .expect("answers");
    let error = runtime.infer(floats("broken", [0.0; 2]), far()).await;
    let error = error.expect_err("not ready");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(
        error.message,
        "Request for unknown model: 'broken' has no available versions"
    );
    assert_eq!(runtime.model_ready("broken", None), Ok(false));
    let error = runtime.infer(ints("nobody", &[1]), far()).await;
    assert_eq!(
        error.expect_err("unknown"),
        ApiError::unknown_model("nobody")
    );
}

#[tokio::test]
async fn a_model_in_two_repositories_is_not_guessed() {
    let identity = builtin("identity", "");
    let one = repository(&[("m/config.pbtxt", &identity), ("n/config.pbtxt", &identity)]);
    let two = repository(&[("m/config.pbtxt", &identity)]);
    let (runtime, _) = start(config(&[one.path(), two.path()]), []).await;
    let index = runtime.index();
    assert_eq!(index[0].state, ModelState::Unavailable);
    let reason = &index[0].reason;
    for folder in [&one, &two] {
        let name = folder.path().file_name().expect("named");
        assert!(reason.contains(&*name.to_string_lossy()), "{reason}");
        assert!(!reason.contains(&folder.path().display().to_string()));
    }
    assert_eq!(index[1].state, ModelState::Ready);
}

#[tokio::test]
async fn a_version_that_panics_while_loading_leaves_the_others_serving() {
    let root = repository(&[
        ("m/1/model.onnx", "ok"),
        ("m/2/model.onnx", "panics later"),
        ("m/3/model.onnx", "ok"),
        (
            "m/config.pbtxt",
            "backend: \"onnxruntime\" version_policy { all {} }",
        ),
    ]);
    let fake = Fake::new("onnxruntime");
    let (runtime, _) = start(config(&[root.path()]), [fake.engine()]).await;
    let states: Vec<_> = runtime
        .index()
        .into_iter()
        .map(|entry| (entry.version, entry.state, entry.reason))
        .collect();
    let ready = |version: &str| (version.to_owned(), ModelState::Ready, String::new());
    let broken = (
        "2".to_owned(),
        ModelState::Unavailable,
        "loading panicked".to_owned(),
    );
    assert_eq!(states, [ready("1"), broken, ready("3")]);
    let answer = runtime.infer(floats("m", [0.0, 0.0]), far()).await;
    assert_eq!(answer.expect("answers").0.version, "3");
}

#[tokio::test]
async fn the_version_policy_decides_what_is_served() {
    let files = |policy: &str| -> Vec<(String, String)> {
        let mut files: Vec<_> = [1, 2, 5]
            .map(|version| (format!("m/{version}/keep"), String::new()))
            .into();
        files.push(("m/config.pbtxt".to_owned(), builtin("identity", policy)));
        files
    };
    for (policy, expected) in [
        ("", &["5"][..]),
        ("version_policy { latest { num_versions: 2 } }", &["2", "5"]),
        ("version_policy { all {} }", &["1", "2", "5"]),
        ("version_policy { specific { versions: [1] } }", &["1"]),
    ] {
        let files = files(policy);
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect();
        let root = repository(&files);
        let (runtime, _) = start(config(&[root.path()]), []).await;
        let versions: Vec<_> = runtime
            .index()
            .into_iter()
            .map(|entry| entry.version)
            .collect();
        assert_eq!(versions, expected, "{policy}");
        let (response, _) = runtime
            .infer(ints("m", &[1]), far())
            .await
            .expect("answers");
        assert_eq!(Some(&response.version.as_str()), expected.last());
        let request = InferRequest {
            version: Some("4".to_owned()),
            ..ints("m", &[1])
        };
        let error = runtime.infer(request, far()).await.expect_err("not served");
        assert_eq!(
            error.message,
            "Request for unknown model: 'm' version 4 is not found"
        );
    }
}

#[tokio::test]
async fn a_panic_costs_one_call() {
    let root = repository(&[("m/1/model.onnx", "ok"), ("m/kapok.toml", "lanes = 1")]);
    let fake = Fake::new("onnxruntime");
    let (runtime, _) = start(config(&[root.path()]), [fake.engine()]).await;
    let built = fake.gate.lanes.load(Ordering::SeqCst);
    let error = runtime.infer(floats("m", [PANIC, 0.0]), far()).await;
    let error = error.expect_err("the engine panicked");
    assert_eq!(error.kind, ErrorKind::Internal);
    let (response, _) = runtime
        .infer(floats("m", [1.0, 1.0]), far())
        .await
        .expect("the next call is served");
    assert_eq!(response.outputs[0].elements::<f32>(), Some(&[2.0, 2.0][..]));
    assert_eq!(fake.gate.lanes.load(Ordering::SeqCst), built + 1);
}

#[tokio::test]
async fn a_caller_who_leaves_frees_the_lane_and_is_counted() {
    let delayed = "parameters { key: \"execute_delay_ms\" value { string_value: \"60000\" } }";
    let root = repository(&[("slow/config.pbtxt", &builtin("identity", delayed))]);
    let (runtime, registry) = start(config(&[root.path()]), []).await;
    assert_eq!(idle_lanes(&runtime, "slow"), 1);
    let running = begin(runtime.infer(ints("slow", &[1]), far()));
    let waiting = begin(runtime.infer(ints("slow", &[2]), far()));
    assert_eq!(idle_lanes(&runtime, "slow"), 0);
    drop(running);
    // The lane went to the one that waits, and back when that leaves, too.
    assert_eq!(idle_lanes(&runtime, "slow"), 0);
    drop(waiting);
    assert_eq!(idle_lanes(&runtime, "slow"), 1);
    let canceled =
        "nv_inference_request_failure{model=\"slow\",version=\"1\",reason=\"CANCELED\"} 2";
    let text = registry.encode();
    assert!(text.lines().any(|line| line == canceled), "{text}");
}

#[tokio::test]
async fn a_call_whose_caller_left_before_it_ran_never_runs() {
    let root = repository(&[("m/1/model.onnx", "ok")]);
    let fake = Fake::new("onnxruntime");
    let settings = Config {
        cores: 1,
        ..config(&[root.path()])
    };
    let (runtime, _) = start(settings, [fake.engine()]).await;
    let before = fake.gate.runs();
    fake.gate.close();
    let running = begin(runtime.infer(floats("m", [1.0, 0.0]), far()));
    until("the first call runs", || fake.gate.runs() == before + 1).await;
    let waiting = begin(runtime.infer(floats("m", [2.0, 0.0]), far()));
    drop(waiting);
    // The caller of a running call may leave, too: its lane comes back when the engine returns.
    drop(running);
    assert_eq!(idle_lanes(&runtime, "m"), 0);
    fake.gate.open();
    until("the lane is free", || idle_lanes(&runtime, "m") == 1).await;
    assert_eq!(fake.gate.runs(), before + 1);
}

#[tokio::test]
async fn a_full_queue_refuses_and_says_when_to_come_back() {
    let root = repository(&[("m/1/model.onnx", "ok"), ("m/kapok.toml", "lanes = 1")]);
    let fake = Fake::new("onnxruntime");
    let (runtime, registry) = start(config(&[root.path()]), [fake.engine()]).await;
    fake.gate.close();
    let calls: Vec<_> = (0..3)
        .map(|_| begin(runtime.infer(floats("m", [0.0; 2]), far())))
        .collect();
    let pending = "nv_inference_pending_request_count{model=\"m\",version=\"1\"} 2";
    assert!(registry.encode().lines().any(|line| line == pending));
    let error = runtime.infer(floats("m", [0.0; 2]), far()).await;
    let error = error.expect_err("full");
    assert_eq!(
        (error.kind, error.code, error.message.as_str()),
        (
            ErrorKind::Unavailable,
            Some("queue_full"),
            "Exceeds maximum queue size: queue of model `m` is full (2 waiting)"
        )
    );
    assert!(matches!(error.retry, base::Retry::After(_)));
    fake.gate.open();
    for call in calls {
        call.await.expect("served in turn");
    }
    let text = registry.encode();
    for line in [
        "nv_inference_request_success{model=\"m\",version=\"1\"} 3",
        "nv_inference_request_failure{model=\"m\",version=\"1\",reason=\"REJECTED\"} 1",
        "nv_inference_count{model=\"m\",version=\"1\"} 3",
        "kapok_runtime_compute_threads 2",
        "kapok_runtime_lanes{model=\"m\",version=\"1\"} 1",
        "kapok_runtime_infer_seconds_count{model=\"m\",version=\"1\"} 3",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} in:\n{text}");
    }
}

#[tokio::test]
async fn the_deadline_holds_at_every_step() {
    let delayed = "parameters { key: \"execute_delay_ms\" value { string_value: \"60000\" } }";
    let root = repository(&[
        ("slow/config.pbtxt", &builtin("identity", delayed)),
        ("m/1/model.onnx", "ok"),
    ]);
    let fake = Fake::new("onnxruntime");
    let (runtime, _) = start(config(&[root.path()]), [fake.engine()]).await;
    let in_delay = runtime.infer(ints("slow", &[1]), soon()).await;
    fake.gate.close();
    let in_engine = runtime.infer(floats("m", [0.0; 2]), soon()).await;
    fake.gate.open();
    for (outcome, place) in [(in_delay, "delay"), (in_engine, "engine")] {
        let error = outcome.expect_err("late");
        assert_eq!(error.kind, ErrorKind::Timeout);
        assert!(error.message.contains(place), "{}", error.message);
    }
    until("both lanes are free", || {
        idle_lanes(&runtime, "slow") == 1 && idle_lanes(&runtime, "m") == 2
    })
    .await;
}

#[tokio::test]
async fn statistics_count_what_was_asked_and_where_time_went() {
    let root = repository(&[("m/1/model.onnx", "ok")]);
    let fake = Fake::new("onnxruntime");
    let (runtime, _) = start(config(&[root.path()]), [fake.engine()]).await;
    let batch = protocol::Tensor::from_elements(
        "x",
        protocol::DataType::Fp32,
        vec![3, 2],
        vec![0.5_f32; 6],
    );
    let request = InferRequest {
        inputs: vec![batch.expect("six elements")],
        ..floats("m", [0.0; 2])
    };
    let (_, timing) = runtime.infer(request, far()).await.expect("answers");
    runtime
        .infer(floats("m", [0.0; 2]), far())
        .await
        .expect("answers");
    runtime
        .infer(ints("m", &[1]), far())
        .await
        .expect_err("another input");
    let statistics = runtime.statistics(Some("m"), None).expect("known");
    let [model] = &statistics[..] else {
        panic!("one version: {statistics:?}");
    };
    assert_eq!((model.inference_count, model.execution_count), (4, 2));
    assert!(model.last_inference > 0);
    let sizes: Vec<_> = model
        .batch_stats
        .iter()
        .map(|batch| batch.batch_size)
        .collect();
    assert_eq!(sizes, [1, 3]);
    let totals = model.inference_stats.expect("always there");
    let count = |sum: Option<protocol::oip::proto::StatisticDuration>| sum.map(|sum| sum.count);
    assert_eq!(
        (count(totals.success), count(totals.fail)),
        (Some(2), Some(1))
    );
    assert_eq!(count(totals.compute_infer), Some(2));
    let infer_ns = u128::from(totals.compute_infer.expect("there").ns);
    assert!(infer_ns >= timing.infer.as_nanos());
    assert!(runtime.statistics(Some("other"), None).is_err());
    assert_eq!(runtime.statistics(None, None).expect("all").len(), 1);
}

#[tokio::test]
async fn what_is_being_loaded_is_seen_as_loading() {
    let root = repository(&[("m/1/model.onnx", "ok")]);
    let fake = Fake::new("onnxruntime");
    fake.gate.close();
    let engine = fake.engine();
    let parts = Parts {
        config: config(&[root.path()]),
        engines: Engines::new(move || vec![engine]),
        clock: Clock::real(),
        tasks: Tasks::new(),
        registry: Registry::new(),
        buffers: BufferPool::default(),
        give_back: || {},
    };
    let runtime = Runtime::start(parts).expect("starts");
    // The warm-up call is at the gate.
    until("the model is being tried", || fake.gate.runs() == 1).await;
    assert_eq!(runtime.index()[0].state, ModelState::Loading);
    assert!(!runtime.ready());
    let error = runtime.infer(floats("m", [0.0; 2]), far()).await;
    assert_eq!(error.expect_err("loading").kind, ErrorKind::Unavailable);
    fake.gate.open();
    runtime.loaded().await;
    assert!(runtime.ready());
}

#[tokio::test]
async fn a_classification_names_the_best_classes() {
    let labelled = r#"backend: "identity" max_batch_size: 4
        input { name: "in" data_type: TYPE_FP32 dims: 3 }
        output { name: "out" data_type: TYPE_FP32 dims: 3 label_filename: "labels.txt" }"#;
    let root = repository(&[
        ("m/config.pbtxt", labelled),
        ("m/labels.txt", "cat\ndog\nant\n"),
        ("lost/config.pbtxt", labelled),
    ]);
    let (runtime, _) = start(config(&[root.path()]), []).await;
    let reason = &runtime.index()[0].reason;
    assert!(reason.contains("`labels.txt`"), "{reason}");
    let scores = Tensor::from_elements("in", DataType::Fp32, vec![1, 3], vec![0.5_f32, 2.0, 1.0]);
    let asking = |count| InferRequest {
        model: "m".to_owned(),
        inputs: vec![scores.clone().expect("three")],
        outputs: vec![RequestedOutput {
            name: "out".to_owned(),
            parameters: BTreeMap::from([("classification".to_owned(), count)]),
        }],
        ..InferRequest::default()
    };
    let (response, _) = runtime
        .infer(asking(Parameter::Int(2)), far())
        .await
        .expect("answers");
    let output = &response.outputs[0];
    assert_eq!(
        (output.dtype, &output.shape[..]),
        (DataType::Bytes, &[1, 2][..])
    );
    assert_eq!(
        &output.data[..],
        b"\x0e\0\0\x002.000000:1:dog\x0e\0\0\x001.000000:2:ant"
    );
    let wrong = asking(Parameter::Text("2".to_owned()));
    let error = runtime.infer(wrong, far()).await.expect_err("no number");
    assert!(error.message.contains("`classification`"), "{error}");
}

#[tokio::test]
async fn equal_requests_run_once_where_the_model_says_that_answers_may_be_kept() {
    let text = r#"response_cache { enable: true }
        parameters { key: "execute_delay_ms" value { string_value: "30" } }"#;
    let root = repository(&[("m/config.pbtxt", &builtin("identity", text))]);
    let (runtime, _) = start(config(&[root.path()]), []).await;
    let both = [1, 1].map(|value| runtime.infer(ints("m", &[value]), far()));
    for call in both.map(begin) {
        let (response, _) = call.await.expect("answers");
        assert_eq!(response.outputs[0].elements::<i32>(), Some(&[1][..]));
    }
    runtime
        .infer(ints("m", &[2]), far())
        .await
        .expect("answers");
    let (again, _) = runtime
        .infer(ints("m", &[2]), far())
        .await
        .expect("answers");
    assert_eq!(again.outputs[0].elements::<i32>(), Some(&[2][..]));
    let statistics = &runtime.statistics(Some("m"), None).expect("known")[0];
    let times = statistics.inference_stats.expect("counted");
    let count =
        |sum: Option<protocol::oip::proto::StatisticDuration>| sum.map_or(0, |sum| sum.count);
    assert_eq!((count(times.cache_hit), count(times.cache_miss)), (2, 2));
    assert_eq!((count(times.success), statistics.execution_count), (4, 2));
}

#[tokio::test]
async fn large_inputs_are_hashed_on_a_compute_thread() {
    let text = "response_cache { enable: true }";
    let root = repository(&[("m/config.pbtxt", &builtin("identity", text))]);
    let (runtime, _) = start(config(&[root.path()]), []).await;
    let gate: Arc<Gate> = Arc::default();
    gate.close();
    for _ in 0..2 {
        let gate = Arc::clone(&gate);
        let compute = &runtime.inner().tools.compute;
        let held = compute.submit(1, move || gate.pass());
        assert!(held.is_ok());
    }
    let large = vec![7; 64 << 10];
    let first = begin(runtime.infer(ints("m", &large), far()));
    runtime
        .infer(ints("m", &[1]), far())
        .await
        .expect("a small one needs no thread");
    gate.open();
    let (response, _) = first.await.expect("answers");
    let (again, _) = runtime
        .infer(ints("m", &large), far())
        .await
        .expect("answers");
    assert_eq!(response.outputs, again.outputs);
    let statistics = &runtime.statistics(Some("m"), None).expect("known")[0];
    assert_eq!(statistics.execution_count, 2);
}
