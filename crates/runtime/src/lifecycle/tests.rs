use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use base::ErrorKind;
use protocol::ModelState;

use super::*;
use crate::testing::{Fake, begin, builtin, config, far, floats, ints, repository, start, until};
use crate::{Config, Runtime};

mod configured;
mod density;

fn states(runtime: &Runtime) -> Vec<(String, String, ModelState, String)> {
    let line = |entry: protocol::IndexEntry| (entry.name, entry.version, entry.state, entry.reason);
    runtime.index().into_iter().map(line).collect()
}

fn state(runtime: &Runtime, version: &str) -> (ModelState, String) {
    let found = states(runtime).into_iter().find(|line| line.1 == version);
    let (_, _, state, reason) = found.expect("in the index");
    (state, reason)
}

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("creates");
    fs::write(path, content).expect("writes");
}

/// What the fake model makes of 1: twice that, plus the offset in its file.
async fn answer(runtime: &Runtime) -> f32 {
    let (response, _) = runtime
        .infer(floats("m", [1.0, 0.0]), far())
        .await
        .expect("answers");
    response.outputs[0].elements::<f32>().expect("floats")[0]
}

fn load(model: &str) -> LoadRequest {
    LoadRequest {
        model: model.to_owned(),
        ..LoadRequest::default()
    }
}

fn explicit(root: &Path) -> Config {
    Config {
        control: ModelControl::Explicit,
        load_models: vec!["*".to_owned()],
        ..config(&[root])
    }
}

#[tokio::test]
async fn a_client_loads_and_unloads_and_the_index_tells_each_step() {
    let root = repository(&[("m/1/model.onnx", "ok"), ("other/1/model.onnx", "ok")]);
    let fake = Fake::new("onnxruntime");
    let settings = Config {
        load_models: vec!["other".to_owned()],
        ..explicit(root.path())
    };
    let (runtime, registry) = start(settings, [fake.engine()]).await;
    let unavailable = ModelState::Unavailable;
    assert_eq!(
        states(&runtime)[0],
        ("m".into(), "1".into(), unavailable, "not loaded".into())
    );
    assert!(runtime.ready(), "what nobody wants is not missing");
    runtime.load(load("m")).await.expect("loads");
    assert!((answer(&runtime).await - 2.0).abs() < 1e-6);
    runtime.unload("m", false).await.expect("unloads");
    until("the model is free", || state(&runtime, "1").1 == "unloaded").await;
    let error = runtime
        .infer(floats("m", [0.0; 2]), far())
        .await
        .expect_err("unloaded");
    assert!(
        error.message.contains("has no available versions"),
        "{}",
        error.message
    );
    let text = registry.encode();
    let left: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("model=\"m\""))
        .collect();
    assert!(
        left.is_empty(),
        "an unloaded model is not counted: {left:?}"
    );
    assert!(runtime.ready());
    for (model, said) in [
        (
            "nobody",
            "failed to load 'nobody', failed to poll from model repository",
        ),
        (
            "../m",
            "failed to load '../m', failed to poll from model repository",
        ),
    ] {
        let error = runtime.load(load(model)).await.expect_err("not there");
        assert_eq!(
            (error.kind, error.message.as_str()),
            (ErrorKind::NotFound, said)
        );
    }
    write(root.path(), "m/1/model.onnx", "broken");
    let error = runtime.load(load("m")).await.expect_err("broken");
    assert!(
        error.message.starts_with("failed to load 'm', "),
        "{}",
        error.message
    );
    assert!(!runtime.ready());
}

#[tokio::test]
async fn polling_and_clients_exclude_each_other() {
    let root = repository(&[("m/1/model.onnx", "ok")]);
    for control in [ModelControl::None, ModelControl::Poll] {
        let settings = Config {
            control,
            ..config(&[root.path()])
        };
        let (runtime, _) = start(settings, [Fake::new("onnxruntime").engine()]).await;
        for outcome in [
            runtime.load(load("m")).await,
            runtime.unload("m", false).await,
        ] {
            let error = outcome.expect_err("not allowed");
            let said = "explicit model load / unload is not allowed if polling is enabled";
            assert_eq!(
                (error.kind, error.message.as_str()),
                (ErrorKind::Unavailable, said)
            );
        }
    }
}

