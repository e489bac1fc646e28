use std::collections::BTreeMap;
use std::sync::Arc;

use expect_test::expect_file;
use jobs::executor::{Run, RunId};
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use protocol::resource::{
    GpuSharing, Job, JobPlacement, JobSpec, JobStatus, KubernetesSpec, Metadata, Timestamp,
};
use scheduler::queue::qos::Table;
use serde_json::{Value, json};

use super::*;

pub(crate) fn cluster() -> KubernetesSpec {
    KubernetesSpec {
        namespace: "vision".to_owned(),
        image: Some("registry.example.com/kapok:1".to_owned()),
        ..KubernetesSpec::default()
    }
}

/// The first attempt of a job of this specification.
pub(crate) fn run(id: &str, spec: Value, nodes: &[&str]) -> Run {
    let spec: JobSpec = serde_json::from_value(spec).expect("a specification");
    let job = Job {
        metadata: Metadata {
            name: spec.default_name(),
            ..Metadata::default()
        },
        spec,
        status: JobStatus::new(id.to_owned(), Timestamp::from_millis(0)),
    };
    let placements = nodes.iter().map(|node| JobPlacement {
        node: (*node).to_owned(),
        region: String::new(),
        gpus: Vec::new(),
    });
    Run {
        id: RunId {
            job: id.to_owned(),
            attempt: 1,
        },
        job: Arc::new(job),
        placements: placements.collect(),
    }
}

fn objects(cluster: &KubernetesSpec, run: &Run) -> Vec<Value> {
    let writer = Writer {
        cluster,
        promises: &Table::default(),
        owner: None,
    };
    writer.check(&run.job.spec).expect("a cluster can do it");
    let value = |object: Result<Value, serde_json::Error>| object.expect("JSON");
    match writer.objects(run) {
        Objects::Process(job) => vec![value(serde_json::to_value(&*job))],
        Objects::Replica(deployment, service) => vec![
            value(serde_json::to_value(&*deployment)),
            value(serde_json::to_value(&*service)),
        ],
    }
}

fn pretty(objects: &[Value]) -> String {
    let text: Vec<String> = objects
        .iter()
        .map(|object| serde_json::to_string_pretty(object).expect("JSON"))
        .collect();
    text.join("\n") + "\n"
}

#[test]
fn a_gang_is_an_indexed_job_on_its_nodes() {
    let spec = json!({
        "command": ["python3", "train.py"], "args": ["--lr=$(LR)"], "env": {"LR": "0.1"}, "image": "train:2",
        "workingDir": "/work", "region": "gz-nansha", "priority": "realtime", "qosLevel": 5, "gang": 2,
        "timeoutSeconds": 300, "tenant": "team-a", "graceSeconds": 30,
        "resources": {"cpu": 4, "memory": "16Gi", "gpus": 2, "gpuModels": ["NVIDIA-A100-SXM4-80GB"]},
    });
    let run = run("train-7f", spec, &["gpu-2", "gpu-1"]);
    let mut cluster = cluster();
    cluster.queue_name = Some("gpus".to_owned());
    cluster.service_account = Some("trainer".to_owned());
    expect_file!["golden/process.json"].assert_eq(&pretty(&objects(&cluster, &run)));
}

#[test]
fn a_model_is_a_deployment_with_a_service() {
    let spec = json!({
        "model": "org/resnet50 v2", "region": "bj", "regionPolicy": "preferred", "qosLevel": 3, "gang": 2,
        "resources": {"cpu": 2, "memory": "4Gi", "migProfile": "1g.10gb+me"},
    });
    let run = run("resnet50-v2-3", spec, &[]);
    let mut cluster = cluster();
    cluster.models_claim = Some("models".to_owned());
    expect_file!["golden/replica.json"].assert_eq(&pretty(&objects(&cluster, &run)));
}

#[test]
fn priority_classes_are_one_for_each_priority_and_level() {
    let classes = priority_classes();
    let text = classes
        .iter()
        .map(|class| serde_json::to_value(class).expect("JSON"));
    expect_file!["golden/priority_classes.json"].assert_eq(&pretty(&text.collect::<Vec<_>>()));
    let value = |name: &str| {
        let named = |class: &&k8s_openapi::api::scheduling::v1::PriorityClass| {
            class.metadata.name.as_deref() == Some(name)
        };
        classes.iter().find(named).expect(name).value
    };
    assert!(value("kapok-realtime-1") > value("kapok-cost-optimized-5"));
    assert!(
        value("kapok-realtime-5") <= 1_000_000_000,
        "the users' part"
    );
    assert!(
        classes
            .iter()
            .all(|class| class.preemption_policy.as_deref() == Some("Never"))
    );
}

fn pod_of(objects: &[Value]) -> PodSpec {
    let pod = objects[0]["spec"]["template"]["spec"].clone();
    serde_json::from_value(pod).expect("a pod")
}

