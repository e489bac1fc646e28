//! The executor against an API server: requests over a socket, watches that end, versions that are forgotten.

use std::time::Duration;

use base::{Clock, Tasks};
use jobs::executor::{Event, Events, Executor as _, How, LogQuery, Progress, Run};
use scheduler::queue::qos::Table;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Kubernetes;
use crate::api_server::{ApiServer, Kind};
use crate::manifest::object_name;
use crate::manifest::tests::{cluster, run};

const GRACE: Duration = Duration::from_secs(10);

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct Scene {
    server: ApiServer,
    executor: Kubernetes,
    events: mpsc::Receiver<Event>,
    /// The tasks end with it.
    _tasks: Tasks,
}

impl Scene {
    async fn with(known: Vec<Run>, prepare: impl FnOnce(&ApiServer)) -> Self {
        let tasks = Tasks::new();
        let server = ApiServer::start(&tasks).await;
        prepare(&server);
        let executor = Kubernetes::new(server.client(), cluster(), (tasks.clone(), Clock::real()));
        let (tell, events): (Events, _) = mpsc::channel(64);
        executor
            .watch(known, tell)
            .await
            .expect("the cluster is there");
        Self {
            server,
            executor,
            events,
            _tasks: tasks,
        }
    }

    async fn next(&mut self) -> Event {
        let next = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        next.expect("an event in time").expect("the executor lives")
    }

    /// What is told next of a run; nodes are passed over.
    async fn progress(&mut self) -> Progress {
        loop {
            if let Event::Run(_, progress) = self.next().await {
                return progress;
            }
        }
    }

    async fn ended(&mut self) -> jobs::executor::Ended {
        loop {
            if let Progress::Ended(ended) = self.progress().await {
                return ended;
            }
        }
    }

    async fn started(&mut self, spec: Value) -> (Run, String) {
        let run = run("train-1", spec, &["gpu-1"]);
        self.executor.start(run.clone()).await.expect("it is taken");
        let name = object_name(&run.id);
        (run, name)
    }
}

fn command() -> Value {
    json!({"command": ["a"]})
}

fn condition(kind: &str) -> Value {
    json!({"conditions": [{"type": kind, "status": "True", "reason": "BackoffLimitExceeded", "message": "one failed"}]})
}

#[tokio::test]
async fn a_job_runs_to_its_end() {
    let mut scene = Scene::with(Vec::new(), |_| {}).await;
    let (run, name) = scene.started(command()).await;
    scene
        .executor
        .start(run.clone())
        .await
        .expect("twice is once");
    let job = scene.server.get(Kind::Jobs, &name).expect("it is created");
    assert_eq!(job["metadata"]["namespace"], "vision");
    assert_eq!(
        job["spec"]["template"]["spec"]["priorityClassName"],
        "kapok-cost-optimized-3"
    );
    let classes = scene
        .server
        .get(Kind::PriorityClasses, "kapok-cost-optimized-3");
    assert!(classes.is_some(), "made before they are named");
    assert_eq!(
        scene.progress().await,
        Progress::Starting("0 of 1 pods run".to_owned())
    );
    scene
        .server
        .set_status(Kind::Jobs, &name, &json!({"ready": 1}));
    assert_eq!(scene.progress().await, Progress::Ready { endpoint: None });
    scene
        .server
        .set_status(Kind::Jobs, &name, &condition("Complete"));
    assert_eq!(scene.ended().await.how, How::Succeeded);
}

#[tokio::test]
async fn a_killed_process_is_reported_with_its_signal() {
    let mut scene = Scene::with(Vec::new(), |_| {}).await;
    let (_, name) = scene.started(command()).await;
    let job = scene.server.get(Kind::Jobs, &name).expect("it is created");
    let state = json!({"terminated": {"exitCode": 137, "reason": "Error"}});
    let status = json!({"containerStatuses": [{"name": "job", "image": "", "imageID": "", "ready": false,
                        "restartCount": 0, "state": state}]});
    scene.server.pod_of(&job, "train-1-1-0", &status);
    scene
        .server
        .set_status(Kind::Jobs, &name, &condition("Failed"));
    let ended = scene.ended().await;
    assert_eq!(
        (ended.how, ended.end.and_then(|end| end.signal)),
        (How::Failed, Some(9))
    );
    assert!(ended.message.contains("one failed"), "{}", ended.message);
}

#[tokio::test]
async fn a_stop_is_the_end_only_when_nothing_is_left() {
    let mut scene = Scene::with(Vec::new(), |_| {}).await;
    let (run, name) = scene.started(command()).await;
    scene
        .server
        .set_status(Kind::Jobs, &name, &json!({"ready": 1}));
    while scene.progress().await != (Progress::Ready { endpoint: None }) {}
    scene
        .executor
        .stop(&run.id, GRACE)
        .await
        .expect("it is told");
    let leaving = scene
        .server
        .get(Kind::Jobs, &name)
        .expect("its pods are still there");
    assert_eq!(
        leaving["metadata"]["deletionTimestamp"]
            .as_str()
            .map(str::len),
        Some(20)
    );
    assert!(scene.events.try_recv().is_err(), "nothing is told yet");
    scene.server.remove(Kind::Jobs, &name);
    assert_eq!(scene.ended().await.how, How::Stopped);
    scene
        .executor
        .stop(&run.id, GRACE)
        .await
        .expect("twice is once");
}

