use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use base::{Clock, Deadline, ErrorKind};
use protocol::{DataType, InferRequest, LoadRequest, Parameter, Tensor, TensorSpec};

use super::Sequencer;
use crate::Runtime;
use crate::engine::{Engine, EngineError, Lane, LoadOptions, Loaded, Run, Source};
use crate::testing::{Gate, builtin, config, far, ints, repository, start, until};

mod iterative;
mod many;

fn configured(backend: &str, batch: usize, batching: &str, more: &str) -> String {
    let ends = if backend == "dyna_sequence" {
        r#", { name: "END" control { kind: CONTROL_SEQUENCE_END int32_false_true: [0, 1] } },
            { name: "CORRID" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }"#
    } else {
        ""
    };
    format!(
        r#"backend: "{backend}" max_batch_size: {batch}
        input {{ name: "INPUT" data_type: TYPE_INT32 dims: -1 }}
        output {{ name: "OUTPUT" data_type: TYPE_INT32 dims: -1 }}
        instance_group {{ count: 1 kind: KIND_CPU }}
        sequence_batching {{ {batching}
            control_input [{{ name: "START" control {{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }} }},
                {{ name: "READY" control {{ kind: CONTROL_SEQUENCE_READY int32_false_true: [0, 1] }} }}{ends}] }}
        {more}"#
    )
}

async fn runtime(config_text: &str) -> (Runtime, tempfile::TempDir) {
    let root = repository(&[("m/config.pbtxt", config_text)]);
    let mut config = config(&[root.path()]);
    config.queue_max = 64;
    let (runtime, _) = start(config, []).await;
    assert!(runtime.ready(), "{:?}", runtime.index());
    (runtime, root)
}

/// What a client says about its sequence: start, end.
const START: (bool, bool) = (true, false);
const MORE: (bool, bool) = (false, false);
const END: (bool, bool) = (false, true);

fn request(shape: &[usize], values: &[i32], id: u64, (start, end): (bool, bool)) -> InferRequest {
    let input = Tensor::from_elements("INPUT", DataType::Int32, shape.to_vec(), values.to_vec());
    let flag = |name: &str, set| (name.to_owned(), Parameter::Bool(set));
    InferRequest {
        model: "m".to_owned(),
        inputs: vec![input.expect("as many elements")],
        parameters: BTreeMap::from([
            ("sequence_id".to_owned(), Parameter::Uint(id)),
            flag("sequence_start", start),
            flag("sequence_end", end),
        ]),
        ..InferRequest::default()
    }
}

fn one(value: i32, id: u64, flags: (bool, bool)) -> InferRequest {
    request(&[1, 1], &[value], id, flags)
}

async fn sum(runtime: &Runtime, request: InferRequest) -> Result<Vec<i32>, String> {
    let answer = runtime.infer(request, far()).await;
    let (response, _) = answer.map_err(|error| error.message)?;
    let output = response.outputs[0].elements::<i32>();
    Ok(output.expect("aligned").to_vec())
}

fn sequencer(runtime: &Runtime) -> Arc<Sequencer> {
    let model = runtime.model("m", None).expect("ready");
    let engine = model.by_engine().expect("an engine");
    Arc::clone(engine.sequencer.as_ref().expect("sequences"))
}

fn begin<F: Future>(future: F) -> std::pin::Pin<Box<F>> {
    let mut future = Box::pin(future);
    let mut context = Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_pending());
    future
}

#[tokio::test]
async fn each_sequence_has_its_own_sum_however_they_are_mixed() {
    let direct = "direct { } max_sequence_idle_microseconds: 60000000";
    let oldest = "oldest { max_candidate_sequences: 4 max_queue_delay_microseconds: 100 }";
    for text in [
        configured("sequence", 4, direct, ""),
        configured("dyna_sequence", 4, oldest, ""),
        configured(
            "sequence",
            4,
            direct,
            r#"parameters { key: "execute_delay_ms" value { string_value: "1" } }"#,
        ),
    ] {
        let dynamic = text.contains("dyna");
        let (runtime, _root) = runtime(&text).await;
        let sequences = (1..=9_u64).map(|id| {
            let runtime = runtime.clone();
            async move {
                let mut total = 0;
                for step in 0..6 {
                    let value = i32::try_from(id).expect("small") * 10 + step;
                    total += value;
                    let request = one(value, id, (step == 0, step == 5));
                    let last = if dynamic && step == 5 {
                        i32::try_from(id).expect("small")
                    } else {
                        0
                    };
                    assert_eq!(
                        sum(&runtime, request).await,
                        Ok(vec![total + last]),
                        "{id}: {step}"
                    );
                }
                Ok::<(), ()>(())
            }
        });
        crate::join::join_all(sequences)
            .await
            .expect("all answered");
        let sequencer = sequencer(&runtime);
        until("every slot is free", || sequencer.held() == (0, 0)).await;
        let statistics = &runtime.statistics(Some("m"), None).expect("known")[0];
        assert_eq!(statistics.inference_count, 54);
        assert!(statistics.execution_count <= 54);
    }
}