#[tokio::test]
async fn what_cannot_be_loaded_leaves_what_serves() {
    let root = repository(&[("m/1/model.onnx", "plus 1")]);
    let fake = Fake::new("onnxruntime");
    let (runtime, registry) = start(explicit(root.path()), [fake.engine()]).await;
    // The same number again, then another.
    for (path, content, refused) in [
        ("m/1/model.onnx", "broken", "the file is broken"),
        ("m/kapok.toml", "engin = 1", "engin"),
        (
            "m/kapok.toml",
            "[integrity]\nrequired = true",
            "asks for a manifest",
        ),
    ] {
        write(root.path(), path, content);
        runtime.load(load("m")).await.expect_err(content);
        let (state, reason) = state(&runtime, "1");
        assert_eq!(state, ModelState::Ready, "{content}");
        assert!(
            reason.starts_with("not replaced: ") && reason.contains(refused),
            "{reason}"
        );
        assert!((answer(&runtime).await - 3.0).abs() < 1e-6);
    }
    write(root.path(), "m/kapok.toml", "");
    write(root.path(), "m/2/model.onnx", "broken");
    runtime.load(load("m")).await.expect_err("broken");
    assert_eq!(state(&runtime, "1").0, ModelState::Ready);
    assert_eq!(state(&runtime, "2").0, ModelState::Unavailable);
    assert!(runtime.ready() && state(&runtime, "2").1.contains("broken"));
    write(root.path(), "m/2/model.onnx", "plus 2");
    runtime.load(load("m")).await.expect("loads");
    assert!((answer(&runtime).await - 4.0).abs() < 1e-6);
    assert_eq!(
        state(&runtime, "1"),
        (ModelState::Unavailable, "unloaded".to_owned())
    );
    let text = registry.encode();
    assert!(
        text.contains("kapok_model_swaps_total{outcome=\"refused\"} 4"),
        "{text}"
    );
    assert!(
        text.contains("kapok_model_swaps_total{outcome=\"swapped\"} 1"),
        "{text}"
    );
}

#[tokio::test]
async fn the_previous_version_comes_back_at_once() {
    let root = repository(&[("m/1/model.onnx", "plus 1")]);
    let fake = Fake::new("onnxruntime");
    let (runtime, _) = start(explicit(root.path()), [fake.engine()]).await;
    runtime
        .roll_back("m")
        .await
        .expect_err("nothing came before");
    write(root.path(), "m/2/model.onnx", "plus 2");
    runtime.load(load("m")).await.expect("loads");
    let loads = fake.loads.load(Ordering::SeqCst);
    runtime.roll_back("m").await.expect("comes back");
    assert_eq!(
        fake.loads.load(Ordering::SeqCst),
        loads,
        "it never left memory"
    );
    assert!((answer(&runtime).await - 3.0).abs() < 1e-6);
    assert_eq!(state(&runtime, "2").1, "rolled back: by request");
    runtime.load(load("m")).await.expect("loads again");
    assert!((answer(&runtime).await - 4.0).abs() < 1e-6);
}

#[tokio::test]
async fn a_version_that_fails_its_requests_is_rolled_back_by_itself() {
    let toml = "[swap]\nmin_requests = 20";
    let root = repository(&[("m/1/model.onnx", "ok"), ("m/kapok.toml", toml)]);
    let fake = Fake::new("onnxruntime");
    let (runtime, registry) = start(explicit(root.path()), [fake.engine()]).await;
    write(root.path(), "m/2/model.onnx", "fails on 7");
    runtime
        .load(load("m"))
        .await
        .expect("fits, as far as anybody knows");
    let mut failed = 0;
    while runtime.infer(floats("m", [7.0, 0.0]), far()).await.is_err() {
        failed += 1;
        assert!(failed < 1000, "never rolled back");
        tokio::task::yield_now().await;
    }
    assert!(failed >= 4);
    let (state, reason) = state(&runtime, "2");
    assert_eq!(state, ModelState::Unavailable);
    assert!(
        reason.starts_with("rolled back: ") && reason.ends_with("calls failed"),
        "{reason}"
    );
    assert!(
        registry
            .encode()
            .contains("kapok_model_swaps_total{outcome=\"rolled_back\"} 1")
    );
}

