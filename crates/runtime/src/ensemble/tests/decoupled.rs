use std::time::Duration;

use telemetry::metrics::Registry;

use super::*;
use crate::testing::{REPEAT, outs, repeat};

fn square(more: &str) -> String {
    format!(
        r#"backend: "square" model_transaction_policy {{ decoupled: true }}
        input {{ name: "IN" data_type: TYPE_INT32 dims: 1 }}
        output {{ name: "OUT" data_type: TYPE_INT32 dims: 1 }}
        instance_group {{ count: 1 kind: KIND_CPU }} {more}"#
    )
}

/// As `repeat` takes and gives.
fn repeating(steps: &[&str]) -> String {
    r#"platform: "ensemble"
    input [{ name: "IN" data_type: TYPE_INT32 dims: -1 }, { name: "DELAY" data_type: TYPE_UINT32 dims: -1 },
        { name: "WAIT" data_type: TYPE_UINT32 dims: 1 }]
    output { name: "OUT" data_type: TYPE_INT32 dims: 1 }
    "#
    .to_owned()
        + &scheduling(steps)
}

const FIRST: &str = "repeat: IN=IN, DELAY=DELAY, WAIT=WAIT -> OUT=repeated";

async fn start_with(more: &[(&str, &str)]) -> (Runtime, TempDir, Registry) {
    let plain = square("");
    let mut files = vec![
        ("repeat/config.pbtxt", REPEAT),
        ("square/config.pbtxt", &plain),
    ];
    files.extend(more);
    let root = models(&files);
    let (runtime, registry) = start(config(&[root.path()]), double::engines()).await;
    (runtime, root, registry)
}

fn idle(runtime: &Runtime, model: &str) -> bool {
    let model = runtime.model(model, None).expect("ready");
    model.by_engine().expect("an engine").queue.idle() == 1
}

#[tokio::test]
async fn each_answer_of_a_member_flows_through_the_steps_behind_it() {
    let simple = repeating(&["repeat: IN=IN, DELAY=DELAY, WAIT=WAIT -> OUT=OUT"]);
    let doubled = "double: in=repeated -> out=OUT";
    let fan = [
        FIRST,
        "identity: in=repeated -> out=same",
        "pair: in0=repeated, in1=same -> out1=paired",
        "double: in=paired -> out=OUT",
    ];
    let before = [
        "double: in=IN -> out=twice",
        "repeat: IN=twice, DELAY=DELAY, WAIT=WAIT -> OUT=OUT",
    ];
    let nested = "simple: IN=IN, DELAY=DELAY, WAIT=WAIT -> OUT=repeated";
    let squared = "square: IN=repeated -> OUT=OUT";
    let (runtime, _root, registry) = start_with(&[
        ("simple/config.pbtxt", &simple),
        ("doubled/config.pbtxt", &repeating(&[FIRST, doubled])),
        ("fan/config.pbtxt", &repeating(&fan[..])),
        ("before/config.pbtxt", &repeating(&before)),
        ("squared/config.pbtxt", &repeating(&[FIRST, squared])),
        ("nested/config.pbtxt", &repeating(&[nested, squared])),
    ])
    .await;
    for (model, asked, expected) in [
        ("simple", &[4, 5, 6][..], &[4, 5, 6][..]),
        ("simple", &[], &[]),
        ("doubled", &[4, 5, 6], &[8, 10, 12]),
        ("fan", &[1, 2], &[2, 4]),
        ("before", &[1, 2], &[2, 4]),
        ("squared", &[1, 0, 3, 2], &[1, 3, 3, 3, 2, 2]),
        ("nested", &[2, 1], &[2, 2, 1]),
    ] {
        let delays: Vec<u32> = asked.iter().map(|_| 1).collect();
        let answered = outs(&runtime, repeat(model, asked, &delays)).await;
        assert_eq!(answered, (expected.to_vec(), None), "{model}");
    }
    let config = runtime.config("nested", None).expect("known");
    assert!(config.model_transaction_policy.expect("said").decoupled);
    assert!(runtime.traits("nested", None).expect("known").decoupled);
    let error = infer(&runtime, repeat("nested", &[1], &[0])).await;
    let error = error.expect_err("it streams");
    assert_eq!(
        error.message,
        "ModelInfer RPC doesn't support models with decoupled transaction policy"
    );
    let text = registry.encode();
    for (model, answered) in [("simple", 2), ("squared", 1), ("nested", 1), ("repeat", 6)] {
        // Nothing was said to the second request of `simple`, which is a member of `nested`, too.
        let count = format!("nv_inference_first_response_histogram_ms_count{{model=\"{model}\",");
        let found = text.lines().find_map(|line| line.strip_prefix(&count));
        assert_eq!(
            found,
            Some(&*format!("version=\"1\"}} {answered}")),
            "{model}"
        );
    }
    let statistics = &runtime.statistics(Some("squared"), None).expect("known")[0];
    assert_eq!(statistics.inference_count, 1);
    assert_eq!(statistics.response_stats.len(), 6);
}