#[tokio::test]
async fn a_model_answers_at_its_service() {
    let mut scene = Scene::with(Vec::new(), |_| {}).await;
    let (run, name) = scene.started(json!({"model": "resnet"})).await;
    assert!(scene.server.get(Kind::Services, &name).is_some());
    scene
        .server
        .set_status(Kind::Deployments, &name, &json!({"readyReplicas": 1}));
    let endpoint = Some(format!("http://{name}.vision.svc:8000"));
    while scene.progress().await
        != (Progress::Ready {
            endpoint: endpoint.clone(),
        })
    {}
    scene
        .executor
        .stop(&run.id, GRACE)
        .await
        .expect("it is told");
    assert!(scene.server.get(Kind::Services, &name).is_none());
    scene.server.remove(Kind::Deployments, &name);
    assert_eq!(scene.ended().await.how, How::Stopped);
}

#[tokio::test]
async fn nothing_is_missed_when_watches_end_and_versions_are_forgotten() {
    let mut scene = Scene::with(Vec::new(), |_| {}).await;
    let (_, name) = scene.started(command()).await;
    scene.server.cut_watches();
    scene
        .server
        .set_status(Kind::Jobs, &name, &json!({"ready": 1}));
    while scene.progress().await != (Progress::Ready { endpoint: None }) {}
    // While nobody watches, it ends and is deleted, and no history tells of it.
    scene.server.refuse("GET /apis/batch/v1/", 503);
    scene.server.cut_watches();
    let tries = |server: &ApiServer| {
        let asked = server.requests();
        let jobs = asked
            .iter()
            .filter(|line| line.starts_with("GET /apis/batch/v1/"));
        jobs.count()
    };
    let before = tries(&scene.server);
    scene
        .server
        .until("it is asked again", |server| {
            (tries(server) > before).then_some(())
        })
        .await;
    scene.server.remove(Kind::Jobs, &name);
    scene.server.forget_history();
    scene.server.refuse_nothing();
    assert_eq!(scene.ended().await.how, How::Lost);
}

#[tokio::test]
async fn runs_of_before_are_watched_on_or_lost() {
    let (there, gone) = (
        run("there-1", command(), &[]),
        run("gone-1", command(), &[]),
    );
    let writer = crate::manifest::Writer {
        cluster: &cluster(),
        promises: &Table::default(),
        owner: None,
    };
    let crate::manifest::Objects::Process(mut job) = writer.objects(&there) else {
        unreachable!("a command is a process")
    };
    job.status = Some(serde_json::from_value(json!({"ready": 1})).expect("a status"));
    let job = serde_json::to_value(&*job).expect("JSON");
    let known = vec![there.clone(), gone.clone()];
    let mut scene = Scene::with(known, |server| server.put(Kind::Jobs, job)).await;
    let mut told = Vec::new();
    while told.len() < 2 {
        if let Event::Run(id, progress) = scene.next().await {
            told.push((id, progress));
        }
    }
    told.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(told[1], (there.id, Progress::Ready { endpoint: None }));
    assert!(
        matches!(&told[0], (id, Progress::Ended(ended)) if *id == gone.id && ended.how == How::Lost),
        "{told:?}"
    );
    let created = scene.server.requests();
    assert!(
        !created
            .iter()
            .any(|line| line.starts_with("POST /apis/batch")),
        "{created:?}"
    );
}

#[tokio::test]
async fn nodes_come_and_go() {
    let node = |ready: &str| {
        json!({"metadata": {"name": "gpu-1", "labels": {"topology.kubernetes.io/region": "gz-nansha"}},
               "status": {"allocatable": {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "2"},
                          "conditions": [{"type": "Ready", "status": ready}]}})
    };
    let mut scene = Scene::with(Vec::new(), |server| server.put(Kind::Nodes, node("True"))).await;
    let Event::Nodes(nodes) = scene.next().await else {
        unreachable!("nothing runs")
    };
    assert_eq!(
        (
            nodes[0].name.as_str(),
            nodes[0].region.as_str(),
            nodes[0].gpus
        ),
        ("gpu-1", "gz-nansha", 2)
    );
    scene.server.put(Kind::Nodes, node("Unknown"));
    assert_eq!(scene.next().await, Event::Nodes(Vec::new()));
    scene.server.put(Kind::Nodes, node("True"));
    assert!(matches!(scene.next().await, Event::Nodes(nodes) if nodes.len() == 1));
}

