use std::sync::Arc;

use protocol::LoadRequest;
use protocol::resource::ModelControl;

use super::*;
use crate::Config;

fn explicit(root: &TempDir, models: &[&str]) -> Config {
    Config {
        control: ModelControl::Explicit,
        load_models: models.iter().map(|model| (*model).to_owned()).collect(),
        ..config(&[root.path()])
    }
}

fn load(model: &str) -> LoadRequest {
    LoadRequest {
        model: model.to_owned(),
        ..LoadRequest::default()
    }
}

fn states(runtime: &Runtime, models: &[&str]) -> Vec<bool> {
    let ready = |model: &&str| standing(runtime, model).0 == ModelState::Ready;
    models.iter().map(ready).collect()
}

#[tokio::test]
async fn an_ensemble_brings_its_members_and_takes_them_along() {
    let over = |member: &str| ensemble(&["x"], &["y"], &[&format!("{member} -> out=y")]);
    let outer = ensemble(&["x"], &["y"], &["e: x=x -> y=m", "double: in=m -> out=y"]);
    let root = models(&[
        ("e/config.pbtxt", &over("identity: in=x")),
        ("outer/config.pbtxt", &outer),
        ("other/config.pbtxt", &over("double: in=x")),
        ("lame/config.pbtxt", &over("bad: in=x")),
        ("bad/config.pbtxt", &builtin("nothing", "")),
    ]);
    let all = ["double", "e", "identity", "outer", "pair"];
    let (runtime, _) = start(explicit(&root, &["outer"]), double::engines()).await;
    assert_eq!(states(&runtime, &all), [true, true, true, true, false]);
    assert!(runtime.ready(), "{:?}", runtime.index());

    runtime.unload("outer", true).await.expect("unloads");
    assert_eq!(states(&runtime, &all), [false; 5]);
    until("all are free", || {
        let gone = |model: &&str| standing(&runtime, model).1 == "unloaded";
        all[..4].iter().all(gone)
    })
    .await;

    for model in ["outer", "other"] {
        runtime.load(load(model)).await.expect("loads");
    }
    assert_eq!(states(&runtime, &all), [true, true, true, true, false]);
    let (response, _) = infer(&runtime, ask("outer", &[("x", &[5])], &[]))
        .await
        .expect("answers");
    assert_eq!(values(&response, "y"), [10]);

    runtime.unload("outer", true).await.expect("unloads");
    let left = states(&runtime, &["double", "e", "identity", "other"]);
    assert_eq!(left, [true, false, false, true], "`other` needs `double`");
    runtime.unload("double", false).await.expect("unloads");
    let (state, reason) = standing(&runtime, "other");
    assert_eq!(state, ModelState::Unavailable);
    assert!(
        reason.contains("'double' which has no loaded version"),
        "{reason}"
    );

    let error = runtime.load(load("lame")).await.expect_err("no member");
    let said =
        "failed to load 'lame', ensemble 'lame' depends on 'bad' which has no loaded version";
    assert!(error.message.starts_with(said), "{error}");
}

#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "a caller that the test can abort"
)]
async fn sleeping_members_are_loaded_together_and_stay_while_the_request_runs() {
    let slow = builtin(
        "identity",
        "parameters { key: \"execute_delay_ms\" value { string_value: \"60000\" } }",
    );
    let chain = |first: &str, second: &str| {
        ensemble(
            &["x"],
            &["y"],
            &[
                &format!("{first}: in=x -> out=m"),
                &format!("{second}: in=m -> out=y"),
            ],
        )
    };
    let root = models(&[
        ("slow/config.pbtxt", &slow),
        ("e/config.pbtxt", &chain("double", "identity")),
        ("held/config.pbtxt", &chain("slow", "double")),
        ("wide/config.pbtxt", &chain("double", "pair_")),
        ("pair_/config.pbtxt", &builtin("identity", "")),
    ]);
    let weigh = |model: &str, mib: usize| {
        let folder = root.path().join(model).join("1");
        std::fs::create_dir_all(&folder).expect("creates");
        std::fs::write(folder.join("weights.bin"), "x".repeat(mib << 20)).expect("writes");
    };
    for (model, mib) in [("double", 6), ("identity", 6), ("slow", 6), ("pair_", 11)] {
        weigh(model, mib);
    }
    let settings = Config {
        memory_budget: Some(16 << 20),
        ..config(&[root.path()])
    };
    let (runtime, _) = start(settings, double::engines()).await;
    assert!(runtime.model("double", None).is_err(), "asleep");
    for _ in 0..3 {
        let (response, _) = infer(&runtime, ask("e", &[("x", &[3])], &[]))
            .await
            .expect("both members fit");
        assert_eq!(values(&response, "y"), [6]);
    }
    let error = infer(&runtime, ask("wide", &[("x", &[3])], &[]))
        .await
        .expect_err("its members do not fit together");
    assert_eq!(error.code, Some("no_memory"), "{error}");

    let own = runtime.clone();
    let held = tokio::spawn(async move { infer(&own, ask("held", &[("x", &[1])], &[])).await });
    until("its first step runs", || {
        let slow = runtime.model("slow", None);
        slow.is_ok_and(|model| Arc::strong_count(&model) > 2)
    })
    .await;
    // `double` runs only after `slow`, and is held all the same.
    let error = infer(&runtime, ask("e", &[("x", &[3])], &[])).await;
    assert_eq!(error.expect_err("no room").code, Some("no_memory"));
    assert!(runtime.model("double", None).is_ok());
    held.abort();
    let _aborted = held.await;
    infer(&runtime, ask("e", &[("x", &[3])], &[]))
        .await
        .expect("there is room again");
}

#[tokio::test]
async fn an_optional_input_may_be_left_out() {
    let optional = |text: &str, input: &str| {
        let plain = format!("input {{ name: \"{input}\"");
        let marked = format!("input {{ optional: true name: \"{input}\"");
        text.replace(&plain, &marked)
    };
    let text = ensemble(&["x", "z"], &["y"], &["pair: in0=x, in1=z -> out0=y"]);
    let member = optional(&pair(), "in1");
    let root = models(&[("e/config.pbtxt", &optional(&text, "z"))]);
    std::fs::write(root.path().join("pair/config.pbtxt"), member).expect("writes");
    let (runtime, _) = start(config(&[root.path()]), double::engines()).await;
    for inputs in [&[("x", &[4][..])][..], &[("x", &[4]), ("z", &[5])]] {
        let (response, _) = infer(&runtime, ask("e", inputs, &[]))
            .await
            .expect("answers");
        assert_eq!(values(&response, "y"), [4]);
    }
    let error = infer(&runtime, ask("e", &[("z", &[5])], &[])).await;
    assert_eq!(error.expect_err("`x` is needed").kind, ErrorKind::Invalid);
}
