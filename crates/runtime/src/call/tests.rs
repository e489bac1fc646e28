//! Calls that meet in a batch, through the runtime's own door.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};

use protocol::{ApiError, InferRequest, InferResponse, Parameter};
use tokio::task::JoinSet;

use super::*;
use crate::Runtime;
use crate::testing::{Fake, PANIC, builtin, config, far, floats, ints, repository, start, until};

type Answer<'a> =
    Pin<Box<dyn Future<Output = Result<(InferResponse, Timing), ApiError>> + Send + 'a>>;

/// Polls a call once, which puts it in line or on a thread.
fn begin(runtime: &Runtime, request: InferRequest, deadline: Deadline) -> Answer<'_> {
    let mut future: Answer<'_> = Box::pin(runtime.infer(request, deadline));
    let mut context = Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_pending());
    future
}

fn row(value: f32) -> InferRequest {
    floats("m", [value, 0.0])
}

fn value(answer: Result<(InferResponse, Timing), ApiError>) -> Result<f32, String> {
    let (response, _) = answer.map_err(|error| error.message)?;
    assert_eq!(response.outputs[0].shape, [1, 2]);
    Ok(response.outputs[0].elements::<f32>().expect("aligned")[0])
}

/// A model of one lane that takes batches of up to eight.
async fn batching(dynamic: &str) -> (Runtime, Fake) {
    let text = format!(
        r#"backend: "onnxruntime" max_batch_size: 8 dynamic_batching {{ {dynamic} }}
        input {{ name: "x" data_type: TYPE_FP32 dims: 2 }}
        output {{ name: "y" data_type: TYPE_FP32 dims: 2 }}"#
    );
    let root = repository(&[
        ("m/config.pbtxt", &text),
        ("m/1/model.onnx", "ok"),
        ("m/kapok.toml", "lanes = 1"),
    ]);
    let fake = Fake::new("onnxruntime");
    let mut config = config(&[root.path()]);
    config.queue_max = 16;
    let (runtime, _) = start(config, [fake.engine()]).await;
    assert!(runtime.ready(), "{:?}", runtime.index());
    (runtime, fake)
}

/// Holds the lane with a first call, so that what comes next has to wait.
async fn occupied<'a>(runtime: &'a Runtime, fake: &Fake) -> Answer<'a> {
    let before = fake.gate.runs();
    fake.gate.close();
    let first = begin(runtime, row(100.0), far());
    until("the first call runs", || fake.gate.runs() == before + 1).await;
    first
}

fn sizes(runtime: &Runtime) -> Vec<(u64, u64)> {
    let statistics = runtime.statistics(Some("m"), None).expect("ready");
    let batches = statistics[0].batch_stats.iter().map(|batch| {
        let runs = batch.compute_infer.as_ref().map_or(0, |infer| infer.count);
        (batch.batch_size, runs)
    });
    batches.collect()
}

#[tokio::test]
async fn what_waits_runs_together_and_each_caller_gets_its_own_rows() {
    let (runtime, fake) = batching("").await;
    let first = occupied(&runtime, &fake).await;
    let waiting: Vec<_> = (0..5_u8)
        .map(|index| begin(&runtime, row(f32::from(index)), far()))
        .collect();
    fake.gate.open();
    assert_eq!(value(first.await), Ok(200.0));
    for (index, answer) in (0..5_u8).zip(waiting) {
        assert_eq!(value(answer.await), Ok(2.0 * f32::from(index)));
    }
    assert_eq!(sizes(&runtime), [(1, 1), (5, 1)]);
    let statistics = &runtime.statistics(Some("m"), None).expect("ready")[0];
    assert_eq!(
        (statistics.inference_count, statistics.execution_count),
        (6, 2)
    );
}

#[tokio::test]
async fn one_callers_bad_input_does_not_fail_the_others() {
    let (runtime, fake) = batching("").await;
    let first = occupied(&runtime, &fake).await;
    let waiting: Vec<_> = [1.0, PANIC, 3.0]
        .into_iter()
        .map(|value| begin(&runtime, row(value), far()))
        .collect();
    fake.gate.open();
    assert!(first.await.is_ok());
    let mut answers = Vec::new();
    for answer in waiting {
        answers.push(value(answer.await).ok());
    }
    // The fake looks at a batch's first row only: alone, each caller meets its own.
    assert_eq!(answers, [Some(2.0), Some(2.0 * PANIC), Some(6.0)]);
    let first = occupied(&runtime, &fake).await;
    let waiting: Vec<_> = [PANIC, 1.0]
        .into_iter()
        .map(|value| begin(&runtime, row(value), far()))
        .collect();
    fake.gate.open();
    assert!(first.await.is_ok());
    let mut answers = Vec::new();
    for answer in waiting {
        answers.push(value(answer.await));
    }
    let panicked = "model `m` failed: the engine panicked".to_owned();
    assert_eq!(answers, [Err(panicked), Ok(2.0)]);
}