#[tokio::test]
async fn a_model_without_batches_runs_one_sequence_at_a_time() {
    let (runtime, _root) = runtime(&configured("sequence", 0, "direct { }", "")).await;
    let ask = |values: &'static [i32], id, flags| request(&[values.len()], values, id, flags);
    assert_eq!(sum(&runtime, ask(&[1, 2], 1, START)).await, Ok(vec![3, 3]));
    let waiting = begin(runtime.infer(ask(&[7], 2, (true, true)), far()));
    assert_eq!(sum(&runtime, ask(&[4], 1, END)).await, Ok(vec![7]));
    let (response, _) = waiting.await.expect("its turn came");
    assert_eq!(response.outputs[0].elements::<i32>(), Some(&[7][..]));
}

#[tokio::test]
async fn requests_outside_a_sequence_are_refused_in_triton_s_words() {
    let (runtime, _root) = runtime(&configured("sequence", 4, "direct { }", "")).await;
    for (request, words) in [
        (
            one(1, 0, START),
            "inference request to model 'm' must specify a non-zero or non-empty correlation ID",
        ),
        (
            one(1, 5, MORE),
            "inference request for sequence 5 to model 'm' must specify the START flag on the first request of the sequence",
        ),
        (
            request(&[2, 1], &[1, 2], 5, START),
            "inference request to model 'm' must specify batch-size 1 due to requirements of sequence batcher",
        ),
    ] {
        assert_eq!(sum(&runtime, request).await, Err(words.to_owned()));
    }
}

#[tokio::test]
async fn a_sequence_goes_on_with_the_version_that_it_began_with() {
    let direct = "direct { } max_sequence_idle_microseconds: 60000000";
    let (runtime, _root) = runtime(&configured("sequence", 1, direct, "")).await;
    let load = || {
        runtime.load(LoadRequest {
            model: "m".to_owned(),
            ..LoadRequest::default()
        })
    };
    assert_eq!(sum(&runtime, one(1, 1, START)).await, Ok(vec![1]));
    let old = sequencer(&runtime);
    load().await.expect("replaced");
    assert!(!Arc::ptr_eq(&old, &sequencer(&runtime)));
    assert_eq!(sum(&runtime, one(2, 1, MORE)).await, Ok(vec![3]));
    assert_eq!(sum(&runtime, one(10, 2, START)).await, Ok(vec![10]));
    assert_eq!(sequencer(&runtime).held(), (1, 0));
    assert_eq!(sum(&runtime, one(4, 1, END)).await, Ok(vec![7]));
    assert_eq!(old.held(), (0, 0));
    // The version before the previous one is not kept: its sequences have ended, and their requests are told so.
    drop(old);
    load().await.expect("replaced");
    load().await.expect("replaced");
    let error = sum(&runtime, one(1, 2, MORE)).await.expect_err("ended");
    assert!(error.contains("START flag"), "{error}");
}

#[tokio::test]
async fn an_idle_sequence_loses_its_slot_to_one_that_waits() {
    let idle = "direct { } max_sequence_idle_microseconds: 30000";
    let (runtime, _root) = runtime(&configured("sequence", 1, idle, "")).await;
    assert_eq!(sum(&runtime, one(1, 1, START)).await, Ok(vec![1]));
    assert_eq!(sum(&runtime, one(2, 2, (true, true))).await, Ok(vec![2]));
    let error = sum(&runtime, one(3, 1, MORE)).await.expect_err("ended");
    assert!(error.contains("START flag"), "{error}");
}

#[tokio::test]
async fn a_caller_who_leaves_ends_its_sequence_and_frees_the_slot() {
    let (runtime, _root) = runtime(&configured("sequence", 1, "direct { }", "")).await;
    assert_eq!(sum(&runtime, one(1, 1, START)).await, Ok(vec![1]));
    let left = begin(runtime.infer(one(1, 2, START), far()));
    let behind = begin(runtime.infer(one(1, 2, MORE), far()));
    drop(left);
    let error = behind.await.expect_err("ended");
    assert_eq!(error.kind, ErrorKind::Cancelled);
    let soon = Deadline::after(Clock::real().now(), Duration::from_millis(20));
    let error = runtime
        .infer(one(1, 3, START), soon)
        .await
        .expect_err("late");
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert_eq!(sequencer(&runtime).held(), (1, 0));
    assert_eq!(sum(&runtime, one(4, 1, END)).await, Ok(vec![5]));
    assert_eq!(sequencer(&runtime).held(), (0, 0));
}

