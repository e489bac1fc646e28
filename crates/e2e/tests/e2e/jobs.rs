//! Jobs: programs that run when there is room for them, and models that are served.

use e2e::repository::Builtin;
use e2e::{Kapok, Repository, Running, alive, signal, wait};
use serde_json::{Value, json};

fn submit(kapok: &Running, spec: &Value) -> String {
    let answer = try_submit(kapok, spec);
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["status"]["id"]
        .as_str()
        .expect("an id")
        .to_owned()
}

fn try_submit(kapok: &Running, spec: &Value) -> e2e::Response {
    let manifest = json!({ "apiVersion": "kapok.dev/v1alpha1", "kind": "Job", "spec": spec });
    kapok.http().post("/api/v1/jobs", manifest.to_string())
}

fn shell(script: &str) -> Value {
    json!({ "command": ["/bin/sh", "-c", script] })
}

fn status(kapok: &Running, id: &str) -> Value {
    let job = kapok.http().get(&format!("/api/v1/jobs/{id}"));
    assert_eq!(job.status, 200, "{}", job.text());
    job.json()["status"].clone()
}

/// The status, once the state is reached.
fn becomes(kapok: &Running, id: &str, state: &str) -> Value {
    wait::until(&format!("job `{id}` is {state}"), || {
        let status = status(kapok, id);
        (status["state"] == state).then_some(status)
    })
}

fn logs(kapok: &Running, id: &str) -> String {
    kapok.http().get(&format!("/api/v1/jobs/{id}/logs")).text()
}

#[test]
fn a_program_runs_and_its_words_and_its_end_are_kept() {
    let kapok = Kapok::new().when_live().start();
    let good = submit(
        &kapok,
        &shell("echo hello from $KAPOK_JOB_ID; echo oops >&2"),
    );
    let status = becomes(&kapok, &good, "Succeeded");
    assert_eq!(status["end"]["exitCode"], 0);
    let printed = logs(&kapok, &good);
    assert!(
        printed.contains(&format!("hello from {good}\n")),
        "{printed}"
    );
    assert!(printed.contains("oops\n"), "{printed}");
    let bad = submit(&kapok, &shell("echo this is why; exit 3"));
    let status = becomes(&kapok, &bad, "Failed");
    assert_eq!(status["end"]["exitCode"], 3);
    let message = status["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("exit status: 3") && message.contains("this is why"),
        "{message}"
    );
    let listed = kapok.http().get("/api/v1/jobs?state=failed").json();
    assert_eq!(listed["jobs"].as_array().map(Vec::len), Some(1));
    assert_eq!(listed["jobs"][0]["status"]["id"], bad.as_str());
}

#[test]
fn a_killed_process_is_noticed_and_a_time_out_cancels() {
    let kapok = Kapok::new().when_live().start();
    let victim = submit(&kapok, &shell("echo $$; exec sleep 600"));
    becomes(&kapok, &victim, "Running");
    let pid: u32 = wait::until("the process says its number", || {
        logs(&kapok, &victim).trim().parse().ok()
    });
    signal("KILL", pid);
    let status = becomes(&kapok, &victim, "Failed");
    assert_eq!(status["end"]["signal"], 9);
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.contains("signal: 9 (SIGKILL)"), "{message}");

    let mut slow =
        shell("echo $$; trap 'echo asked to end; exit 0' TERM; while :; do sleep 0.05; done");
    slow["timeoutSeconds"] = json!(1);
    let slow = submit(&kapok, &slow);
    let status = becomes(&kapok, &slow, "Cancelled");
    assert_eq!(status["reason"], "MaximumExecutionTimeExceeded");
    let message = status["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("`timeoutSeconds`, which is 1"),
        "{message}"
    );
    assert!(logs(&kapok, &slow).contains("asked to end"));
}

