//! Work that the scheduler places: a process that runs to its end, or a model that answers until it is cancelled.

mod quantity;
#[cfg(feature = "schema")]
mod schema;
mod status;
#[cfg(test)]
mod tests;
mod timestamp;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::validate::{Findings, is_name};
use super::{API_VERSION, Metadata, Problem, Resource, Spec};

pub use quantity::{Cores, Memory};
pub use status::{
    Condition, ConditionStatus, ConditionType, JobEnd, JobPlacement, JobState, JobStatus, reason,
};
pub use timestamp::Timestamp;

/// A job as it is asked for and as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    pub metadata: Metadata,
    pub spec: JobSpec,
    pub status: JobStatus,
}

/// What is asked for. Either `command` or `model`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobSpec {
    /// The program, and if wanted its first arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Where the program starts; absent means where kapok was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<PathBuf>,
    /// A container's image, for executors that run containers; on this node programs run as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// A model of the repository: the node that is chosen loads it, and its doors answer for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Largest batch of the model, instead of its configuration's. One that cannot have it serves with its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<u32>,
    /// Where it is to run; absent means anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether `region` must be kept to.
    pub region_policy: RegionPolicy,
    /// Whose share of the cluster it counts against.
    pub tenant: String,
    pub priority: JobPriority,
    /// 1 (whatever is left) to 5 (guaranteed).
    pub qos_level: u8,
    /// Of each of its members.
    pub resources: ResourcesSpec,
    /// Members that start together or not at all.
    pub gang: u32,
    /// A process: longest run over all its restarts. A model: longest time until it answers. A job that takes longer is
    /// cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
    /// After the submission: when it should have finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<u64>,
    /// How long it is expected to run; makes back-fill and estimates better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_seconds: Option<u64>,
    /// Whether it may be stopped, and queued again, for a job that matters more; absent means as `priority` has it:
    /// `cost_optimized` may, `realtime` may not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preemptible: Option<bool>,
    /// How often it writes down its progress: a stopped job loses what came after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_interval_seconds: Option<u64>,
    pub restart: RestartSpec,
    /// Between the request to end (SIGTERM) and the end (SIGKILL).
    pub grace_seconds: u64,
}

impl Default for JobSpec {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            args: Vec::new(),
            env: BTreeMap::new(),
            working_dir: None,
            image: None,
            model: None,
            batch_size: None,
            region: None,
            region_policy: RegionPolicy::default(),
            tenant: "default".to_owned(),
            priority: JobPriority::default(),
            qos_level: 3,
            resources: ResourcesSpec::default(),
            gang: 1,
            timeout_seconds: None,
            deadline_seconds: None,
            expected_seconds: None,
            preemptible: None,
            checkpoint_interval_seconds: None,
            restart: RestartSpec::default(),
            // Kubernetes' default is 30; a laptop's user does not wait that long.
            grace_seconds: 10,
        }
    }
}

impl JobSpec {
    /// Whether it may be stopped for a job that matters more.
    pub fn is_preemptible(&self) -> bool {
        self.preemptible
            .unwrap_or(self.priority == JobPriority::CostOptimized)
    }

    /// What people would call it: the model, or the program without its folder.
    pub fn default_name(&self) -> String {
        let program = self.command.first().map(String::as_str).unwrap_or_default();
        let program = program.rsplit('/').next().unwrap_or_default();
        let source = self.model.as_deref().unwrap_or(program);
        let mut name: String = source
            .to_ascii_lowercase()
            .chars()
            .map(|letter| if is_plain(letter) { letter } else { '-' })
            .take(40)
            .collect();
        name = name.trim_matches(['-', '.']).to_owned();
        if name.is_empty() {
            name.push_str("job");
        }
        name
    }
}

fn is_plain(letter: char) -> bool {
    letter.is_ascii_lowercase() || letter.is_ascii_digit() || matches!(letter, '-' | '.')
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum RegionPolicy {
    /// It waits until its region has room.
    #[default]
    Required,
    /// Elsewhere is better than later.
    Preferred,
}

/// How much a job matters.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum JobPriority {
    /// May wait, and be stopped for others.
    #[default]
    CostOptimized,
    /// Never stopped for a `cost_optimized` one.
    Realtime,
}

impl JobPriority {
    pub fn name(self) -> &'static str {
        match self {
            Self::CostOptimized => "cost_optimized",
            Self::Realtime => "realtime",
        }
    }
}

