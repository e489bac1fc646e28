use super::*;

fn density(root: &Path, budget: u64) -> Config {
    Config {
        memory_budget: Some(budget),
        queue_max: 64,
        ..config(&[root])
    }
}

#[tokio::test]
async fn who_waits_for_a_sleeping_model_hears_when_its_folder_is_gone() {
    let config = builtin("identity", "");
    let root = repository(&[("m/config.pbtxt", &config), ("n/config.pbtxt", &config)]);
    let settings = Config {
        // The disk is looked at later than the requests come.
        settle: Duration::from_secs(600),
        ..density(root.path(), 40 << 20)
    };
    let (runtime, _) = start(settings, []).await;
    fs::remove_dir_all(root.path().join("m")).expect("removes");
    let error = runtime.infer(ints("m", &[1]), far()).await;
    let error = error.expect_err("gone");
    assert_eq!(error.message, "Request for unknown model: 'm' is not found");
    // Found by a request, and then out of the catalogue before the request has asked for it.
    let entry = runtime.inner().catalogue.get("n").expect("known");
    runtime.inner().catalogue.remove(&entry);
    let woken = wake(runtime.inner(), &entry);
    let told = tokio::time::timeout(Duration::from_secs(20), woken).await;
    told.expect("told").expect("to look again");
}

#[tokio::test]
async fn under_a_budget_models_come_with_their_first_request_and_make_room() {
    let root = repository(&[("bad/config.pbtxt", "backend: 1")]);
    let weights = "x".repeat(1 << 20);
    for index in 0..20 {
        let config = builtin("identity", "");
        write(root.path(), &format!("m{index}/config.pbtxt"), &config);
        write(root.path(), &format!("m{index}/1/weights.bin"), &weights);
    }
    // Room for three at most; what the process grows by may count for more than the file.
    let (runtime, registry) = start(density(root.path(), 40 << 20), []).await;
    assert!(runtime.model_ready("m0", None).expect("known"));
    assert!(!runtime.model_ready("bad", None).expect("known"));
    let resident = |runtime: &Runtime| {
        let index = runtime.index();
        index
            .iter()
            .filter(|entry| entry.state == ModelState::Ready)
            .count()
    };
    assert_eq!(resident(&runtime), 0);
    let together = (0..8).map(|_| async {
        let answer = runtime.infer(ints("m0", &[1]), far()).await;
        answer.map(drop)
    });
    crate::join::join_all(together)
        .await
        .expect("one load for all");
    assert!(
        registry
            .encode()
            .contains("kapok_model_loads_total{outcome=\"loaded\"} 1")
    );
    for round in 0..3 {
        for index in 0..20 {
            let model = format!("m{index}");
            runtime
                .infer(ints(&model, &[round]), far())
                .await
                .expect("answers");
        }
    }
    assert!(crate::lifecycle::residency::used(runtime.inner()) <= 40 << 20);
    assert!(resident(&runtime) >= 1);
    runtime
        .infer(ints("m3", &[1]), far())
        .await
        .expect("answers");
    let (state, _) = states(&runtime)
        .into_iter()
        .find(|line| line.0 == "m3")
        .map(|line| (line.2, line.3))
        .expect("listed");
    assert_eq!(state, ModelState::Ready);
}

#[tokio::test]
async fn what_can_never_fit_and_what_finds_no_room_say_so() {
    let delay = builtin(
        "identity",
        "parameters { key: \"execute_delay_ms\" value { string_value: \"60000\" } }",
    );
    let root = repository(&[
        ("busy/config.pbtxt", &delay),
        ("late/config.pbtxt", &builtin("identity", "")),
    ]);
    for model in ["busy", "late"] {
        write(
            root.path(),
            &format!("{model}/1/weights.bin"),
            &"x".repeat(6 << 20),
        );
    }
    write(root.path(), "huge/config.pbtxt", &builtin("identity", ""));
    write(root.path(), "huge/1/weights.bin", &"x".repeat(17 << 20));
    let (runtime, _) = start(density(root.path(), 11 << 20), []).await;
    let mut held = tokio::task::JoinSet::new();
    held.spawn({
        let runtime = runtime.clone();
        async move { runtime.infer(ints("busy", &[1]), far()).await }
    });
    until("the busy model is in use", || {
        runtime
            .model("busy", None)
            .is_ok_and(|model| Arc::strong_count(&model) > 2)
    })
    .await;
    for (model, said) in [
        ("huge", "more than the node's whole memory budget"),
        ("late", "models in use"),
    ] {
        let error = runtime
            .infer(ints(model, &[1]), far())
            .await
            .expect_err(model);
        assert_eq!(
            (error.kind, error.code),
            (ErrorKind::Unavailable, Some("no_memory"))
        );
        assert!(error.message.contains(said), "{}", error.message);
        assert!(matches!(error.retry, base::Retry::After(_)));
    }
    held.shutdown().await;
    runtime
        .infer(ints("late", &[1]), far())
        .await
        .expect("there is room now");
}