#[tokio::test]
async fn a_caller_who_is_gone_is_not_in_the_batch() {
    let (runtime, fake) = batching("").await;
    let first = occupied(&runtime, &fake).await;
    let stays = begin(&runtime, row(1.0), far());
    drop(begin(&runtime, row(2.0), far()));
    fake.gate.open();
    assert!(first.await.is_ok());
    assert_eq!(value(stays.await), Ok(2.0));
    assert_eq!(sizes(&runtime), [(1, 2)]);
}

#[tokio::test]
async fn a_queue_policys_timeout_is_told_while_the_lane_is_busy() {
    let policy =
        "default_queue_policy { default_timeout_microseconds: 5000 allow_timeout_override: true }";
    let (runtime, fake) = batching(policy).await;
    let first = occupied(&runtime, &fake).await;
    let mut hasty = row(1.0);
    let timeout = ("timeout".to_owned(), Parameter::Int(1_000));
    hasty.parameters.extend([timeout]);
    for request in [row(1.0), hasty] {
        let error = runtime.infer(request, far()).await.expect_err("no lane");
        assert!(
            error.message.starts_with("Request timeout expired"),
            "{error}"
        );
    }
    let soon = Deadline::after(base::Clock::real().now(), Duration::from_millis(3));
    let error = runtime.infer(row(1.0), soon).await.expect_err("late");
    assert_eq!(error.message, "deadline passed in the queue of model `m`");
    fake.gate.open();
    assert!(first.await.is_ok());
}

#[tokio::test]
async fn a_delay_fills_the_batch_and_ends_by_itself() {
    let (runtime, fake) =
        batching("max_queue_delay_microseconds: 400000 preferred_batch_size: 4").await;
    let before = fake.gate.runs();
    let waiting: Vec<_> = (0..3).map(|_| begin(&runtime, row(1.0), far())).collect();
    // The fourth starts the batch, which may be done before it has to wait.
    assert_eq!(value(runtime.infer(row(1.0), far()).await), Ok(2.0));
    for answer in waiting {
        assert_eq!(value(answer.await), Ok(2.0));
    }
    assert_eq!(fake.gate.runs(), before + 1, "four make a batch at once");
    assert_eq!(value(runtime.infer(row(3.0), far()).await), Ok(6.0));
    assert_eq!(sizes(&runtime), [(1, 1), (4, 1)]);
}

#[tokio::test]
async fn answers_leave_in_order_where_the_model_promises_it() {
    let (runtime, fake) = batching("preserve_ordering: true").await;
    let first = occupied(&runtime, &fake).await;
    let gone = begin(&runtime, row(1.0), far());
    let last = begin(&runtime, row(2.0), far());
    drop(gone);
    fake.gate.open();
    assert_eq!(value(last.await), Ok(4.0));
    assert_eq!(value(first.await), Ok(200.0));
}

#[tokio::test]
async fn a_delayed_batch_frees_its_lane_when_its_callers_are_gone() {
    let delay = r#"parameters { key: "execute_delay_ms" value { string_value: "600000" } }"#;
    let root = repository(&[("slow/config.pbtxt", &builtin("identity", delay))]);
    let (runtime, _) = start(config(&[root.path()]), []).await;
    let idle = || {
        let model = runtime.model("slow", None).expect("ready");
        model.by_engine().expect("an engine").queue.idle()
    };
    let running = begin(&runtime, ints("slow", &[1]), far());
    assert_eq!(idle(), 0);
    drop(running);
    assert_eq!(idle(), 1);
    let soon = Deadline::after(base::Clock::real().now(), Duration::from_millis(3));
    let error = runtime
        .infer(ints("slow", &[1]), soon)
        .await
        .expect_err("late");
    assert_eq!(
        error.message,
        "deadline passed in the artificial delay of model `slow`"
    );
    assert_eq!(idle(), 1);
}

