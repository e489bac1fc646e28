use std::time::Duration;

use super::*;
use crate::resource::parse_documents;

fn submission(spec: &str) -> Result<Submission, Problem> {
    let body = format!(
        r#"{{"apiVersion":"kapok.dev/v1alpha1","kind":"Job","metadata":{{"name":"j"}},"spec":{spec}}}"#
    );
    Submission::from_json(body.as_bytes())
}

/// A job, the field that is wrong in it, and what is said of that.
const WRONG: [(&str, &str, &str); 17] = [
    ("{}", "spec.command", "the program to run, or the `model`"),
    (
        r#"{"model":"m","command":["a"]}"#,
        "spec.command",
        "not both",
    ),
    (
        r#"{"command":["a"],"batchSize":4}"#,
        "spec.batchSize",
        "a model's",
    ),
    (
        r#"{"command":["a"],"qosLevel":6}"#,
        "spec.qosLevel",
        "from 1",
    ),
    (r#"{"command":["a"],"gang":0}"#, "spec.gang", "from 1"),
    (
        r#"{"command":["a"],"timeoutSeconds":0}"#,
        "spec.timeoutSeconds",
        "seconds",
    ),
    (
        r#"{"command":["a"],"region":"Not A Name"}"#,
        "spec.region",
        "gz-nansha",
    ),
    (
        r#"{"command":["a"],"priority":"urgent"}"#,
        "body",
        "unknown value `urgent`",
    ),
    (
        r#"{"command":["a"],"gpus":1}"#,
        "body",
        "unknown field `gpus`",
    ),
    (r#"{"command":"a"}"#, "spec.command", "expected"),
    (
        r#"{"command":["a"],"resources":{"cpu":"two"}}"#,
        "spec.resources.cpu",
        "cores, such as `2`",
    ),
    (
        r#"{"command":["a"],"resources":{"memory":-1}}"#,
        "spec.resources.memory",
        "memory, such as `512Mi`",
    ),
    (
        r#"{"command":["a"],"resources":{"gpuShare":1.5}}"#,
        "spec.resources.gpuShare",
        "below 1",
    ),
    (
        r#"{"command":["a"],"resources":{"gpuShare":0.5,"migProfile":"1g.10gb"}}"#,
        "spec.resources.migProfile",
        "not both",
    ),
    (
        r#"{"command":["a"],"resources":{"migProfile":"huge"}}"#,
        "spec.resources.migProfile",
        "1g.10gb",
    ),
    (
        r#"{"command":["a"],"resources":{"deviceMemory":"4Gi"}}"#,
        "spec.resources.deviceMemory",
        "only with",
    ),
    (r#"{"command":["a"],"env":{"A=B":"c"}}"#, "spec.env", "A=B"),
];

#[test]
fn what_is_wrong_with_a_job_is_said_of_its_field() {
    for (spec, field, words) in WRONG {
        let problem = submission(spec).expect_err(spec);
        assert_eq!(problem.path.join("."), field, "{spec}: {problem}");
        assert!(problem.message.contains(words), "{spec}: {problem}");
    }
}

#[test]
fn a_job_without_a_name_is_called_after_what_it_does() {
    for (spec, name) in [
        (r#"{"model":"ResNet50_v2"}"#, "resnet50-v2"),
        (r#"{"command":["/usr/bin/python3","train.py"]}"#, "python3"),
        (r#"{"command":["///"]}"#, "job"),
    ] {
        for metadata in ["", r#""metadata":{"labels":{"a":"b"}},"#] {
            let body = format!(
                r#"{{"apiVersion":"kapok.dev/v1alpha1","kind":"Job",{metadata}"spec":{spec}}}"#
            );
            let read = Submission::from_json(body.as_bytes()).expect("a job");
            assert_eq!(read.metadata.name, name, "{spec}");
        }
    }
    for body in [&b"[]"[..], b"{}", b"{", br#"{"kind":"Node"}"#] {
        assert!(Submission::from_json(body).is_err());
    }
}

#[test]
fn amounts_are_read_as_kubernetes_writes_them() {
    for (text, milli, shown) in [
        ("2", 2000, "2"),
        ("0.5", 500, "500m"),
        ("\"500m\"", 500, "500m"),
        ("\"1.5\"", 1500, "1500m"),
    ] {
        let cores: Cores = serde_json::from_str(text).expect(text);
        assert_eq!(
            (cores.milli(), cores.to_string()),
            (milli, shown.to_owned())
        );
    }
    for (text, bytes, shown) in [
        ("\"512Mi\"", 512 << 20, "512Mi"),
        ("\"2Gi\"", 2 << 30, "2Gi"),
        ("\"0.5Gi\"", 512 << 20, "512Mi"),
        ("\"2G\"", 2_000_000_000, "1953125Ki"),
        ("1000", 1000, "1000"),
    ] {
        let memory: Memory = serde_json::from_str(text).expect(text);
        assert_eq!(
            (memory.bytes(), memory.to_string()),
            (bytes, shown.to_owned())
        );
    }
    for text in [
        "\"\"", "\"nan\"", "\"1e9\"", "-1", "\"5 Gi\"", "\"Gi\"", "1e300", "null",
    ] {
        assert!(serde_json::from_str::<Memory>(text).is_err(), "{text}");
        assert!(serde_json::from_str::<Cores>(text).is_err(), "{text}");
    }
}

#[test]
fn times_are_written_and_read_as_rfc_3339() {
    for (millis, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400_123, "2000-02-29T00:00:00.123Z"),
        (1_795_347_590_000, "2026-11-22T11:39:50.000Z"),
    ] {
        assert_eq!(Timestamp::from_millis(millis).to_string(), text);
        assert_eq!(Timestamp::parse(text), Some(Timestamp::from_millis(millis)));
    }
    for text in [
        "",
        "2026-11-22",
        "2026-02-30T00:00:00Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T11:39:50+08:00",
    ] {
        assert_eq!(Timestamp::parse(text), None, "{text}");
    }
}

#[test]
fn a_condition_keeps_its_time_until_its_status_changes() {
    let start = Timestamp::from_millis(1000);
    let later = start.plus(Duration::from_secs(5));
    let mut status = JobStatus::new("j-1".to_owned(), start);
    status.set(
        ConditionType::Admitted,
        false,
        ("WaitingForQuota", "cpu"),
        start,
    );
    status.set(
        ConditionType::Admitted,
        false,
        ("WaitingForQuota", "memory"),
        later,
    );
    let condition = status
        .condition(ConditionType::Admitted)
        .expect("it is set");
    assert_eq!(
        (condition.last_transition_time, condition.message.as_str()),
        (start, "memory")
    );
    status.set(
        ConditionType::Admitted,
        true,
        ("Admitted", "node `a`"),
        later,
    );
    assert!(status.holds(ConditionType::Admitted));
    assert_eq!(status.conditions.len(), 1);
    assert_eq!(status.conditions[0].last_transition_time, later);
}

#[test]
fn a_job_is_the_same_after_being_written_out() {
    let text = "apiVersion: kapok.dev/v1alpha1\nkind: Job\nmetadata: {name: train}\nspec:\n  command: [python3, train.py]\n  \
                env: {A: b}\n  region: gz-nansha\n  priority: realtime\n  qosLevel: 5\n  gang: 2\n  timeoutSeconds: 300\n  \
                resources: {cpu: 500m, memory: 2Gi, gpuShare: 0.25, deviceMemory: 4Gi}\n  restart: {policy: onFailure, limit: 2}\n";
    let resources = parse_documents(text, "job.yaml").expect("a job");
    let Spec::Job(spec) = &resources[0].spec else {
        unreachable!("the kind is Job")
    };
    let job = Job {
        metadata: resources[0].metadata.clone(),
        spec: (**spec).clone(),
        status: JobStatus::new("train-1".to_owned(), Timestamp::from_millis(1)),
    };
    let written = serde_json::to_string(&job).expect("JSON");
    assert_eq!(serde_json::from_str::<Job>(&written).expect("a job"), job);
    assert_eq!(job.resource(), resources[0]);
    assert_eq!(spec.resources.gpu_count(), 1);
    assert_eq!(spec.resources.gpu_milli(), 250);
    assert!(!spec.is_preemptible());
}