#[tokio::test]
async fn a_refusal_of_the_cluster_is_the_callers_to_read() {
    let scene = Scene::with(Vec::new(), |_| {}).await;
    scene.server.refuse("POST /apis/batch/v1/", 403);
    let run = run("train-1", command(), &[]);
    let refused = scene
        .executor
        .start(run.clone())
        .await
        .expect_err("it is refused");
    assert!(
        refused.to_string().contains("take the Job: Refused"),
        "{refused}"
    );
    scene.server.refuse_nothing();
    scene
        .executor
        .start(run.clone())
        .await
        .expect("it was not remembered");
    assert!(
        scene
            .server
            .get(Kind::Jobs, &object_name(&run.id))
            .is_some()
    );
}

#[tokio::test]
async fn output_is_read_run_after_run_and_goes_when_the_job_is_forgotten() {
    let mut scene = Scene::with(Vec::new(), |_| {}).await;
    let (run, name) = scene.started(command()).await;
    let job = scene.server.get(Kind::Jobs, &name).expect("it is created");
    for (pod, attempt, prints) in [
        ("b", "1", json!({"prints": "one\n"})),
        ("a", "2", json!({"prints": "two\n"})),
        ("c", "3", json!({})),
    ] {
        scene.server.pod_of(&job, pod, &json!({}));
        let mut object = scene.server.get(Kind::Pods, pod).expect("it is there");
        object["metadata"]["labels"]["kapok.dev/attempt"] = attempt.into();
        object["metadata"]["annotations"] = prints;
        scene.server.put(Kind::Pods, object);
    }
    let mut read = Vec::new();
    let mut logs = scene
        .executor
        .logs(&run.id.job, LogQuery::default())
        .await
        .expect("logs");
    while let Some(piece) = logs.next().await.expect("a piece") {
        read.extend_from_slice(&piece);
    }
    assert_eq!(String::from_utf8_lossy(&read), "one\ntwo\n");
    scene
        .executor
        .forget(&run.id.job)
        .await
        .expect("it is forgotten");
    assert!(scene.server.get(Kind::Jobs, &name).is_none());
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let mut scene = Scene::with(Vec::new(), |server| {
        for number in 0..1_100 {
            let node = json!({"metadata": {"name": format!("n-{number}")},
                "status": {"allocatable": {"cpu": "1"}, "conditions": [{"type": "Ready", "status": "True"}]}});
            server.put(Kind::Nodes, node);
        }
    })
    .await;
    assert!(matches!(scene.next().await, Event::Nodes(nodes) if nodes.len() == 1_100));
}

#[tokio::test]
async fn a_job_is_shown_as_a_resource_with_its_conditions() {
    let mut scene = Scene::with(Vec::new(), |_| {}).await;
    let (run, name) = scene.started(command()).await;
    let shown = scene
        .server
        .get(Kind::KapokJobs, "train-1")
        .expect("it is shown");
    assert_eq!(shown["spec"]["command"], json!(["a"]));
    assert_eq!(shown["status"]["state"], "Starting");
    let job = scene.server.get(Kind::Jobs, &name).expect("it is created");
    let owner = &job["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["name"], &owner["uid"]),
        (&json!("train-1"), &shown["metadata"]["uid"])
    );
    scene
        .server
        .set_status(Kind::Jobs, &name, &json!({"ready": 1}));
    while scene.progress().await != (Progress::Ready { endpoint: None }) {}
    scene
        .server
        .set_status(Kind::Jobs, &name, &condition("Failed"));
    assert_eq!(scene.ended().await.how, How::Failed);
    let shown = scene
        .server
        .get(Kind::KapokJobs, "train-1")
        .expect("it is shown");
    let conditions = shown["status"]["conditions"]
        .as_array()
        .expect("conditions");
    let holds = |one: &Value| format!("{}={}", one["type"], one["status"]).replace('"', "");
    let holds: Vec<String> = conditions.iter().map(holds).collect();
    assert_eq!(holds, ["Admitted=True", "PodsReady=True", "Finished=True"]);
    assert_eq!(shown["status"]["state"], "Failed");
    assert!(shown["status"]["startedAt"].is_string() && shown["status"]["finishedAt"].is_string());
    scene
        .executor
        .forget(&run.id.job)
        .await
        .expect("it is forgotten");
    assert!(scene.server.get(Kind::KapokJobs, "train-1").is_none());
}

#[tokio::test]
async fn a_cluster_without_the_definition_runs_jobs_all_the_same() {
    let mut scene = Scene::with(Vec::new(), |server| {
        server.refuse("POST /apis/kapok.dev/", 404);
    })
    .await;
    let (run, name) = scene.started(command()).await;
    let job = scene.server.get(Kind::Jobs, &name).expect("it is created");
    assert!(job["metadata"]["ownerReferences"].is_null());
    scene
        .server
        .set_status(Kind::Jobs, &name, &condition("Complete"));
    assert_eq!(scene.ended().await.how, How::Succeeded);
    scene
        .executor
        .forget(&run.id.job)
        .await
        .expect("it is forgotten");
    let asked = scene.server.requests();
    let of_ours = asked
        .iter()
        .filter(|line| line.contains("/apis/kapok.dev/"));
    assert_eq!(of_ours.count(), 1, "it asks once");
}