/// The input that makes the adder panic.
const PANIC: i32 = -666;

/// y = x + s, and s becomes y: the sum that `sequence` keeps itself, kept by the server.
#[derive(Debug)]
struct Adder([TensorSpec; 2], [TensorSpec; 2]);

impl Adder {
    fn new() -> Self {
        let spec = |name: &str| TensorSpec::new(name, DataType::Int32, vec![-1, 1]);
        Self([spec("INPUT"), spec("S")], [spec("OUTPUT"), spec("S_OUT")])
    }
}

impl Engine for Adder {
    fn name(&self) -> &'static str {
        "adder"
    }

    fn version(&self) -> String {
        "1".to_owned()
    }

    fn accepts(&self, source: &Source) -> bool {
        source.backend == "onnxruntime"
    }

    fn load(&self, _: &Source, _: LoadOptions) -> Result<Arc<dyn Loaded>, EngineError> {
        Ok(Arc::new(Self::new()))
    }
}

impl Loaded for Adder {
    fn inputs(&self) -> &[TensorSpec] {
        &self.0
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.1
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        Ok(Box::new(Self::new()))
    }
}

impl Lane for Adder {
    fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        let (x, s) = (
            call.inputs[0].elements::<i32>(),
            call.inputs[1].elements::<i32>(),
        );
        let (x, s) = (x.expect("aligned"), s.expect("aligned"));
        assert!(!x.contains(&PANIC), "asked to panic");
        let y: Vec<i32> = x.iter().zip(s).map(|(x, s)| x + s).collect();
        let output = |index: &usize| {
            let name = self.1[*index].name.clone();
            let y = y.clone();
            Tensor::from_elements(name, DataType::Int32, vec![y.len(), 1], y).expect("as many")
        };
        Ok(call.wanted.iter().map(output).collect())
    }
}

fn adder(initial: &str) -> String {
    format!(
        r#"backend: "onnxruntime" max_batch_size: 4
        input {{ name: "INPUT" data_type: TYPE_INT32 dims: 1 }}
        output {{ name: "OUTPUT" data_type: TYPE_INT32 dims: 1 }}
        instance_group {{ count: 1 kind: KIND_CPU }}
        sequence_batching {{ direct {{ }} max_sequence_idle_microseconds: 60000000
            state {{ input_name: "S" output_name: "S_OUT" data_type: TYPE_INT32 dims: 1
            {initial} }} }}"#
    )
}

/// With `adder`'s configuration; the fields of a repository and its runtime.
async fn adding() -> (Runtime, tempfile::TempDir) {
    let root = repository(&[("m/config.pbtxt", &adder("")), ("m/1/model.onnx", "adder")]);
    let engine: Arc<dyn Engine> = Arc::new(Adder::new());
    let mut config = config(&[root.path()]);
    config.queue_max = 64;
    let (runtime, _) = start(config, [engine]).await;
    assert!(runtime.ready(), "{:?}", runtime.index());
    (runtime, root)
}

#[tokio::test]
async fn a_lane_that_fails_ends_its_sequences_and_nobody_adds_to_a_lost_state() {
    let (runtime, _root) = adding().await;
    assert_eq!(sum(&runtime, one(1, 1, START)).await, Ok(vec![1]));
    assert_eq!(sum(&runtime, one(2, 2, START)).await, Ok(vec![2]));
    let broken = begin(runtime.infer(one(PANIC, 1, MORE), far()));
    let behind = begin(runtime.infer(one(1, 1, MORE), far()));
    let error = broken.await.expect_err("panics");
    assert!(error.message.contains("panicked"), "{error}");
    let error = behind.await.expect_err("its state is gone");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(
        error
            .message
            .contains("the lane that kept its state failed"),
        "{error}"
    );
    let error = sum(&runtime, one(5, 2, MORE)).await.expect_err("gone, too");
    assert!(error.contains("must specify the START flag"), "{error}");
    assert_eq!(sum(&runtime, one(5, 2, (true, true))).await, Ok(vec![5]));
    let sequencer = sequencer(&runtime);
    until("every slot is free", || sequencer.held() == (0, 0)).await;
}