#[tokio::test]
async fn a_version_that_disagrees_or_is_slower_on_the_last_requests_is_refused() {
    let toml = "[swap]\ncompare = 4\nmax_p99_regression = 1.5";
    let root = repository(&[("m/1/model.onnx", "plus 1"), ("m/kapok.toml", toml)]);
    let fake = Fake::new("onnxruntime");
    let (runtime, _) = start(explicit(root.path()), [fake.engine()]).await;
    answer(&runtime).await;
    for (content, said) in [
        ("plus 3", "disagrees"),
        ("fails on 1", "it fails on a request"),
    ] {
        write(root.path(), "m/2/model.onnx", content);
        let error = runtime.load(load("m")).await.expect_err(content);
        assert!(error.message.contains(said), "{}", error.message);
        assert!((answer(&runtime).await - 3.0).abs() < 1e-6);
    }
    write(root.path(), "m/2/model.onnx", "plus 1.0001");
    runtime
        .load(load("m"))
        .await
        .expect("agrees within the tolerance");

    let delay = |ms: u32| {
        let key = format!(
            "parameters {{ key: \"execute_delay_ms\" value {{ string_value: \"{ms}\" }} }}"
        );
        builtin("identity", &key)
    };
    let root = repository(&[("m/config.pbtxt", &delay(0)), ("m/kapok.toml", toml)]);
    let (runtime, _) = start(explicit(root.path()), []).await;
    runtime
        .infer(ints("m", &[1]), far())
        .await
        .expect("answers");
    write(root.path(), "m/config.pbtxt", &delay(50));
    let error = runtime.load(load("m")).await.expect_err("slower");
    assert!(
        error.message.contains("slower than the version before: 50"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn the_requests_of_streams_are_compared_as_well() {
    let toml = "[swap]\ncompare = 4";
    let decoupled = "model_transaction_policy { decoupled: true }";
    let root = repository(&[
        ("m/1/model.onnx", "plus 1"),
        ("m/kapok.toml", toml),
        ("m/config.pbtxt", decoupled),
    ]);
    let fake = Fake::new("onnxruntime");
    let (runtime, _) = start(explicit(root.path()), [fake.engine()]).await;
    let first = async || {
        let stream = runtime.stream(floats("m", [1.0, 0.0]), far()).await;
        let answer = stream.expect("begins").next().await.expect("answers");
        answer.expect("one").response.outputs[0]
            .elements::<f32>()
            .expect("floats")[0]
    };
    assert!((first().await - 3.0).abs() < 1e-6);
    write(root.path(), "m/2/model.onnx", "plus 3");
    let error = runtime.load(load("m")).await.expect_err("another answer");
    assert!(error.message.contains("disagrees"), "{}", error.message);
    write(root.path(), "m/2/model.onnx", "plus 1.0001");
    runtime.load(load("m")).await.expect("agrees");
    assert!((first().await - 3.0).abs() < 1e-2);
}

#[tokio::test]
async fn versions_have_names_and_serve_side_by_side() {
    let toml = "[versions]\nlabels = { stable = 1, canary = 2, gone = 9 }";
    let root = repository(&[
        ("m/1/model.onnx", "plus 1"),
        ("m/2/model.onnx", "plus 2"),
        ("m/config.pbtxt", "version_policy { all {} }"),
        ("m/kapok.toml", toml),
    ]);
    let (runtime, _) = start(config(&[root.path()]), [Fake::new("onnxruntime").engine()]).await;
    for (asked, version) in [
        ("stable", Some("1")),
        ("canary", Some("2")),
        ("2", Some("2")),
        ("gone", None),
        ("x", None),
    ] {
        let mut request = floats("m", [1.0, 0.0]);
        request.version = Some(asked.to_owned());
        let found = runtime
            .infer(request, far())
            .await
            .ok()
            .map(|answer| answer.0.version);
        assert_eq!(found.as_deref(), version, "{asked}");
    }
}

#[tokio::test]
async fn a_model_is_ready_when_all_its_versions_are() {
    let root = repository(&[
        ("m/1/model.onnx", "plus 1"),
        ("m/2/model.onnx", "waits"),
        ("m/config.pbtxt", "version_policy { all {} }"),
    ]);
    let fake = Fake::new("onnxruntime");
    fake.door.close();
    let (runtime, _) = begin(explicit(root.path()), [fake.engine()]);
    until("the second is being loaded", || fake.door.runs() == 1).await;
    assert_eq!(state(&runtime, "1").0, ModelState::Ready);
    assert!((answer(&runtime).await - 3.0).abs() < 1e-6, "it answers");
    assert!(!runtime.ready(), "the second version is not there yet");
    fake.door.open();
    runtime.loaded().await;
    assert!(runtime.ready(), "{:?}", runtime.index());
    fake.door.close();
    let again = runtime.load(load("m"));
    let look = async {
        until("it is being loaded again", || fake.door.runs() == 2).await;
        let ready = runtime.ready();
        fake.door.open();
        ready
    };
    let (loaded, ready) = tokio::join!(again, look);
    loaded.expect("loads");
    assert!(ready, "what served before serves");
}

#[tokio::test]
async fn a_version_that_never_served_is_not_counted() {
    let root = repository(&[
        ("m/1/model.onnx", "plus 1"),
        ("m/2/model.onnx", "panics later"),
        ("m/config.pbtxt", "version_policy { all {} }"),
    ]);
    let (runtime, registry) =
        start(explicit(root.path()), [Fake::new("onnxruntime").engine()]).await;
    let counted = |version: &str| {
        let version = format!("version=\"{version}\"");
        registry.encode().contains(&version)
    };
    assert_eq!(state(&runtime, "2").0, ModelState::Unavailable);
    assert_eq!((counted("1"), counted("2")), (true, false));
    // The same number again: what serves keeps its books.
    write(root.path(), "m/1/model.onnx", "panics later");
    runtime.load(load("m")).await.expect_err("broken");
    assert_eq!((counted("1"), counted("2")), (true, false));
}

#[tokio::test]
async fn a_clients_configuration_and_files_serve_until_the_next_load() {
    let root = repository(&[("m/1/model.onnx", "plus 1")]);
    let scratch = tempfile::tempdir().expect("a folder");
    let settings = Config {
        cache_dir: Some(scratch.path().to_owned()),
        ..explicit(root.path())
    };
    let (runtime, _) = start(settings, [Fake::new("onnxruntime").engine()]).await;
    let config = r#"{"max_batch_size": 8, "parameters": {"a": {"string_value": "b"}}}"#;
    let with = |files: &[(&str, &str)]| LoadRequest {
        config: Some(config.to_owned()),
        files: files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec().into()))
            .collect(),
        ..load("m")
    };
    runtime.load(with(&[])).await.expect("loads");
    assert_eq!(runtime.config("m", None).expect("ready").max_batch_size, 8);
    assert!(
        (answer(&runtime).await - 3.0).abs() < 1e-6,
        "the folder's own file"
    );
    runtime
        .load(with(&[("7/model.onnx", "plus 7")]))
        .await
        .expect("loads");
    assert!((answer(&runtime).await - 9.0).abs() < 1e-6);
    assert_eq!(state(&runtime, "7").0, ModelState::Ready);
    for (request, said) in [
        (with(&[("../x", "")]), "leaves the model's folder"),
        (
            LoadRequest {
                config: None,
                ..with(&[("1/model.onnx", "")])
            },
            "requires model config override",
        ),
        (
            LoadRequest {
                config: Some("{\"nam\": 1}".to_owned()),
                ..load("m")
            },
            "nam",
        ),
    ] {
        let error = runtime.load(request).await.expect_err(said);
        assert!(error.message.contains(said), "{}", error.message);
    }
    assert!((answer(&runtime).await - 9.0).abs() < 1e-6);
    runtime.load(load("m")).await.expect("back to the folder");
    assert!((answer(&runtime).await - 3.0).abs() < 1e-6);
    runtime.unload("m", false).await.expect("unloads");
    let kept = scratch.path().join("overrides");
    until("the files are gone", || {
        fs::read_dir(&kept).is_ok_and(|mut folders| folders.next().is_none())
    })
    .await;
}

#[tokio::test]
async fn requests_in_flight_outlive_the_model_that_answers_them() {
    let root = repository(&[("m/1/model.onnx", "plus 1")]);
    let fake = Fake::new("onnxruntime");
    let (runtime, _) = start(explicit(root.path()), [fake.engine()]).await;
    let runs = fake.gate.runs();
    fake.gate.close();
    let mut calls = tokio::task::JoinSet::new();
    calls.spawn({
        let runtime = runtime.clone();
        async move { runtime.infer(floats("m", [1.0, 0.0]), far()).await }
    });
    until("the call runs", || fake.gate.runs() == runs + 1).await;
    runtime.unload("m", false).await.expect("unloads");
    assert_eq!(state(&runtime, "1").0, ModelState::Unloading);
    fake.gate.open();
    let (response, _) = calls
        .join_next()
        .await
        .expect("one")
        .expect("runs")
        .expect("is answered");
    assert_eq!(
        response.outputs[0].elements::<f32>().expect("floats")[0].to_bits(),
        3.0_f32.to_bits()
    );
    until("the model is free", || state(&runtime, "1").1 == "unloaded").await;
}

#[tokio::test]
async fn a_sample_of_the_owner_is_run_before_the_model_serves() {
    let config = |file: &str| {
        format!(
            "model_warmup {{ name: \"first\" batch_size: 1 inputs {{ key: \"x\" value {{ \
             data_type: TYPE_FP32 dims: 2 input_data_file: \"{file}\" }} }} }} max_batch_size: 4"
        )
    };
    let data: String = String::from_utf8(vec![0; 8]).expect("zeros");
    let root = repository(&[
        ("good/1/model.onnx", "ok"),
        ("good/config.pbtxt", &config("x.bin")),
        ("good/warmup/x.bin", &data),
        ("bad/1/model.onnx", "ok"),
        ("bad/config.pbtxt", &config("../x.bin")),
        ("short/1/model.onnx", "ok"),
        ("short/config.pbtxt", &config("x.bin")),
        ("short/warmup/x.bin", "abc"),
    ]);
    let (runtime, _) = start(config_of(root.path()), [Fake::new("onnxruntime").engine()]).await;
    for (name, _, state, reason) in states(&runtime) {
        let good = name == "good";
        assert_eq!(state == ModelState::Ready, good, "{name}: {reason}");
        assert_eq!(reason.contains("warmup"), !good, "{reason}");
    }
}

fn config_of(root: &Path) -> Config {
    config(&[root])
}