#[test]
fn a_cancelled_job_leaves_no_process() {
    let kapok = Kapok::new().when_live().start();
    let mut spec = shell("echo $$; trap '' TERM; while :; do sleep 0.05; done");
    spec["graceSeconds"] = json!(0);
    let id = submit(&kapok, &spec);
    let pid: u32 = wait::until("the process says its number", || {
        logs(&kapok, &id).trim().parse().ok()
    });
    let answer = kapok.http().post(&format!("/api/v1/jobs/{id}/cancel"), "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    becomes(&kapok, &id, "Cancelled");
    assert!(!alive(pid));
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    let config = "apiVersion: kapok.dev/v1alpha1\nkind: Node\nmetadata: {name: n}\nspec: {region: gz-nansha, jobs: {queueMax: 1}}\n";
    let kapok = Kapok::new().config(config).when_live().start();
    for (spec, words) in [
        (
            json!({ "command": ["true"], "region": "mars" }),
            "region `mars` does not exist; there are: `gz-nansha`",
        ),
        (
            json!({ "command": ["true"], "qosLevel": 9 }),
            "`spec.qosLevel`",
        ),
        (
            json!({ "command": ["true"], "gpu": 1 }),
            "unknown field `gpu`",
        ),
        (json!({}), "`spec.command`"),
    ] {
        let refused = try_submit(&kapok, &spec);
        assert_eq!(refused.status, 400, "{}", refused.text());
        assert!(refused.text().contains(words), "{}", refused.text());
    }
    // More than this machine has: they wait for ever.
    let mut large = shell("true");
    large["resources"] = json!({ "cpu": 10_000 });
    let waits = submit(&kapok, &large);
    let status = becomes(&kapok, &waits, "Queued");
    assert_eq!(status["reason"], "NoMatchingFlavor");
    let refused = try_submit(&kapok, &large);
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(
        refused.text().contains("the queue is full"),
        "{}",
        refused.text()
    );
    let why = kapok.cli(&["explain", &waits]);
    assert!(
        why.stdout.contains("no node could take it"),
        "{}",
        why.stdout
    );
}

#[test]
fn jobs_that_do_not_fit_together_run_one_after_the_other() {
    let kapok = Kapok::new().when_live().start();
    let node = kapok.http().get("/api/v1/nodes").json()["nodes"][0].clone();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let go = folder.path().join("go");
    let mut all = shell(&format!(
        "while [ ! -e {} ]; do sleep 0.02; done",
        go.display()
    ));
    all["resources"] = json!({ "cpu": format!("{}m", node["cpuMilli"]) });
    let first = submit(&kapok, &all);
    becomes(&kapok, &first, "Running");
    let second = submit(&kapok, &all);
    let waits = status(&kapok, &second);
    assert_eq!(
        (&waits["state"], &waits["attempts"]),
        (&json!("Queued"), &json!(0))
    );
    std::fs::write(&go, "").expect("the folder is ours");
    let (first, second) = (
        becomes(&kapok, &first, "Succeeded"),
        becomes(&kapok, &second, "Succeeded"),
    );
    assert!(first["finishedAt"].as_str() <= second["startedAt"].as_str());
}

#[test]
fn history_outlives_kapok_and_what_ran_runs_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let start = || Kapok::new().arg("--data").arg(&data).when_live().start();
    let kapok = start();
    let done = submit(&kapok, &shell("echo once"));
    becomes(&kapok, &done, "Succeeded");
    let long = submit(
        &kapok,
        &shell("echo attempt $KAPOK_ATTEMPT; exec sleep 600"),
    );
    becomes(&kapok, &long, "Running");
    assert_eq!(kapok.stop(), 0);
    let kapok = start();
    let after = becomes(&kapok, &done, "Succeeded");
    assert_eq!(after["end"]["exitCode"], 0);
    assert!(logs(&kapok, &done).contains("once"));
    let again = becomes(&kapok, &long, "Running");
    assert_eq!(again["attempts"], 2);
    wait::until("the second attempt speaks", || {
        logs(&kapok, &long).contains("attempt 2").then_some(())
    });
    kapok
        .http()
        .post(&format!("/api/v1/jobs/{long}/cancel"), "");
    becomes(&kapok, &long, "Cancelled");
}

/// Serves only the models of this folder that somebody loads.
fn loads_when_told(repo: &Repository) -> Running {
    let config = "apiVersion: kapok.dev/v1alpha1\nkind: Node\nmetadata: {name: n}\nspec: {modelControl: explicit}\n";
    Kapok::new()
        .config(config)
        .model_repo(repo.path())
        .when_live()
        .start()
}