/// As the kubelet derives it: <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>.
fn qos_class(pod: &PodSpec) -> &'static str {
    let resources = pod.containers[0].resources.as_ref();
    let counted = |amounts: Option<&BTreeMap<_, _>>| -> BTreeMap<String, String> {
        let all = amounts.into_iter().flatten();
        let counted = all
            .filter(|(name, _): &(&String, &Quantity)| matches!(name.as_str(), "cpu" | "memory"));
        counted
            .map(|(name, amount)| (name.clone(), amount.0.clone()))
            .collect()
    };
    let requests = counted(resources.and_then(|found| found.requests.as_ref()));
    let limits = counted(resources.and_then(|found| found.limits.as_ref()));
    match (requests.len(), limits.len()) {
        (0, 0) => "BestEffort",
        (_, 2) if requests == limits || requests.is_empty() => "Guaranteed",
        _ => "Burstable",
    }
}

#[test]
fn levels_have_their_qos_class_whatever_the_devices() {
    for (level, expected) in [
        (1, "BestEffort"),
        (2, "Burstable"),
        (3, "Burstable"),
        (4, "Burstable"),
        (5, "Guaranteed"),
    ] {
        for devices in [
            json!({}),
            json!({"gpus": 1}),
            json!({"migProfile": "3g.40gb"}),
        ] {
            let spec = json!({"command": ["a"], "qosLevel": level, "resources": devices});
            let pod = pod_of(&objects(&cluster(), &run("a-1", spec, &[])));
            assert_eq!(qos_class(&pod), expected, "level {level}, {devices}");
            let class = pod.priority_class_name.expect("a class");
            assert_eq!(class, format!("kapok-cost-optimized-{level}"));
        }
    }
}

#[test]
fn devices_have_the_plugins_names_and_whole_numbers() {
    let hami = GpuSharing::Hami;
    let sliced = GpuSharing::TimeSlicing;
    for (wanted, sharing, expected) in [
        (json!({"gpus": 8}), sliced, json!({"nvidia.com/gpu": "8"})),
        (
            json!({"gpuShare": 0.25}),
            sliced,
            json!({"nvidia.com/gpu.shared": "1"}),
        ),
        (
            json!({"gpuShare": 0.255, "deviceMemory": "4Gi"}),
            hami,
            json!({"nvidia.com/gpu": "1", "nvidia.com/gpucores": "26", "nvidia.com/gpumem": "4096"}),
        ),
        (
            json!({"migProfile": "1g.10gb"}),
            hami,
            json!({"nvidia.com/mig-1g.10gb": "1"}),
        ),
        (
            json!({"migProfile": "1g.5gb+me"}),
            sliced,
            json!({"nvidia.com/mig-1g.5gb.me": "1"}),
        ),
        (json!({}), sliced, json!(null)),
    ] {
        let mut cluster = cluster();
        cluster.gpu_sharing = sharing;
        let spec = json!({"command": ["a"], "qosLevel": 1, "resources": wanted});
        let objects = objects(&cluster, &run("a-1", spec, &[]));
        let pod = &objects[0]["spec"]["template"]["spec"];
        assert_eq!(
            pod["containers"][0]["resources"]["limits"], expected,
            "{wanted}"
        );
        assert_eq!(
            pod["tolerations"].is_array(),
            expected.is_object(),
            "{wanted}"
        );
    }
}

#[test]
fn names_are_dns_labels_and_differ_where_runs_do() {
    let of = |job: &str, attempt| {
        object_name(&RunId {
            job: job.to_owned(),
            attempt,
        })
    };
    assert_eq!(of("a.b-1", 2), "a-b-1-2");
    assert_eq!(of("7-x", 1), "j7-x-1");
    let long = "x".repeat(57) + "-1abcd";
    let name = of(&long, u32::MAX);
    assert!(
        name.len() <= 63 && name.ends_with("-1abcd-4294967295"),
        "{name}"
    );
    assert_ne!(of(&long, 1), of(&long, 2));
}

#[test]
fn what_a_cluster_cannot_do_is_said_before_it_is_asked() {
    let promises = Table::default();
    let bare = KubernetesSpec::default();
    for (cluster, spec, words) in [
        (
            &cluster(),
            json!({"model": "m", "batchSize": 4}),
            "max_batch_size",
        ),
        (&bare, json!({"model": "m"}), "kubernetes.image"),
        (&bare, json!({"command": ["a"]}), "kubernetes.image"),
    ] {
        let writer = Writer {
            cluster,
            promises: &promises,
            owner: None,
        };
        let refused = writer
            .check(&run("a-1", spec, &[]).job.spec)
            .expect_err(words);
        assert!(refused.to_string().contains(words), "{refused}");
    }
}

#[test]
fn an_object_says_which_run_it_belongs_to() {
    let run = run("a.b-1", json!({"command": ["a"]}), &[]);
    let objects = objects(&cluster(), &run);
    let metadata = |value: &Value| serde_json::from_value(value.clone()).expect("metadata");
    assert_eq!(
        run_of(&metadata(&objects[0]["metadata"])),
        Some(run.id.clone())
    );
    let pod = &objects[0]["spec"]["template"]["metadata"];
    assert_eq!(run_of(&metadata(pod)), Some(run.id));
    assert_eq!(run_of(&ObjectMeta::default()), None);
}
