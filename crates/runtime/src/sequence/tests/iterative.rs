use protocol::InferResponse;

use super::*;

/// Counts its input down, a run a number.
fn countdown(batching: &str, more: &str) -> String {
    format!(
        r#"backend: "iterative_sequence" max_batch_size: 4
        input {{ name: "INPUT" data_type: TYPE_INT32 dims: 1 }}
        output {{ name: "OUTPUT" data_type: TYPE_INT32 dims: 1 }}
        instance_group {{ count: 1 kind: KIND_CPU }}
        sequence_batching {{ iterative_sequence: true {batching} }}
        {more}"#
    )
}

const DECOUPLED: &str = "model_transaction_policy { decoupled: true }";

fn ask(value: i32) -> InferRequest {
    InferRequest {
        parameters: BTreeMap::new(),
        ..one(value, 0, MORE)
    }
}

fn left(response: &InferResponse) -> i32 {
    response.outputs[0].elements::<i32>().expect("aligned")[0]
}

async fn answers(runtime: &Runtime, request: InferRequest) -> Vec<i32> {
    let mut stream = runtime.stream(request, far()).await.expect("begins");
    let mut answers = Vec::new();
    while let Some(answer) = stream.next().await.expect("no error") {
        answers.push(left(&answer.response));
    }
    answers
}

fn executed(runtime: &Runtime) -> (u64, u64) {
    let statistics = &runtime.statistics(Some("m"), None).expect("known")[0];
    (statistics.inference_count, statistics.execution_count)
}

#[tokio::test]
async fn a_request_runs_again_for_as_long_as_its_model_wants() {
    for batching in ["", "direct { }", "oldest { max_candidate_sequences: 3 }"] {
        let (runtime, _root) = runtime(&countdown(batching, DECOUPLED)).await;
        for (asked, expected) in [
            (3, vec![2, 1, 0]),
            (1, vec![0]),
            (9, (0..9).rev().collect()),
        ] {
            assert_eq!(answers(&runtime, ask(asked)).await, expected, "{batching}");
        }
        // The client's own sequence id says nothing here.
        assert_eq!(answers(&runtime, one(2, 7, MORE)).await, [1, 0]);
        assert_eq!(executed(&runtime).0, 15);
        let sequencer = sequencer(&runtime);
        until("every slot is free", || sequencer.held() == (0, 0)).await;
    }
    let (runtime, _root) = runtime(&countdown("", "")).await;
    assert_eq!(sum(&runtime, ask(5)).await, Ok(vec![0]), "one answer");
    assert_eq!(executed(&runtime), (5, 5));
}

#[tokio::test]
async fn requests_at_different_runs_share_batches_and_slots() {
    let slow = r#"parameters { key: "execute_delay_ms" value { string_value: "1" } }"#;
    let (runtime, _root) = runtime(&countdown("", &format!("{DECOUPLED} {slow}"))).await;
    let requests = (1..=12).map(|value| {
        let runtime = runtime.clone();
        async move {
            let expected: Vec<i32> = (0..value).rev().collect();
            assert_eq!(answers(&runtime, ask(value)).await, expected);
            Ok::<(), ()>(())
        }
    });
    crate::join::join_all(requests).await.expect("all answered");
    let (rows, batches) = executed(&runtime);
    assert_eq!(rows, 78);
    // Four slots: no batch holds more, and those that wait come in as soon as one is done.
    assert!((20..60).contains(&batches), "{batches} batches");
}

#[tokio::test]
async fn a_reader_who_takes_nothing_stops_its_own_sequence_alone() {
    let (runtime, _root) = runtime(&countdown("", DECOUPLED)).await;
    let mut slow = runtime.stream(ask(1000), far()).await.expect("begins");
    let sequencer = sequencer(&runtime);
    until("as much is ahead as may be", || {
        !sequencer.state.lock().resting.is_empty()
    })
    .await;
    let ahead = executed(&runtime).0;
    assert!(ahead <= 5, "{ahead} runs for nobody");
    assert_eq!(answers(&runtime, ask(20)).await.len(), 20);
    for expected in (990..1000).rev() {
        let answer = slow.next().await.expect("no error").expect("an answer");
        assert_eq!(left(&answer.response), expected);
    }
    assert_eq!(sequencer.held(), (1, 0));
    drop(slow);
    until("its slot is free", || sequencer.held() == (0, 0)).await;
    let state = sequencer.state.lock();
    assert!(state.waiters.is_empty() && state.resting.is_empty() && state.running.is_empty());
}

#[tokio::test]
async fn who_leaves_in_line_or_in_a_run_leaves_nothing_behind() {
    let slow = r#"parameters { key: "execute_delay_ms" value { string_value: "3600000" } }"#;
    let (runtime, _root) = runtime(&countdown("", slow)).await;
    let sequencer = sequencer(&runtime);
    let callers: Vec<_> = (0..6)
        .map(|_| begin(runtime.infer(ask(3), far())))
        .collect();
    assert_eq!(sequencer.held(), (4, 2));
    drop(callers);
    until("every slot is free", || sequencer.held() == (0, 0)).await;
    until("nothing waits", || {
        let state = sequencer.state.lock();
        state.waiters.is_empty() && state.running.is_empty()
    })
    .await;
    let deadline = Deadline::after(Clock::real().now(), Duration::from_millis(20));
    let late = runtime.infer(ask(3), deadline).await.expect_err("too slow");
    assert_eq!(late.kind, ErrorKind::Timeout);
    until("its slot is free", || sequencer.held() == (0, 0)).await;
}