#[tokio::test]
async fn what_nobody_has_asked_for_is_not_made_and_who_leaves_frees_everything() {
    let doubled = repeating(&[FIRST, "double: in=repeated -> out=OUT"]);
    let (runtime, _root, _) = start_with(&[("doubled/config.pbtxt", &doubled)]).await;
    let values: Vec<i32> = (0..1000).collect();
    let request = repeat("doubled", &values, &[0; 1000]);
    let mut stream = runtime.stream(request, far()).await.expect("begins");
    assert!(idle(&runtime, "repeat"), "nobody has asked");
    for _ in 0..3 {
        let answer = stream.next().await.expect("no error").expect("an answer");
        drop(answer);
    }
    // One that waits to be taken, and one on its way.
    assert!(executions(&runtime, "double") <= 5);
    assert!(!idle(&runtime, "repeat"));
    drop(stream);
    until("the lane is free", || idle(&runtime, "repeat")).await;

    let request = repeat("doubled", &[1, 2], &[0, 3_600_000]);
    let mut stream = runtime.stream(request, far()).await.expect("begins");
    assert!(stream.next().await.expect("no error").is_some());
    let waiting = tokio::time::timeout(Duration::from_millis(5), stream.next()).await;
    assert!(waiting.is_err());
    drop(stream);
    until("the lane is free", || idle(&runtime, "repeat")).await;
}

#[tokio::test]
async fn answers_before_an_error_come_before_it() {
    let failing = square("parameters { key: \"CUSTOM_FAIL_COUNT\" value { string_value: \"1\" } }");
    let both = [FIRST, "failing: IN=repeated -> OUT=OUT"];
    let (runtime, _root, _) = start_with(&[
        ("failing/config.pbtxt", &failing),
        ("both/config.pbtxt", &repeating(&both)),
    ])
    .await;
    let (answered, error) = outs(&runtime, repeat("both", &[3, 2], &[0, 0])).await;
    assert_eq!(answered, [3, 3]);
    let message = error.expect("it fails").message;
    assert!(
        message.contains("step 1") && message.contains("failing"),
        "{message}"
    );
    until("both lanes are free", || {
        idle(&runtime, "repeat") && idle(&runtime, "failing")
    })
    .await;
}

#[tokio::test]
async fn what_comes_differently_often_cannot_be_put_together() {
    let mixed = [
        FIRST,
        "identity: in=IN -> out=once",
        "pair: in0=repeated, in1=once -> out1=OUT",
    ];
    let fan = [FIRST, "square: IN=repeated -> OUT=OUT"];
    let (runtime, _root, _) = start_with(&[
        ("mixed/config.pbtxt", &repeating(&mixed)),
        ("fan/config.pbtxt", &repeating(&fan)),
        (
            "fan/kapok.toml",
            "[[pipeline.fan_out]]\nstep = \"square\"\nover = [\"repeated\"]\n",
        ),
    ])
    .await;
    for (model, reason) in [
        (
            "mixed",
            "receives inputs originated from different decoupled models",
        ),
        (
            "fan",
            "runs once per item, and its model 'square' answers any number of times",
        ),
    ] {
        let (state, said) = standing(&runtime, model);
        assert_eq!(state, ModelState::Unavailable, "{model}");
        assert!(said.contains(reason), "{said}");
    }
}
