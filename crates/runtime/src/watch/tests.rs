use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::Ordering;

use protocol::ModelState;

use super::*;
use crate::Runtime;
use crate::testing::{Fake, config, far, floats, repository, start, until};

/// What the fake model makes of 1, while it serves.
async fn answer(runtime: &Runtime, model: &str) -> Option<f32> {
    let answer = runtime.infer(floats(model, [1.0, 0.0]), far()).await.ok()?;
    Some(answer.0.outputs[0].elements::<f32>()?[0])
}

async fn answers(runtime: &Runtime, model: &str, expected: Option<f32>) {
    let deadline = far();
    while answer(runtime, model).await != expected {
        let now = base::Clock::real().now();
        assert!(
            !deadline.passed(now),
            "{model} never answers {expected:?}: {:?}",
            runtime.index()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("creates");
    fs::write(path, content).expect("writes");
}

#[tokio::test]
async fn models_follow_their_folders() {
    let root = repository(&[("m/1/model.onnx", "plus 1")]);
    let fake = Fake::new("onnxruntime");
    let (runtime, _) = start(config(&[root.path()]), [fake.engine()]).await;
    answers(&runtime, "m", Some(3.0)).await;
    write(root.path(), "m/2/model.onnx", "plus 2");
    answers(&runtime, "m", Some(4.0)).await;
    write(root.path(), "new/1/model.onnx", "plus 3");
    answers(&runtime, "new", Some(5.0)).await;
    fs::remove_dir_all(root.path().join("m/2")).expect("removes");
    answers(&runtime, "m", Some(3.0)).await;
    fs::rename(root.path().join("new"), root.path().join("renamed")).expect("renames");
    answers(&runtime, "renamed", Some(5.0)).await;
    until("the old name is gone", || !runtime.has("new")).await;
    fs::remove_dir_all(root.path().join("renamed")).expect("removes");
    until("the model is gone", || !runtime.has("renamed")).await;
    write(root.path(), "m/config.pbtxt", "max_batch_size: 8");
    until("the configuration is read", || {
        runtime
            .config("m", None)
            .is_ok_and(|config| config.max_batch_size == 8)
    })
    .await;
    write(root.path(), "m/config.pbtxt", "max_bach_size: 8");
    until("the mistake is told", || {
        runtime.index()[0].reason.contains("max_bach_size")
    })
    .await;
    assert_eq!(runtime.index()[0].state, ModelState::Ready);
}

#[tokio::test]
async fn a_file_that_is_being_written_is_not_loaded() {
    let root = repository(&[("m/1/model.onnx", "plus 1")]);
    let fake = Fake::new("onnxruntime");
    let (runtime, _) = start(config(&[root.path()]), [fake.engine()]).await;
    let loads = fake.loads.load(Ordering::SeqCst);
    fs::create_dir(root.path().join("m/2")).expect("creates");
    // By now the folder is watched.
    write(root.path(), "first/1/model.onnx", "plus 3");
    answers(&runtime, "first", Some(5.0)).await;
    let mut file = fs::File::create(root.path().join("m/2/model.onnx")).expect("creates");
    file.write_all(b"plus ").expect("writes");
    // Another model comes and goes through the same thread, later: by then this one would have been loaded.
    write(root.path(), "mark/1/model.onnx", "plus 3");
    answers(&runtime, "mark", Some(5.0)).await;
    assert_eq!(
        fake.loads.load(Ordering::SeqCst),
        loads + 2,
        "only the others"
    );
    assert_eq!(answer(&runtime, "m").await, Some(3.0));
    file.write_all(b"2").expect("writes");
    drop(file);
    answers(&runtime, "m", Some(4.0)).await;
}

#[tokio::test]
async fn the_same_content_again_is_not_loaded_again() {
    let root = repository(&[("m/1/model.onnx", "plus 1")]);
    let fake = Fake::new("onnxruntime");
    let (runtime, _) = start(config(&[root.path()]), [fake.engine()]).await;
    let loads = fake.loads.load(Ordering::SeqCst);
    write(root.path(), "m/1/model.onnx", "plus 1");
    let seen = || {
        let entry = runtime.inner().catalogue.get("m").expect("known");
        let stamp = Stamp::of(&root.path().join("m"));
        entry.life.lock().seen == stamp
    };
    until("the change is seen", seen).await;
    assert_eq!(fake.loads.load(Ordering::SeqCst), loads);
    assert!(runtime.index()[0].reason.is_empty());
}

#[tokio::test]
async fn without_messages_from_the_system_changes_are_found_by_looking() {
    let root = repository(&[("m/1/model.onnx", "plus 1")]);
    let settings = crate::Config {
        poll: Duration::from_millis(10),
        ..config(&[root.path()])
    };
    let (runtime, _) = start(settings, [Fake::new("onnxruntime").engine()]).await;
    let mut watcher = Watcher {
        inner: Weak::new(),
        events: None,
        unsettled: BTreeMap::new(),
        polled: base::Clock::real().now(),
    };
    let now = base::Clock::real().now();
    assert!(!changed(runtime.inner(), "m"));
    write(root.path(), "m/1/model.onnx", "plus 2 ");
    watcher.look_everywhere(runtime.inner(), now);
    answers(&runtime, "m", Some(4.0)).await;
}

#[tokio::test]
async fn a_model_that_nobody_asks_for_leaves_and_comes_back() {
    let root = repository(&[
        ("m/1/model.onnx", "plus 1"),
        ("m/kapok.toml", "[memory]\nidle_s = 1"),
    ]);
    let (runtime, registry) =
        start(config(&[root.path()]), [Fake::new("onnxruntime").engine()]).await;
    until("the model sleeps", || {
        runtime.index()[0].state == ModelState::Unavailable
    })
    .await;
    assert!(runtime.model_ready("m", None).expect("known") && runtime.ready());
    assert!(registry.encode().contains("kapok_model_evictions_total 1"));
    answers(&runtime, "m", Some(3.0)).await;
}
