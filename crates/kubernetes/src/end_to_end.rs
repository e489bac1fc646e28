//! The real `kapok up` with the feature `kubernetes`, between a client's requests and an API server in memory.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use base::Tasks;
use jobs::executor::RunId;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::api_server::{ApiServer, Kind};
use crate::manifest::object_name;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// `cargo xtask test` builds and names it: the other tests' kapok does without the feature.
fn binary() -> Option<PathBuf> {
    std::env::var_os("KAPOK_TEST_KUBERNETES_BINARY").map(PathBuf::from)
}

/// A cluster of one node.
struct Scene {
    binary: PathBuf,
    server: ApiServer,
    home: TempDir,
    /// The server ends with it.
    _tasks: Tasks,
}

impl Scene {
    async fn new() -> Option<Self> {
        let binary = binary()?;
        let tasks = Tasks::new();
        let server = ApiServer::start(&tasks).await;
        let node = json!({
            "metadata": {"name": "gpu-1", "labels": {"topology.kubernetes.io/region": "gz-nansha"}},
            "status": {"allocatable": {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "2"},
                       "conditions": [{"type": "Ready", "status": "True"}]},
        });
        server.put(Kind::Nodes, node);
        let home = tempfile::tempdir().expect("a temporary folder");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "memory", "cluster": {"server": server.url()}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "memory", "user": "nobody"}}],
        });
        let path = home.path().join("kubeconfig");
        fs::write(&path, kubeconfig.to_string()).expect("the folder is ours");
        let config = json!({
            "apiVersion": "kapok.dev/v1alpha1", "kind": "Node", "metadata": {"name": "front"},
            "spec": {"jobs": {"kubernetes": {
                "kubeconfig": path, "namespace": "vision", "image": "registry.example.com/kapok:1", "queueName": "gpus",
            }}},
        });
        fs::write(home.path().join("kapok.yaml"), config.to_string()).expect("the folder is ours");
        Some(Self {
            binary,
            server,
            home,
            _tasks: tasks,
        })
    }

    async fn start(&self) -> Running {
        let home = self.home.path();
        let log = File::create(home.join("log")).expect("the folder is ours");
        let mut child = Command::new(&self.binary)
            .args(["up", "--config", "kapok.yaml", "--data", "data"])
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--output", "json"])
            .env("KAPOK_CACHE", home.join("cache"))
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        let heard = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            loop {
                line.clear();
                let count = out.read_line(&mut line).expect("it is text");
                let told: Value = serde_json::from_str(&line).unwrap_or_default();
                let address = told["listening"]["public"].as_str();
                if let Some(address) = address.and_then(|address| address.parse().ok()) {
                    return Some((address, out));
                }
                if count == 0 {
                    return None;
                }
            }
        });
        let heard = heard.await.expect("no panic");
        let (address, out) = heard.unwrap_or_else(|| {
            let log = fs::read_to_string(home.join("log")).unwrap_or_default();
            unreachable!("it does not listen: {log}")
        });
        Running {
            child,
            address,
            _out: out,
        }
    }

    /// How often the cluster was asked for a Job.
    fn created(&self) -> usize {
        let requests = self.server.requests();
        let made = |line: &&String| line.starts_with("POST /apis/batch/v1/namespaces/vision/jobs");
        requests.iter().filter(made).count()
    }

    /// As kubelets and the job controller write it, with Kueue's consent.
    fn plays(&self, name: &str, status: &Value) {
        let mut job = self.server.get(Kind::Jobs, name).expect("it is there");
        job["spec"]["suspend"] = json!(false);
        job["status"] = status.clone();
        self.server.put(Kind::Jobs, job);
    }
}

