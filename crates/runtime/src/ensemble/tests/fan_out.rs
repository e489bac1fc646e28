use super::*;

/// Items are rows of `items`: a step runs `member` on each.
fn pipeline(member: &str, more: &str, item_dims: &str) -> TempDir {
    let io = |side: &str, name: &str, dims: &str| {
        format!("{side} {{ name: \"{name}\" data_type: TYPE_INT32 dims: {dims} }}\n")
    };
    let text = "platform: \"ensemble\"\n".to_owned()
        + &io("input", "items", &format!("[-1, {item_dims}]"))
        + &io("output", "found", &format!("[-1, {item_dims}]"))
        + &scheduling(&["each: in=items -> out=found"]);
    let member = format!("{member}\n")
        + &io("input", "in", &format!("[{item_dims}]"))
        + &io("output", "out", &format!("[{item_dims}]"));
    let sidecar = format!("[[pipeline.fan_out]]\nstep = \"each\"\nover = [\"items\"]\n{more}");
    repository(&[
        ("e/config.pbtxt", &text),
        ("e/kapok.toml", &sidecar),
        ("each/config.pbtxt", &member),
    ])
}

fn items(count: usize) -> InferRequest {
    let values: Vec<i32> = (0..count * 2)
        .map(|value| i32::try_from(value).expect("small"))
        .collect();
    let tensor = Tensor::from_elements("items", DataType::Int32, vec![count, 2], values);
    InferRequest {
        model: "e".to_owned(),
        inputs: vec![tensor.expect("two each")],
        ..InferRequest::default()
    }
}

#[tokio::test]
async fn each_item_is_one_call_and_the_order_is_kept() {
    for (member, calls) in [
        ("backend: \"double\"", 5),
        ("backend: \"double\" max_batch_size: 2", 3),
        ("backend: \"double\" max_batch_size: 8", 1),
    ] {
        let root = pipeline(member, "", "2");
        let (runtime, _) = start(config(&[root.path()]), double::engines()).await;
        assert_eq!(standing(&runtime, "e"), (ModelState::Ready, String::new()));
        let (response, _) = infer(&runtime, items(5)).await.expect("answers");
        assert_eq!(response.outputs[0].shape, [5, 2], "{member}");
        let expected: Vec<i32> = (0..10).map(|value| value * 2).collect();
        assert_eq!(values(&response, "found"), expected, "{member}");
        assert_eq!(executions(&runtime, "each"), calls, "{member}");
    }
}

#[tokio::test]
async fn no_items_give_an_empty_output_and_no_call() {
    let root = pipeline("backend: \"double\" max_batch_size: 2", "", "2");
    let (runtime, _) = start(config(&[root.path()]), double::engines()).await;
    let (response, _) = infer(&runtime, items(0)).await.expect("answers");
    assert_eq!(response.outputs[0].shape, [0, 2]);
    assert_eq!(executions(&runtime, "each"), 0);
}

#[tokio::test]
async fn too_many_items_are_refused_by_name() {
    let root = pipeline("backend: \"double\"", "max_items = 4\n", "2");
    let (runtime, _) = start(config(&[root.path()]), double::engines()).await;
    infer(&runtime, items(4)).await.expect("four are fine");
    let error = infer(&runtime, items(5)).await.expect_err("five are not");
    assert_eq!(
        error.message,
        "in ensemble 'e', step 0 (model 'each'): 5 items, `max_items` of the pipeline is 4"
    );
}

/// No bytes are as many items as a client likes to claim, when an item has none.
#[tokio::test]
async fn items_that_are_only_claimed_are_not_counted_out() {
    let root = pipeline("backend: \"double\"", "", "-1");
    let (runtime, _) = start(config(&[root.path()]), double::engines()).await;
    let mut request = items(0);
    request.inputs[0].shape = vec![1 << 36, 0];
    let error = infer(&runtime, request).await.expect_err("far too many");
    assert!(
        error.message.contains("68719476736 items"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn items_in_flight_stay_within_their_bound() {
    let root = pipeline("backend: \"identity\"", "in_flight = 1\n", "2");
    let (runtime, _) = start(config(&[root.path()]), double::engines()).await;
    let (response, timing) = infer(&runtime, items(200)).await.expect("answers");
    assert_eq!(response.outputs[0].shape, [200, 2]);
    assert!(timing.total() > std::time::Duration::ZERO);
    let model = runtime.model("e", None).expect("ready");
    let ensemble = model.ensemble().expect("an ensemble");
    let gate = ensemble.gates[0].as_ref().expect("a bound");
    assert_eq!(gate.free(), 1, "nobody is left inside");
}

#[tokio::test]
async fn wrong_words_in_the_pipeline_are_named() {
    for (more, expected) in [
        (
            "[[pipeline.fan_out]]\nstep = \"nobody\"\nover = [\"items\"]\n",
            "there is no step `nobody`",
        ),
        (
            "[[pipeline.fan_out]]\nstep = \"0\"\nover = [\"found\"]\n",
            "reads no tensor `found`",
        ),
    ] {
        let root = pipeline("backend: \"double\"", more, "2");
        let (runtime, _) = start(config(&[root.path()]), double::engines()).await;
        let (state, reason) = standing(&runtime, "e");
        assert_eq!(state, ModelState::Unavailable);
        assert!(reason.contains(expected), "{reason}");
    }
}

/// Requests, items and executions of the member.
fn counts(runtime: &Runtime) -> (u64, u64, u64) {
    let statistics = runtime.statistics(Some("each"), None).expect("known");
    let stats = statistics[0].inference_stats.expect("counted");
    let requests = stats.success.map_or(0, |success| success.count);
    (
        requests,
        statistics[0].inference_count,
        statistics[0].execution_count,
    )
}

#[tokio::test]
async fn the_member_s_batcher_joins_items_of_several_requests() {
    let dynamic =
        "dynamic_batching { preferred_batch_size: 8 max_queue_delay_microseconds: 50000 }";
    for (batching, slo) in [(dynamic, ""), ("", "[slo]\np99_ms = 200\n")] {
        let member = format!("backend: \"double\" max_batch_size: 8 {batching}");
        let root = pipeline(&member, "", "2");
        std::fs::write(root.path().join("each/kapok.toml"), slo).expect("writes");
        let mut config = config(&[root.path()]);
        config.queue_max = 64;
        let (runtime, _) = start(config, double::engines()).await;
        let before = counts(&runtime);
        let ask = || infer(&runtime, items(6));
        let (a, b, c, d) = tokio::join!(ask(), ask(), ask(), ask());
        for answer in [a, b, c, d] {
            let (response, _) = answer.expect("answers");
            let expected: Vec<i32> = (0..12).map(|value| value * 2).collect();
            assert_eq!(values(&response, "found"), expected);
        }
        let after = counts(&runtime);
        assert_eq!(after.0 - before.0, 24, "{batching}{slo}: a call per item");
        assert_eq!(after.1 - before.1, 24, "{batching}{slo}");
        let executions = after.2 - before.2;
        // With a target nothing waits for company while a lane is free, and one may be before each.
        assert!(
            executions < 24 || !slo.is_empty(),
            "{batching}: {executions} for 24 items"
        );
    }
}