#[tokio::test]
async fn models_that_share_a_resource_take_turns() {
    let limited = r#"backend: "onnxruntime" max_batch_size: 8
        instance_group [ { count: 1 kind: KIND_CPU },
            { count: 1 kind: KIND_CPU rate_limiter { resources { name: "R" count: 1 } } } ]
        input { name: "x" data_type: TYPE_FP32 dims: 2 }
        output { name: "y" data_type: TYPE_FP32 dims: 2 }"#;
    let root = repository(&[
        ("m/config.pbtxt", limited),
        ("m/1/model.onnx", "ok"),
        ("n/config.pbtxt", limited),
        ("n/1/model.onnx", "ok"),
    ]);
    let fake = Fake::new("onnxruntime");
    let limits = |given: &[(&str, u32)]| {
        let given = given
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count));
        let mut config = config(&[root.path()]);
        config.rate_limit = Some(given.collect());
        config
    };
    let (runtime, _) = start(limits(&[("R", 0)]), [fake.engine()]).await;
    let said = format!("{:?}", runtime.index());
    assert!(said.contains("the minimum required count is 1"), "{said}");
    let (runtime, _) = start(limits(&[]), [fake.engine()]).await;
    assert!(runtime.ready(), "{:?}", runtime.index());
    let first = occupied(&runtime, &fake).await;
    let other = begin(&runtime, floats("n", [1.0, 0.0]), far());
    let waiting = |name| {
        let model = runtime.model(name, None).expect("ready");
        model.by_engine().expect("an engine").queue.waiting()
    };
    assert_eq!((waiting("m"), waiting("n")), (0, 1), "its own lane is free");
    fake.gate.open();
    assert!(first.await.is_ok());
    assert_eq!(value(other.await), Ok(2.0));
}

fn outside(fake: &Fake) -> usize {
    fake.gate.outside.load(std::sync::atomic::Ordering::SeqCst)
}

#[tokio::test]
async fn calls_that_are_seen_to_be_quick_run_where_they_are() {
    for steady in [true, false] {
        let root = repository(&[("m/1/model.onnx", "ok"), ("m/kapok.toml", "lanes = 1")]);
        let fake = Fake {
            steady,
            ..Fake::new("onnxruntime")
        };
        let (runtime, _) = start(config(&[root.path()]), [fake.engine()]).await;
        let outside = || outside(&fake);
        let before = outside();
        let mut calls = 0;
        // A machine that is busy may call a quick call slow, and then it learns anew.
        while outside() == before && calls < if steady { 100_000 } else { 100 } {
            calls += 1;
            assert_eq!(value(runtime.infer(row(1.0), far()).await), Ok(2.0));
        }
        assert_eq!(outside() > before, steady);
        assert!(calls > 16, "learned from {calls} calls");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn while_a_short_call_keeps_its_thread_others_are_served() {
    let root = repository(&[("m/1/model.onnx", "ok"), ("m/kapok.toml", "lanes = 1")]);
    let fake = Fake {
        steady: true,
        ..Fake::new("onnxruntime")
    };
    let (runtime, _) = start(config(&[root.path()]), [fake.engine()]).await;
    let model = runtime.model("m", None).expect("ready");
    for _ in 0..16 {
        let queue = &model.by_engine().expect("an engine").queue;
        queue.timed(8, Duration::from_millis(1));
    }
    let before = (fake.gate.runs(), outside(&fake));
    fake.gate.close();
    let mut tasks = JoinSet::new();
    let caller = runtime.clone();
    tasks.spawn(async move { value(caller.infer(row(1.0), far()).await) });
    until("the call runs", || fake.gate.runs() > before.0).await;
    assert_eq!(outside(&fake), before.1 + 1);
    // The executor's only thread is kept.
    tasks.spawn(async { Ok(0.0) });
    assert!(matches!(tasks.join_next().await, Some(Ok(Ok(0.0)))));
    let waits = begin(&runtime, row(2.0), far());
    fake.gate.open();
    assert!(matches!(tasks.join_next().await, Some(Ok(Ok(2.0)))));
    assert_eq!(value(waits.await), Ok(4.0));
    assert_eq!(
        outside(&fake),
        before.1 + 1,
        "who waited in line ran in the pool"
    );
}