struct Running {
    child: Child,
    address: SocketAddr,
    /// It prints as long as somebody listens.
    _out: BufReader<ChildStdout>,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Running {
    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: kapok\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream
            .write_all(request.as_bytes())
            .await
            .expect("it reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("it answers");
        let answer = String::from_utf8(answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = serde_json::from_str(body).unwrap_or_default();
        (status.expect("a status"), body)
    }

    async fn submit(&self, spec: Value) -> (String, String) {
        let manifest =
            json!({"apiVersion": "kapok.dev/v1alpha1", "kind": "Job", "spec": spec}).to_string();
        let (code, job) = self.ask("POST", "/api/v1/jobs", &manifest).await;
        assert_eq!(code, 201, "{job}");
        let id = job["status"]["id"].as_str().expect("an id").to_owned();
        let run = RunId {
            job: id.clone(),
            attempt: 1,
        };
        (id, object_name(&run))
    }

    async fn becomes(&self, id: &str, state: &str) -> Value {
        let mut last = Value::Null;
        let looks = async {
            loop {
                let (_, job) = self.ask("GET", &format!("/api/v1/jobs/{id}"), "").await;
                last = job["status"].clone();
                if last["state"] == state {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, looks).await;
        assert!(in_time.is_ok(), "not {state}: {last}");
        last
    }
}

fn ended(kind: &str) -> Value {
    json!({"conditions": [{"type": kind, "status": "True", "reason": "So", "message": "it ended"}]})
}

#[tokio::test]
async fn a_submitted_job_is_created_with_all_that_it_asked_for_and_seen_to_its_end() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let kapok = scene.start().await;
    let refused = json!({"apiVersion": "kapok.dev/v1alpha1", "kind": "Job", "spec": {"model": "m", "batchSize": 4}});
    let (code, told) = kapok
        .ask("POST", "/api/v1/jobs", &refused.to_string())
        .await;
    assert_eq!(code, 400, "{told}");
    let spec = json!({
        "command": ["python3", "train.py"], "image": "train:2", "region": "gz-nansha", "priority": "realtime",
        "qosLevel": 5, "resources": {"cpu": 2, "memory": "4Gi", "gpus": 1},
    });
    let (id, name) = kapok.submit(spec).await;
    let found = |server: &ApiServer| server.get(Kind::Jobs, &name);
    let job = scene.server.until("the Job", found).await;
    assert_eq!(job["spec"]["suspend"], true);
    let labels = &job["metadata"]["labels"];
    assert_eq!(labels["kueue.x-k8s.io/queue-name"], "gpus");
    assert_eq!(labels["kapok.dev/job"], id.as_str());
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["priorityClassName"], "kapok-realtime-5");
    let classes = scene.server.get(Kind::PriorityClasses, "kapok-realtime-5");
    assert!(classes.is_some(), "it is named before it is there");
    // Guaranteed: what is requested is the limit.
    let resources = &pod["containers"][0]["resources"];
    for resource in ["cpu", "memory"] {
        assert!(resources["limits"][resource].is_string(), "{resources}");
        assert_eq!(
            resources["requests"][resource],
            resources["limits"][resource]
        );
    }
    assert_eq!(resources["limits"]["nvidia.com/gpu"], "1");
    let affinity = pod["affinity"]["nodeAffinity"].to_string();
    for words in ["kubernetes.io/hostname", "gpu-1", "gz-nansha"] {
        assert!(affinity.contains(words), "{affinity}");
    }
    let waits = kapok.becomes(&id, "Starting").await;
    assert_eq!(waits["placements"][0]["node"], "gpu-1");
    scene.plays(&name, &json!({"ready": 1}));
    kapok.becomes(&id, "Running").await;
    scene.plays(&name, &ended("Complete"));
    let status = kapok.becomes(&id, "Succeeded").await;
    assert_eq!(status["attempts"], 1);
}

#[tokio::test]
async fn a_kapok_that_was_killed_goes_on_with_what_runs_on_the_cluster() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let kapok = scene.start().await;
    let spec = || json!({"command": ["a"], "image": "a:1"});
    let (goes_on, on_name) = kapok.submit(spec()).await;
    let (ends, ends_name) = kapok.submit(spec()).await;
    for (id, name) in [(&goes_on, &on_name), (&ends, &ends_name)] {
        let found = |server: &ApiServer| server.get(Kind::Jobs, name);
        scene.server.until("the Job", found).await;
        scene.plays(name, &json!({"ready": 1}));
        kapok.becomes(id, "Running").await;
    }
    drop(kapok);
    scene.plays(&ends_name, &ended("Complete"));
    let kapok = scene.start().await;
    let status = kapok.becomes(&ends, "Succeeded").await;
    assert_eq!(status["attempts"], 1, "{status}");
    let status = kapok.becomes(&goes_on, "Running").await;
    assert_eq!(status["attempts"], 1, "{status}");
    assert_eq!(scene.created(), 2, "what was there was made again");
    let cancel = format!("/api/v1/jobs/{goes_on}/cancel");
    let (code, told) = kapok.ask("POST", &cancel, "").await;
    assert_eq!(code, 200, "{told}");
    let leaving = |server: &ApiServer| {
        let job = server.get(Kind::Jobs, &on_name)?;
        job["metadata"]["deletionTimestamp"]
            .is_string()
            .then_some(())
    };
    scene.server.until("the Job to be deleted", leaving).await;
    kapok.becomes(&goes_on, "Stopping").await;
    scene.server.remove(Kind::Jobs, &on_name);
    kapok.becomes(&goes_on, "Cancelled").await;
}
