use jobs::executor::{Event, Progress, Run};
use serde_json::{Value, json};

use super::*;
use crate::manifest::tests::run;

fn process() -> Run {
    run("train-1", json!({"command": ["a"], "gang": 2}), &[])
}

fn replica() -> Run {
    run("resnet-1", json!({"model": "resnet"}), &[])
}

fn metadata(run: &Run, name: &str) -> Value {
    json!({"name": name, "labels": {"kapok.dev/job": run.id.job, "kapok.dev/attempt": run.id.attempt.to_string()}})
}

fn job(run: &Run, status: Value) -> Job {
    let object = json!({
        "metadata": metadata(run, "object"),
        "spec": {"parallelism": run.job.spec.gang, "template": {}},
        "status": status,
    });
    serde_json::from_value(object).expect("a Job")
}

fn deployment(run: &Run, status: Value) -> Deployment {
    let object = json!({
        "metadata": metadata(run, "object"),
        "spec": {"replicas": 1, "selector": {}, "template": {}},
        "status": status,
    });
    serde_json::from_value(object).expect("a Deployment")
}

fn pod(run: &Run, name: &str, state: Value) -> Pod {
    let status = json!({"containerStatuses": [{"name": "job", "image": "", "imageID": "", "ready": false,
                        "restartCount": 0, "state": state}]});
    serde_json::from_value(json!({"metadata": metadata(run, name), "status": status}))
        .expect("a Pod")
}

/// One run that has been created.
fn world(run: &Run) -> World {
    let mut world = World::new("vision");
    assert!(world.begin(run));
    assert!(!world.begin(run), "once");
    world.created(&run.id, 3);
    world
}

fn put(run: &Run, status: Value) -> Seen {
    Seen::Processes(Change::Put(job(run, status)))
}

fn condition(kind: &str, reason: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": reason, "message": "so it is"})
}

/// What is told of the one run.
fn told(events: Vec<Event>) -> Vec<String> {
    let told = events.into_iter().map(|event| match event {
        Event::Nodes(nodes) => format!("{} nodes", nodes.len()),
        Event::Run(_, Progress::Starting(why)) => format!("starting: {why}"),
        Event::Run(_, Progress::Ready { endpoint }) => {
            format!("ready {}", endpoint.unwrap_or_default())
        }
        Event::Run(_, Progress::Ended(ended)) => {
            format!(
                "{:?}: {} {:?}",
                ended.how,
                ended.message,
                ended.end.map(|end| (end.exit_code, end.signal))
            )
        }
    });
    told.collect()
}

#[test]
fn a_process_starts_runs_and_ends_and_each_is_told_once() {
    let run = process();
    let mut world = world(&run);
    let steps = [
        (json!({}), vec!["starting: 0 of 2 pods run"]),
        (json!({"ready": 1}), vec!["starting: 1 of 2 pods run"]),
        (json!({"ready": 1}), vec![]),
        (json!({"ready": 2}), vec!["ready "]),
        (json!({"ready": 1, "succeeded": 1}), vec![]),
        (json!({"ready": 0}), vec![]),
        (
            json!({"conditions": [condition("Complete", "")]}),
            vec!["Succeeded: all members ended well None"],
        ),
        (json!({"conditions": [condition("Complete", "")]}), vec![]),
    ];
    for (status, expected) in steps {
        assert_eq!(
            told(world.take(put(&run, status.clone()))),
            expected,
            "{status}"
        );
    }
}

#[test]
fn a_failure_says_how_the_first_failed_member_ended() {
    for (terminated, expected) in [
        (json!({"exitCode": 3}), "(Some(3), None)"),
        (json!({"exitCode": 137}), "(None, Some(9))"),
        (json!({"exitCode": 0, "signal": 15}), "(None, Some(15))"),
    ] {
        let run = process();
        let mut world = world(&run);
        let failed = put(
            &run,
            json!({"conditions": [condition("Failed", "BackoffLimitExceeded")]}),
        );
        assert_eq!(world.wants_pods(&failed), Some(run.id.clone()));
        world.take(Seen::Pods(Change::Put(pod(
            &run,
            "p0",
            json!({"terminated": {"exitCode": 0}}),
        ))));
        world.take(Seen::Pods(Change::Put(pod(
            &run,
            "p1",
            json!({"terminated": terminated}),
        ))));
        assert_eq!(world.wants_pods(&failed), None);
        let expected = format!("Failed: BackoffLimitExceeded: so it is Some({expected})");
        assert_eq!(told(world.take(failed)), [expected]);
    }
}