/// What one member needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ResourcesSpec {
    /// Cores: `2`, `0.5` or `500m`.
    pub cpu: Cores,
    /// `512Mi`, `2Gi`, or bytes.
    pub memory: Memory,
    /// Whole ones; with `gpuShare` or `migProfile` one of which a part is taken.
    pub gpus: u8,
    /// A part of one GPU, above 0 and below 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_share: Option<f64>,
    /// A slice of one GPU, such as `1g.10gb`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig_profile: Option<String>,
    /// Of each GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_memory: Option<Memory>,
    /// Any of these models of GPU; absent means any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpu_models: Vec<String>,
}

impl Default for ResourcesSpec {
    fn default() -> Self {
        Self {
            // A job that names nothing still takes something, or a hundred of them would start at once.
            cpu: Cores::from_milli(1_000),
            memory: Memory::from_bytes(256 << 20),
            gpus: 0,
            gpu_share: None,
            mig_profile: None,
            device_memory: None,
            gpu_models: Vec::new(),
        }
    }
}

impl ResourcesSpec {
    /// GPUs that are touched: a share and a slice are of one.
    pub fn gpu_count(&self) -> u8 {
        let part = self.gpu_share.is_some() || self.mig_profile.is_some();
        if part { 1 } else { self.gpus }
    }

    /// Thousandths of each of them.
    pub fn gpu_milli(&self) -> u16 {
        match self.gpu_share {
            Some(share) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "validated to be above 0 and below 1"
                )]
                let milli = (share.clamp(0.0, 1.0) * 1_000.0).round() as u16;
                milli.max(1)
            }
            None => 1_000,
        }
    }
}

/// What happens when a process ends by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RestartSpec {
    pub policy: RestartPolicy,
    /// Restarts after failures; the next failure is the job's. Being stopped for other jobs does not count.
    pub limit: u32,
}