/// Knuth's multiplier: enough for choices.
fn dice(seed: &mut u64, below: u64) -> i32 {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    i32::try_from((*seed >> 33) % below).expect("small")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stays_gets_every_answer_whoever_else_leaves_in_between() {
    for batching in ["direct { }", "oldest { max_candidate_sequences: 6 }"] {
        let text = countdown(batching, DECOUPLED).replace("count: 1", "count: 2");
        let (runtime, _root) = runtime(&text).await;
        let requests = (0..60_u64).map(|seed| {
            let (runtime, mut seed) = (runtime.clone(), seed);
            async move {
                let length = 1 + dice(&mut seed, 30);
                let stays = dice(&mut seed, 3) > 0;
                let taken = if stays {
                    length
                } else {
                    dice(&mut seed, 30).min(length)
                };
                let mut stream = runtime.stream(ask(length), far()).await.expect("begins");
                for expected in (length - taken..length).rev() {
                    let answer = stream.next().await.expect("no error").expect("an answer");
                    assert_eq!(left(&answer.response), expected);
                    if dice(&mut seed, 4) == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                if stays {
                    assert!(stream.next().await.expect("no error").is_none());
                }
                Ok::<(), ()>(())
            }
        });
        crate::join::join_all(requests).await.expect("all answered");
        let sequencer = sequencer(&runtime);
        until("nothing is left", || {
            let state = sequencer.state.lock();
            let empty = state.waiters.is_empty() && state.resting.is_empty();
            empty && state.running.is_empty() && state.sequences.held() == (0, 0)
        })
        .await;
    }
}

#[tokio::test]
async fn a_model_that_wants_another_run_of_a_scheduler_without_them_fails_in_triton_s_words() {
    let text = countdown("", "").replace("sequence_batching { iterative_sequence: true  }", "");
    let (runtime, _root) = runtime(&text).await;
    assert_eq!(sum(&runtime, ask(1)).await, Ok(vec![0]));
    let error = sum(&runtime, ask(2)).await.expect_err("refused");
    let words = "Request is released with TRITONSERVER_REQUEST_RELEASE_RESCHEDULE";
    assert!(error.contains(words), "{error}");
}

/// x + 1 in a state of its own until 3, as an ONNX model might say it: `n` is kept by the server, `more` asks for a run.
#[derive(Debug)]
struct Adder([TensorSpec; 2], [TensorSpec; 3]);

impl Engine for Adder {
    fn name(&self) -> &'static str {
        "adder"
    }
    fn version(&self) -> String {
        "1".to_owned()
    }
    fn accepts(&self, source: &Source) -> bool {
        source.backend == "adder"
    }
    fn load(
        &self,
        _source: &Source,
        _options: LoadOptions,
    ) -> Result<Arc<dyn Loaded>, EngineError> {
        Ok(Arc::new(Self::new()))
    }
}

impl Adder {
    fn new() -> Self {
        let spec = |name: &str, dtype| TensorSpec::new(name, dtype, vec![-1, 1]);
        let int = DataType::Int32;
        Self(
            [spec("INPUT", int), spec("n", int)],
            [
                spec("OUTPUT", int),
                spec("next", int),
                spec("more", DataType::Bool),
            ],
        )
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
        let asked = call.inputs[0].elements::<i32>().expect("aligned");
        let next: Vec<i32> = call.inputs[1]
            .elements::<i32>()
            .expect("aligned")
            .iter()
            .map(|n| n + 1)
            .collect();
        let more: Vec<u8> = asked
            .iter()
            .zip(&next)
            .map(|(asked, n)| u8::from(n < asked))
            .collect();
        let shape = call.inputs[0].shape.clone();
        let outputs = call.wanted.iter().map(|index| match index {
            2 => Tensor::from_elements("more", DataType::Bool, shape.clone(), more.clone()),
            _ => Tensor::from_elements("OUTPUT", DataType::Int32, shape.clone(), next.clone()),
        });
        Ok(outputs.collect::<Result<_, _>>().expect("as many"))
    }
}

#[tokio::test]
async fn states_kept_by_the_server_go_from_run_to_run() {
    let text = |more: &str| {
        format!(
            r#"backend: "adder" max_batch_size: 4
            input {{ name: "INPUT" data_type: TYPE_INT32 dims: 1 }}
            output {{ name: "OUTPUT" data_type: TYPE_INT32 dims: 1 }}
            instance_group {{ count: 1 kind: KIND_CPU }} {DECOUPLED}
            sequence_batching {{ iterative_sequence: true
                state {{ input_name: "n" output_name: "next" data_type: TYPE_INT32 dims: 1 }} }}
            {more}"#
        )
    };
    let named = |name: &str| {
        text(&format!(
            "parameters {{ key: \"kapok.sequence.reschedule\" value {{ string_value: \"{name}\" }} }}"
        ))
    };
    let root = repository(&[
        ("m/config.pbtxt", &named("more")),
        ("once/config.pbtxt", &text("")),
        ("typo/config.pbtxt", &named("mor")),
        ("wrong/config.pbtxt", &named("next")),
    ]);
    let (runtime, _) = start(
        config(&[root.path()]),
        [Arc::new(Adder::new()) as Arc<dyn Engine>],
    )
    .await;
    for _ in 0..2 {
        assert_eq!(answers(&runtime, ask(4)).await, [1, 2, 3, 4]);
    }
    // Without a flag each request is over after its first run.
    let once = InferRequest {
        model: "once".to_owned(),
        ..ask(4)
    };
    assert_eq!(answers(&runtime, once).await, [1]);
    let index = runtime.index();
    for (model, reason) in [
        ("typo", "`sequence.reschedule` names `mor`"),
        ("wrong", "must be BOOL"),
    ] {
        let entry = index.iter().find(|entry| entry.name == model);
        let said = &entry.expect("known").reason;
        assert!(said.contains(reason), "{said}");
    }
}