#[test]
fn a_models_job_loads_it_and_its_end_unloads_it() {
    let repo = Repository::new().builtin(
        "echo",
        &Builtin {
            dtype: "INT32",
            dims: "2",
            max_batch: 8,
            ..Builtin::default()
        },
    );
    let kapok = loads_when_told(&repo);
    let infer = || {
        let body = json!({ "inputs": [{ "name": "INPUT0", "shape": [1, 2], "datatype": "INT32", "data": [4, 5] }] });
        kapok.http().post("/v2/models/echo/infer", body.to_string())
    };
    assert_ne!(infer().status, 200);
    let id = submit(&kapok, &json!({ "model": "echo", "batchSize": 4 }));
    let status = becomes(&kapok, &id, "Running");
    assert_eq!(status["endpoint"], kapok.url());
    assert_eq!(infer().status, 200, "{}", infer().text());
    let config = kapok.http().get("/v2/models/echo/config").json();
    assert_eq!(config["max_batch_size"], 4);
    // With its batch from the start, not once more for it.
    let metrics = kapok.admin().get("/metrics").text();
    let loads = metrics
        .lines()
        .filter(|line| line.starts_with("kapok_model_loads_total{"));
    let loads: Vec<&str> = loads.filter(|line| !line.ends_with(" 0")).collect();
    assert!(
        matches!(loads[..], [one] if one.ends_with(" 1")),
        "{loads:?}"
    );
    kapok.http().post(&format!("/api/v1/jobs/{id}/cancel"), "");
    becomes(&kapok, &id, "Cancelled");
    assert_ne!(infer().status, 200);
    let nothing = submit(&kapok, &json!({ "model": "nobody" }));
    let status = becomes(&kapok, &nothing, "Failed");
    assert!(
        status["message"]
            .as_str()
            .unwrap_or_default()
            .contains("nobody"),
        "{status}"
    );
}

/// The file says how many items a call has, which can be told without loading it.
#[test]
fn a_batch_that_a_model_cannot_have_is_refused_when_it_is_submitted() {
    let repo = Repository::new().link("fixed", &e2e::repository::fetched("resnet50-light"));
    let kapok = loads_when_told(&repo);
    let refused = try_submit(&kapok, &json!({ "model": "fixed", "batchSize": 64 }));
    assert_eq!(refused.status, 400, "{}", refused.text());
    for words in ["`batchSize` 64", "model `fixed` is fixed to 1"] {
        assert!(refused.text().contains(words), "{}", refused.text());
    }
    assert_eq!(kapok.http().get("/api/v1/jobs").json()["jobs"], json!([]));
}

#[test]
fn a_job_that_takes_more_memory_than_it_asked_for_is_stopped_and_told_so() {
    let kapok = Kapok::new().when_live().start();
    // The shell itself holds what it has read; a child of it does in the second.
    for script in [
        "x=$(head -c 150000000 /dev/zero | tr '\\0' x); echo ${#x}; sleep 600",
        "(x=$(head -c 150000000 /dev/zero | tr '\\0' x); echo ${#x}; sleep 600); true",
    ] {
        let mut greedy = shell(script);
        greedy["resources"] = json!({ "memory": "64Mi" });
        let id = submit(&kapok, &greedy);
        let status = becomes(&kapok, &id, "Failed");
        assert_eq!(status["reason"], "OOMKilled", "{status}");
        let message = status["message"].as_str().unwrap_or_default();
        assert!(
            message.contains("`resources.memory` is 64 MiB"),
            "{message}"
        );
        // What is left over belongs to whoever wants it.
        greedy["qosLevel"] = json!(1);
        let free = submit(&kapok, &greedy);
        wait::until("it holds its memory", || {
            logs(&kapok, &free).contains("150000000").then_some(())
        });
        kapok
            .http()
            .post(&format!("/api/v1/jobs/{free}/cancel"), "");
        becomes(&kapok, &free, "Cancelled");
    }
}

