use super::*;

/// As often as its input says.
fn squares(lanes: usize) -> String {
    squares_for(lanes, 60_000_000)
}

fn squares_for(lanes: usize, idle_us: u64) -> String {
    format!(
        r#"backend: "square" max_batch_size: 4
        input {{ name: "IN" data_type: TYPE_INT32 dims: 1 }}
        output {{ name: "OUT" data_type: TYPE_INT32 dims: 1 }}
        model_transaction_policy {{ decoupled: true }}
        instance_group {{ count: {lanes} kind: KIND_CPU }}
        sequence_batching {{ direct {{ }} max_sequence_idle_microseconds: {idle_us} }}"#
    )
}

fn ask(value: i32, id: u64, flags: (bool, bool)) -> InferRequest {
    let mut request = one(value, id, flags);
    if let Some(input) = request.inputs.first_mut() {
        "IN".clone_into(&mut input.name);
    }
    request
}

async fn answers(runtime: &Runtime, request: InferRequest) -> Result<Vec<i32>, String> {
    let stream = runtime.stream(request, far()).await;
    let mut stream = stream.map_err(|error| error.message)?;
    let mut answers = Vec::new();
    while let Some(answer) = stream.next().await.map_err(|error| error.message)? {
        let output = answer.response.outputs[0].elements::<i32>();
        answers.extend_from_slice(output.expect("aligned"));
    }
    Ok(answers)
}

#[tokio::test]
async fn each_request_of_a_sequence_is_answered_as_often_as_its_model_likes() {
    let (runtime, _root) = runtime(&squares(1)).await;
    let refused = answers(&runtime, ask(1, 7, MORE))
        .await
        .expect_err("not begun");
    assert!(refused.contains("START flag"), "{refused}");
    for (value, flags) in [(3, START), (0, MORE), (9, MORE), (1, END)] {
        let count = usize::try_from(value).expect("small");
        assert_eq!(
            answers(&runtime, ask(value, 7, flags)).await,
            Ok(vec![value; count])
        );
    }
    let sequencer = sequencer(&runtime);
    until("its slot is free", || sequencer.held() == (0, 0)).await;
    let statistics = &runtime.statistics(Some("m"), None).expect("known")[0];
    assert_eq!(
        (statistics.inference_count, statistics.execution_count),
        (4, 4)
    );
}

#[tokio::test]
async fn a_slow_reader_holds_its_lane_alone_and_who_leaves_ends_the_sequence() {
    let (runtime, _root) = runtime(&squares(2)).await;
    let mut slow = runtime
        .stream(ask(1000, 1, START), far())
        .await
        .expect("begins");
    assert!(slow.next().await.expect("no error").is_some());
    assert_eq!(
        answers(&runtime, ask(2, 2, (true, true))).await,
        Ok(vec![2, 2])
    );
    drop(slow);
    let sequencer = sequencer(&runtime);
    until("its slot is free", || sequencer.held() == (0, 0)).await;
    let refused = answers(&runtime, ask(1, 1, MORE)).await.expect_err("ended");
    assert!(refused.contains("START flag"), "{refused}");
}

#[tokio::test]
async fn who_waits_for_a_lane_gets_it_when_the_sequence_there_falls_silent() {
    let (runtime, _root) = runtime(&squares_for(1, 100_000)).await;
    assert_eq!(answers(&runtime, ask(1, 1, START)).await, Ok(vec![1]));
    // One row of its own, though the largest batch is four; nobody else asks meanwhile.
    assert_eq!(answers(&runtime, ask(2, 2, START)).await, Ok(vec![2, 2]));
    let refused = answers(&runtime, ask(1, 1, MORE)).await.expect_err("ended");
    assert!(refused.contains("START flag"), "{refused}");
}

#[tokio::test]
async fn states_and_sums_go_on_from_answer_to_request() {
    let text = configured(
        "sequence",
        4,
        "direct { }",
        "model_transaction_policy { decoupled: true }",
    );
    let (runtime, _root) = runtime(&text).await;
    for (value, flags, sum) in [(1, START, 1), (2, MORE, 3), (4, END, 7)] {
        assert_eq!(answers(&runtime, one(value, 5, flags)).await, Ok(vec![sum]));
    }
}