impl Default for RestartSpec {
    fn default() -> Self {
        Self {
            policy: RestartPolicy::Never,
            // Kubernetes' `backoffLimit`.
            limit: 6,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum RestartPolicy {
    /// Its end is the job's end.
    #[default]
    Never,
    /// Again when it fails.
    OnFailure,
}

/// Members of one gang: more need a cluster of their own.
const GANG_MAX: u32 = 1024;

/// Longest time of any kind: a year.
const SECONDS_MAX: u64 = 366 * 24 * 3600;

pub(super) fn check(spec: &JobSpec, found: &mut Findings) {
    check_work(spec, found);
    if let Some(region) = &spec.region {
        found.check(is_name(region), "spec.region", || {
            "a region's name, such as `gz-nansha`".to_owned()
        });
    }
    found.check(is_name(&spec.tenant), "spec.tenant", || {
        "1 to 63 of a-z, 0-9, `-` and `.`, as in names".to_owned()
    });
    found.check((1..=5).contains(&spec.qos_level), "spec.qosLevel", || {
        "from 1 (whatever is left) to 5 (guaranteed)".to_owned()
    });
    found.check((1..=GANG_MAX).contains(&spec.gang), "spec.gang", || {
        format!("from 1 to {GANG_MAX} members")
    });
    for (value, path) in [
        (spec.timeout_seconds, "spec.timeoutSeconds"),
        (spec.deadline_seconds, "spec.deadlineSeconds"),
        (spec.expected_seconds, "spec.expectedSeconds"),
        (
            spec.checkpoint_interval_seconds,
            "spec.checkpointIntervalSeconds",
        ),
    ] {
        let legal = value.is_none_or(|value| (1..=SECONDS_MAX).contains(&value));
        found.check(legal, path, || {
            format!("from 1 to {SECONDS_MAX} seconds, which is a year")
        });
    }
    found.check(spec.grace_seconds <= 3600, "spec.graceSeconds", || {
        "at most 3600: others wait for its place".to_owned()
    });
    check_resources(&spec.resources, found);
}

/// Either a program or a model, and nothing that is only of the other.
fn check_work(spec: &JobSpec, found: &mut Findings) {
    let runs = !spec.command.is_empty() || spec.image.is_some();
    match &spec.model {
        Some(model) => {
            found.check(!model.is_empty(), "spec.model", || {
                "the name of a model, as `kapok models list` shows it".to_owned()
            });
            found.check(!runs, "spec.command", || {
                "a job runs a `command` or serves a `model`, not both".to_owned()
            });
            found.check(spec.args.is_empty(), "spec.args", || {
                "arguments are a command's; a model has none".to_owned()
            });
        }
        None => {
            found.check(runs, "spec.command", || {
                "name the program to run, or the `model` to serve".to_owned()
            });
            found.check(spec.batch_size.is_none(), "spec.batchSize", || {
                "a batch size is a model's; a command has none".to_owned()
            });
        }
    }
    let first = spec.command.first();
    found.check(
        first.is_none_or(|program| !program.is_empty()),
        "spec.command.0",
        || "the program's name is empty".to_owned(),
    );
    if let Some(size) = spec.batch_size {
        found.check((1..=65_536).contains(&size), "spec.batchSize", || {
            "from 1 to 65536".to_owned()
        });
    }
    let strings = spec.command.iter().chain(&spec.args);
    let clean = strings.chain(spec.env.values());
    found.check(
        clean.into_iter().all(|text| !text.contains('\0')),
        "spec.command",
        || "programs, arguments and variables cannot hold a NUL".to_owned(),
    );
    for name in spec.env.keys() {
        let legal = !name.is_empty() && !name.contains(['=', '\0']);
        found.check(legal, "spec.env", || {
            format!(
                "`{}` is no name of an environment variable",
                name.escape_debug()
            )
        });
    }
}

fn check_resources(resources: &ResourcesSpec, found: &mut Findings) {
    found.check(
        resources.cpu.milli() > 0 || resources.gpu_count() > 0,
        "spec.resources.cpu",
        || "above 0; `500m` is half a core".to_owned(),
    );
    found.check(
        resources.memory.bytes() > 0,
        "spec.resources.memory",
        || "above 0, such as `512Mi`".to_owned(),
    );
    let share = resources.gpu_share;
    found.check(
        share.is_none_or(|share| share > 0.0 && share < 1.0),
        "spec.resources.gpuShare",
        || "above 0 and below 1; whole GPUs are `gpus`".to_owned(),
    );
    let parts = usize::from(share.is_some()) + usize::from(resources.mig_profile.is_some());
    found.check(parts <= 1, "spec.resources.migProfile", || {
        "a share or a slice of a GPU, not both".to_owned()
    });
    found.check(
        parts == 0 || resources.gpus <= 1,
        "spec.resources.gpus",
        || "a share or a slice is of one GPU; for several members use `gang`".to_owned(),
    );
    if let Some(profile) = &resources.mig_profile {
        found.check(is_profile(profile), "spec.resources.migProfile", || {
            "compute slices and memory, such as `1g.10gb`".to_owned()
        });
    }
    if let Some(memory) = resources.device_memory {
        let legal = memory.bytes() > 0 && resources.gpu_count() > 0;
        found.check(legal, "spec.resources.deviceMemory", || {
            "memory of a GPU: above 0, and only with `gpus`, `gpuShare` or `migProfile`".to_owned()
        });
    }
}

/// `1g.10gb`, `1g.10gb+me`; which of them a GPU has, the scheduler knows.
fn is_profile(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    let text = text.strip_suffix("+me").unwrap_or(text);
    text.split_once("g.").is_some_and(|(slices, memory)| {
        digits(slices) && memory.strip_suffix("gb").is_some_and(digits)
    })
}

impl Job {
    /// As a manifest, without what has become of it.
    pub fn resource(&self) -> Resource {
        Resource {
            metadata: self.metadata.clone(),
            spec: Spec::Job(Box::new(self.spec.clone())),
        }
    }
}

/// What is sent to submit a job: a manifest whose name may be missing.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    pub metadata: Metadata,
    pub spec: JobSpec,
}

impl Submission {
    /// Reads one manifest from JSON. Errors name the field.
    pub fn from_json(body: &[u8]) -> Result<Self, Problem> {
        let wrong = |path: &str, message: String| Problem {
            path: path.split('.').map(str::to_owned).collect(),
            message,
        };
        let mut document: serde_json::Value = serde_json::from_slice(body)
            .map_err(|error| wrong("body", format!("not JSON: {error}")))?;
        let kind = document["kind"].as_str().unwrap_or_default();
        if kind != "Job" {
            let message = format!("write `apiVersion: {API_VERSION}` and `kind: Job`");
            return Err(wrong("kind", message));
        }
        // Filled in below, when it is known what the job does.
        let nameless = document["metadata"]["name"].is_null();
        if nameless {
            let metadata = &mut document["metadata"];
            if metadata.is_null() || metadata.is_object() {
                metadata["name"] = "job".into();
            }
        }
        // The reader of manifests finds the place of every mistake; JSON is YAML.
        let resources = super::parse_documents(&document.to_string(), "").map_err(|errors| {
            let message = errors.first().map(|error| error.message.clone());
            let message = message.unwrap_or_default();
            let path = message.split('`').find(|part| part.starts_with("spec."));
            wrong(path.unwrap_or("body"), message.clone())
        })?;
        match resources.into_iter().next() {
            Some(Resource {
                mut metadata,
                spec: Spec::Job(spec),
            }) => {
                if nameless {
                    metadata.name = spec.default_name();
                }
                Ok(Self {
                    metadata,
                    spec: *spec,
                })
            }
            _ => Err(wrong("body", "one manifest of kind `Job`".to_owned())),
        }
    }
}