#[tokio::test]
async fn a_sequence_waits_for_a_compute_thread_and_keeps_its_state() {
    let (runtime, _root) = adding().await;
    assert_eq!(sum(&runtime, one(1, 1, START)).await, Ok(vec![1]));
    let gate: Arc<Gate> = Arc::default();
    gate.close();
    let compute = runtime.inner().tools.compute.clone();
    let held = || {
        let gate = Arc::clone(&gate);
        compute.submit(1, move || gate.pass())
    };
    while held().is_ok() {}
    let waiting = begin(runtime.infer(one(2, 1, MORE), far()));
    let soon = Deadline::after(Clock::real().now(), Duration::from_millis(20));
    let late = runtime.infer(one(9, 2, START), soon).await;
    assert_eq!(late.expect_err("no thread").kind, ErrorKind::Timeout);
    gate.open();
    let (response, _) = waiting.await.expect("its turn came");
    assert_eq!(response.outputs[0].elements::<i32>(), Some(&[3][..]));
    assert_eq!(sum(&runtime, one(4, 1, END)).await, Ok(vec![7]));
}

#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "a caller that the test can abort"
)]
async fn a_batch_for_which_nobody_waits_is_stopped_and_its_sequence_ended() {
    let delay = r#"parameters { key: "execute_delay_ms" value { string_value: "60000" } }"#;
    let (runtime, _root) = runtime(&configured("sequence", 1, "direct { }", delay)).await;
    let own = runtime.clone();
    let running = tokio::spawn(async move { own.infer(one(1, 1, START), far()).await });
    let sequencer = sequencer(&runtime);
    until("it runs", || !sequencer.state.lock().running.is_empty()).await;
    let behind = begin(runtime.infer(one(1, 1, MORE), far()));
    running.abort();
    let error = behind.await.expect_err("ended");
    assert_eq!(error.kind, ErrorKind::Cancelled);
    until("the slot is free", || sequencer.held() == (0, 0)).await;
    assert!(sequencer.state.lock().running.is_empty());
}

#[tokio::test]
async fn the_server_keeps_the_states_that_a_model_gives_back() {
    let from_file = r#"initial_state { name: "s" data_type: TYPE_INT32 dims: 1 data_file: "ten" }"#;
    for (text, first) in [(adder(""), 0), (adder(from_file), 10)] {
        let root = repository(&[
            ("m/config.pbtxt", &text),
            ("m/1/model.onnx", "adder"),
            ("m/initial_state/ten", "\n\0\0\0"),
        ]);
        let adder: Arc<dyn Engine> = Arc::new(Adder::new());
        let (runtime, _) = start(config(&[root.path()]), [adder]).await;
        assert!(runtime.ready(), "{:?}", runtime.index());
        for (value, id, flags, expected) in [
            (1, 1, START, 1),
            (5, 2, START, 5),
            (2, 1, MORE, 3),
            (6, 2, END, 11),
            (3, 1, START, 3),
            (4, 1, END, 7),
            (8, 1, START, 8),
        ] {
            let answer = sum(&runtime, one(value, id, flags)).await;
            assert_eq!(answer, Ok(vec![expected + first]), "{value} of {id}");
        }
    }
}

/// A lane of sequences takes part as any other batch does: it waits for what a running one holds.
#[tokio::test]
async fn sequences_take_turns_with_others_that_share_a_resource() {
    const LIMIT: &str =
        r#"count: 1 kind: KIND_CPU rate_limiter { resources { name: "R" count: 1 } }"#;
    let sequences = configured("sequence", 4, "direct { }", "");
    let sequences = sequences.replace("count: 1 kind: KIND_CPU", LIMIT);
    let more = r#"parameters { key: "execute_delay_ms" value { string_value: "600000" } }"#;
    let slow = format!("{} instance_group {{ {LIMIT} }}", builtin("identity", more));
    let root = repository(&[("m/config.pbtxt", &sequences), ("slow/config.pbtxt", &slow)]);
    let mut config = config(&[root.path()]);
    config.rate_limit = Some(BTreeMap::new());
    let (runtime, _) = start(config, []).await;
    assert!(runtime.ready(), "{:?}", runtime.index());
    assert_eq!(sum(&runtime, one(1, 7, START)).await, Ok(vec![1]));
    let holds = begin(runtime.infer(ints("slow", &[1]), far()));
    let soon = Deadline::after(Clock::real().now(), Duration::from_millis(30));
    let waits = runtime.infer(one(2, 7, MORE), soon).await;
    let error = waits.expect_err("the resource is taken");
    assert_eq!(
        error.message,
        "deadline passed in the sequence of model `m`"
    );
    let waits = sum(&runtime, one(3, 8, START));
    let frees = async {
        tokio::task::yield_now().await;
        drop(holds);
    };
    let (answer, ()) = tokio::join!(waits, frees);
    assert_eq!(answer, Ok(vec![3]));
    // It has given back what it held.
    let again = begin(runtime.infer(ints("slow", &[1]), far()));
    let model = runtime.model("slow", None).expect("ready");
    assert_eq!(model.by_engine().expect("an engine").queue.idle(), 0);
    drop(again);
}
