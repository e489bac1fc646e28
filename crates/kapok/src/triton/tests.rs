use protocol::resource::{ModelControl, RateLimit, SharedMemory};

use super::*;

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn translated(line: &str) -> UpArgs {
    translate(&words(line)).unwrap_or_else(|failure| panic!("{line}: {}", failure.error))
}

fn refused(line: &str) -> String {
    translate(&words(line)).expect_err(line).error.to_string()
}

#[test]
fn kserves_and_tritons_own_lines_are_understood() {
    let args = translated(
        "--model-store=/mnt/models --grpc-port=9000 --http-port=8080 --allow-grpc=true --allow-http=true",
    );
    assert_eq!(args.model_repo, [Path::new("/mnt/models")]);
    assert_eq!(args.listen, "0.0.0.0:8080".parse().ok());
    assert!(
        args.set
            .contains(&r#"node.grpcAlias="0.0.0.0:9000""#.to_owned())
    );
    assert!(
        args.set
            .contains(&r#"node.metricsAlias="0.0.0.0:8002""#.to_owned())
    );
    let args = translated(
        "--model-repository /a --model-repository /b --model-control-mode explicit --load-model x --load-model=y \
         --strict-readiness false --exit-on-error=false --allow-metrics --allow-http --http-address ::1 \
         --exit-timeout-secs=5 --log-verbose=1 --log-info 0 --log-format=ISO8601 --allow-grpc=false \
         --trace-config=rate=5 --trace-config triton,file=/t --trace-config=level=TIMESTAMPS --http-max-input-size=1024",
    );
    assert_eq!(args.model_repo.len(), 2);
    assert_eq!(args.listen, "[::1]:8000".parse().ok());
    for setting in [
        r#"node.modelControl="explicit""#,
        r#"node.loadModels=["x","y"]"#,
        "node.strictReadiness=false",
        "node.grpcAlias=null",
        r#"node.metricsAlias="[::1]:8002""#,
        "node.drainTimeoutMs=5000",
        "node.trace.rate=5",
        r#"node.trace.file="/t""#,
        "node.trace.timestamps=true",
        "node.bodyBytesMax=1024",
    ] {
        assert!(
            args.set.iter().any(|have| have == setting),
            "{setting} in {:?}",
            args.set
        );
    }
    let manners = args.triton.expect("as Triton does");
    assert!(!manners.exit_on_error && !manners.grpc && manners.http);
    assert_eq!(manners.log.settings.verbose_level, 1);
    assert!(!manners.log.settings.info);
}

#[test]
fn flags_without_meaning_are_named_once() {
    let args = translated(
        "--model-store=/m --http-thread-count=4 --http-thread-count=4 --backend-config=onnxruntime,x=y \
         --grpc-use-ssl=false --model-namespacing=false --pinned-memory-pool-byte-size=1",
    );
    let notes = args.triton.expect("as Triton does").notes;
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(
        notes
            .iter()
            .any(|note| note.starts_with("--http-thread-count is accepted"))
    );
}

#[test]
fn the_newer_flag_about_completion_wins_over_the_older() {
    for (flags, completes, notes) in [
        ("", true, 0),
        ("--disable-auto-complete-config", false, 0),
        ("--strict-model-config=true", false, 1),
        ("--strict-model-config=false", true, 1),
        (
            "--disable-auto-complete-config --strict-model-config=false",
            false,
            2,
        ),
        (
            "--strict-model-config=false --disable-auto-complete-config",
            false,
            2,
        ),
    ] {
        let args = translated(&format!("--model-store=/m {flags}"));
        let setting = format!("node.completeConfigs={completes}");
        assert!(args.set.contains(&setting), "{flags}: {:?}", args.set);
        let said = args.triton.expect("as Triton does").notes;
        assert_eq!(said.len(), notes, "{flags}: {said:?}");
    }
}

#[test]
fn what_cannot_be_done_is_refused_with_a_reason() {
    for (line, part) in [
        ("", "`--model-repository` must be specified"),
        ("--model-repositry=/m", "did you mean `--model-repository`?"),
        ("--model-repository", "needs a value"),
        ("--model-store=s3://bucket", "is no folder"),
        (
            "--model-store=/m --load-model=x",
            "requires setting '--model-control-mode=explicit'",
        ),
        (
            "--model-store=/m --model-control-mode=explicit --load-model=* --load-model=x",
            "must be the ONLY startup model",
        ),
        (
            "--model-store=/m --model-control-mode=auto",
            "invalid argument for --model-control-mode: auto",
        ),
        ("--model-store=/m --grpc-use-ssl=true", "does not speak TLS"),
        (
            "--model-store=/m --http-restricted-api=shared-memory:k=v",
            "restricts calls by a `Key`",
        ),
        (
            "--model-store=/m --trace-config=mode=opentelemetry",
            "`opentelemetry` is not supported",
        ),
        (
            "--model-store=/m --trace-level=TENSORS",
            "TENSORS is not supported",
        ),
        (
            "--model-store=/m --http-port=eighty",
            "not a number that fits",
        ),
        ("--model-store=/m --allow-http=maybe", "is true or false"),
        ("--model-store=/m stray", "is no flag"),
        ("--model-store=/m --rate-limit=maybe", "neither off nor"),
        ("--model-store=/m --rate-limit-resource=R", "is not `<name>"),
        (
            "--model-store=/m --cache-config=redis,host=x",
            "only the cache `local`",
        ),
    ] {
        let error = refused(line);
        assert!(error.contains(part), "{line}: {error}");
    }
}

#[test]
fn the_binarys_name_is_the_command() {
    let called = |name: &str| arguments([name, "--model-store=/m"].map(OsString::from).into_iter());
    assert_eq!(called("/opt/tritonserver/bin/tritonserver").len(), 3);
    assert_eq!(called("kapok").len(), 2);
}

#[test]
fn every_setting_is_a_field_of_the_node() {
    let args = translated(
        "--model-store=/m --model-control-mode=poll --repository-poll-secs=3 --strict-readiness \
         --allow-client-shm=false --response-cache-byte-size=1048576 --rate-limit=execution_count \
         --rate-limit-resource=R1:10 --rate-limit-resource=R2:5:0 --disable-auto-complete-config \
         --backend-config=onnxruntime,default-max-batch-size=8 --backend-config=default-max-batch-size=2",
    );
    let environment = Environment::default();
    let config = crate::config::Config::load(&args, &environment);
    let config = config.unwrap_or_else(|failure| panic!("{}", failure.error));
    assert!(!config.node.complete_configs);
    assert_eq!(config.node.default_max_batch_size, 8);
    assert_eq!(config.node.model_poll_ms, 3000);
    assert_eq!(config.node.model_control, ModelControl::Poll);
    assert_eq!(config.node.shared_memory, SharedMemory::Off);
    assert!(config.node.strict_readiness);
    assert_eq!(config.node.response_cache_mb, 1);
    assert_eq!(config.node.rate_limit, RateLimit::ExecutionCount);
    assert_eq!(config.node.rate_limit_resources["R1"], 10);
}