#[test]
fn what_keeps_a_pod_from_starting_is_told_in_the_clusters_words() {
    let run = process();
    let mut world = world(&run);
    let creating = pod(
        &run,
        "p0",
        json!({"waiting": {"reason": "ContainerCreating"}}),
    );
    assert_eq!(told(world.take(Seen::Pods(Change::Put(creating)))), [""; 0]);
    let waiting = json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}});
    let pulled = || Seen::Pods(Change::Put(pod(&run, "p0", waiting.clone())));
    assert_eq!(
        told(world.take(pulled())),
        ["starting: ErrImagePull: no such image"]
    );
    assert_eq!(told(world.take(pulled())), [""; 0], "once");
    let suspended = json!({
        "metadata": metadata(&run, "object"),
        "spec": {"suspend": true, "template": {}},
    });
    let suspended: Job = serde_json::from_value(suspended).expect("a Job");
    let mut other = self::world(&run);
    let told = told(other.take(Seen::Processes(Change::Put(suspended))));
    assert_eq!(told, ["starting: Kueue has not admitted it"]);
}

#[test]
fn a_model_answers_at_its_service_until_it_is_gone() {
    let run = replica();
    let mut world = world(&run);
    let stuck = json!({"type": "Progressing", "status": "False", "message": "timed out"});
    let gone = || Seen::Replicas(Change::Gone(deployment(&run, json!({}))));
    let steps = [
        (json!({}), vec!["starting: 0 of 1 replicas answer"]),
        (json!({"conditions": [stuck]}), vec!["starting: timed out"]),
        (
            json!({"readyReplicas": 1}),
            vec!["ready http://resnet-1-1.vision.svc:8000"],
        ),
        (json!({"readyReplicas": 0}), vec![]),
    ];
    for (status, expected) in steps {
        let seen = Seen::Replicas(Change::Put(deployment(&run, status.clone())));
        assert_eq!(told(world.take(seen)), expected, "{status}");
    }
    assert!(world.stop(&run.id));
    assert_eq!(
        told(world.take(gone())),
        ["Stopped: it was told to stop None"]
    );
    assert_eq!(told(world.take(gone())), [""; 0], "once");
    assert!(!world.stop(&run.id), "it is not there");
}

#[test]
fn what_somebody_else_deletes_is_lost() {
    let run = process();
    let mut world = world(&run);
    world.take(put(&run, json!({"ready": 2})));
    let told = told(world.take(Seen::Processes(Change::Gone(job(&run, json!({}))))));
    assert_eq!(told, ["Lost: its object was deleted from the cluster None"]);
}

#[test]
fn an_absence_counts_only_in_a_list_that_was_begun_later() {
    let all = |number| {
        Seen::Processes(Change::All {
            number,
            items: Vec::new(),
        })
    };
    let run = process();
    let mut new = World::new("vision");
    new.begin(&run);
    assert_eq!(told(new.take(all(9))), [""; 0], "it is being created");
    new.created(&run.id, 9);
    assert_eq!(told(new.take(all(9))), [""; 0], "the list was begun before");
    let lost = ["Lost: its object was deleted from the cluster None"];
    assert_eq!(told(new.take(all(10))), lost);

    let mut known = World::new("vision");
    known.remember(&run);
    let replicas = Seen::Replicas(Change::All {
        number: 1,
        items: Vec::new(),
    });
    assert_eq!(told(known.take(replicas)), [""; 0], "another kind");
    assert_eq!(told(known.take(all(1))), lost);

    let mut seen = World::new("vision");
    seen.begin(&run);
    let there = Seen::Processes(Change::All {
        number: 1,
        items: vec![job(&run, json!({"ready": 2}))],
    });
    assert_eq!(told(seen.take(there)), ["ready "]);
    assert_eq!(told(seen.take(all(2))), lost);
}

#[test]
fn objects_of_nobody_are_left_alone() {
    let mut world = World::new("vision");
    let stranger = process();
    assert_eq!(
        told(world.take(put(&stranger, json!({"ready": 2})))),
        [""; 0]
    );
    let unlabelled: Job =
        serde_json::from_value(json!({"metadata": {"name": "x"}})).expect("a Job");
    assert_eq!(
        told(world.take(Seen::Processes(Change::Put(unlabelled)))),
        [""; 0]
    );
}

#[test]
fn nodes_are_told_when_they_change_and_not_else() {
    let node = |cpu: &str| -> Node {
        let node = json!({"metadata": {"name": "a"}, "status": {
            "allocatable": {"cpu": cpu}, "conditions": [{"type": "Ready", "status": "True"}]}});
        serde_json::from_value(node).expect("a Node")
    };
    let mut world = World::new("vision");
    let none = Change::All {
        number: 1,
        items: Vec::new(),
    };
    assert_eq!(
        told(world.take(Seen::Nodes(none))),
        ["0 nodes"],
        "that is news, too"
    );
    assert_eq!(
        told(world.take(Seen::Nodes(Change::Put(node("4"))))),
        ["1 nodes"]
    );
    assert_eq!(
        told(world.take(Seen::Nodes(Change::Put(node("4"))))),
        [""; 0]
    );
    assert_eq!(
        told(world.take(Seen::Nodes(Change::Put(node("8"))))),
        ["1 nodes"]
    );
    assert_eq!(
        told(world.take(Seen::Nodes(Change::Gone(node("8"))))),
        ["0 nodes"]
    );
}