#[test]
fn a_realtime_job_takes_the_place_of_a_lesser_one_which_runs_again_after_it() {
    let kapok = Kapok::new().when_live().start();
    let node = kapok.http().get("/api/v1/nodes").json()["nodes"][0].clone();
    let whole = json!({ "cpu": format!("{}m", node["cpuMilli"]) });
    let mut lesser = shell(
        "trap 'echo asked to end; exit 0' TERM; echo attempt $KAPOK_ATTEMPT; while :; do sleep 0.05; done",
    );
    lesser["resources"] = whole.clone();
    lesser["qosLevel"] = json!(1);
    let lesser = submit(&kapok, &lesser);
    wait::until("the first attempt speaks", || {
        logs(&kapok, &lesser).contains("attempt 1").then_some(())
    });
    let mut urgent = shell("echo now");
    urgent["resources"] = whole;
    urgent["priority"] = json!("realtime");
    let urgent = submit(&kapok, &urgent);
    let urgent = becomes(&kapok, &urgent, "Succeeded");
    assert_eq!(urgent["attempts"], 1);
    wait::until("the second attempt speaks", || {
        logs(&kapok, &lesser).contains("attempt 2").then_some(())
    });
    assert!(logs(&kapok, &lesser).contains("asked to end"));
    let again = becomes(&kapok, &lesser, "Running");
    assert_eq!(
        (&again["preemptions"], &again["attempts"]),
        (&json!(1), &json!(2))
    );
    kapok
        .http()
        .post(&format!("/api/v1/jobs/{lesser}/cancel"), "");
    becomes(&kapok, &lesser, "Cancelled");
}

#[test]
fn an_upgrade_keeps_the_jobs_and_runs_again_what_ran() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let mut kapok = Kapok::new().arg("--data").arg(&data).when_live().start();
    let done = submit(&kapok, &shell("echo once"));
    becomes(&kapok, &done, "Succeeded");
    let long = submit(&kapok, &shell("echo $$ $KAPOK_ATTEMPT; exec sleep 600"));
    let first: u32 = wait::until("the process says its number", || {
        logs(&kapok, &long).split(' ').next()?.parse().ok()
    });
    kapok.upgrade();
    wait::until("the new process has the jobs", || {
        logs(&kapok, &long).contains(" 2\n").then_some(())
    });
    assert!(!alive(first), "the first attempt goes on beside the second");
    let status = becomes(&kapok, &long, "Running");
    assert_eq!(status["attempts"], 2);
    assert_eq!(becomes(&kapok, &done, "Succeeded")["attempts"], 1);
    kapok
        .http()
        .post(&format!("/api/v1/jobs/{long}/cancel"), "");
    becomes(&kapok, &long, "Cancelled");
}

#[test]
fn the_command_line_submits_follows_lists_and_cancels() {
    let kapok = Kapok::new().when_live().start();
    let run = kapok.cli(&[
        "submit",
        "--name",
        "greet",
        "--follow",
        "--",
        "/bin/sh",
        "-c",
        "echo one; echo two",
    ]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert_eq!(run.stdout, "one\ntwo");
    let failed = kapok.cli(&["submit", "--wait", "--", "/bin/sh", "-c", "exit 4"]);
    assert_eq!(failed.code, 1);
    assert!(
        failed.stderr.contains("exit status: 4"),
        "{}",
        failed.stderr
    );
    let listed = kapok.cli(&["jobs"]);
    assert!(
        listed.stdout.contains("greet-") && listed.stdout.contains("Succeeded"),
        "{}",
        listed.stdout
    );
    let told = kapok.cli(&["submit", "--dry-run", "--cpu", "100000", "--", "true"]);
    assert!(told.stdout.contains("it would wait"), "{}", told.stdout);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "apiVersion: kapok.dev/v1alpha1\nkind: Job\nmetadata: {name: nap}\nspec:\n  command: [sleep, \"600\"]\n")
        .expect("the file is ours");
    let path = file.path().to_string_lossy().into_owned();
    let submitted = kapok.cli(&["submit", "-f", &path]);
    assert_eq!(submitted.code, 0, "{}", submitted.stderr);
    let job: Value = serde_json::from_str(&submitted.stdout).expect("one document");
    let id = job["status"]["id"].as_str().expect("an id").to_owned();
    becomes(&kapok, &id, "Running");
    let shown = kapok.cli(&["jobs", "show", &id]);
    assert!(
        shown.stdout.contains("sleep") && shown.stdout.contains("PodsReady"),
        "{}",
        shown.stdout
    );
    assert_eq!(kapok.cli(&["jobs", "cancel", &id]).code, 0);
    becomes(&kapok, &id, "Cancelled");
}

#[test]
fn a_cluster_needs_a_kapok_that_was_built_for_it() {
    let config = "apiVersion: kapok.dev/v1alpha1\nkind: Node\nmetadata: {name: node}\n\
                  spec:\n  jobs:\n    kubernetes: {namespace: vision}\n";
    let run = Kapok::new().config(config).run();
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(
        run.stderr.contains("--features kubernetes"),
        "{}",
        run.stderr
    );
}
