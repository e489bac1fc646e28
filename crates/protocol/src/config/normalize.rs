//! What Triton fills in before it has seen the model: which backend, from which file, and its defaults.

use std::collections::BTreeSet;

use super::{Problem, ensemble};
use crate::oip::proto::model_config::SchedulingChoice;
use crate::oip::proto::model_instance_group::Kind;
use crate::oip::proto::model_optimization_policy::PinnedMemoryBuffer;
use crate::oip::proto::model_sequence_batching::control::Kind as ControlKind;
use crate::oip::proto::model_sequence_batching::{Control, ControlInput, StrategyChoice};
use crate::oip::proto::model_version_policy::{Latest, PolicyChoice};
use crate::oip::proto::{DataType, ModelConfig, ModelInstanceGroup, ModelVersionPolicy};

pub(super) const ONNX_BACKEND: &str = "onnxruntime";

/// A shared library with kapok's own node interface; Triton has nothing like it.
pub(super) const NODE_BACKEND: &str = "node";

/// Triton's own count of instances of an ONNX model on a CPU.
const ONNX_INSTANCES: i32 = 2;

/// Triton closes a sequence after a second without requests.
const SEQUENCE_IDLE_MICROSECONDS: u64 = 1_000_000;

/// What lies in the folder of a model's version: names only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    pub files: BTreeSet<String>,
    pub folders: BTreeSet<String>,
}

/// A backend that is known by the name of a model's file.
struct Known {
    backend: &'static str,
    /// The older spelling; empty where there is none.
    platform: &'static str,
    file: &'static str,
    shape: Shape,
}

/// What the model's file may be on disk.
enum Shape {
    File,
    Folder,
    Either,
}

/// In the order in which Triton looks; ours come last.
const KNOWN: &[Known] = &[
    known(
        "tensorflow",
        "tensorflow_savedmodel",
        "model.savedmodel",
        Shape::Folder,
    ),
    known(
        "tensorflow",
        "tensorflow_graphdef",
        "model.graphdef",
        Shape::File,
    ),
    known("tensorrt", "tensorrt_plan", "model.plan", Shape::File),
    known(
        ONNX_BACKEND,
        "onnxruntime_onnx",
        "model.onnx",
        Shape::Either,
    ),
    known("openvino", "", "model.xml", Shape::Either),
    known("pytorch", "pytorch_libtorch", "model.pt", Shape::File),
    known("python", "", "model.py", Shape::Either),
    known(NODE_BACKEND, "", "model.so", Shape::File),
];

const fn known(
    backend: &'static str,
    platform: &'static str,
    file: &'static str,
    shape: Shape,
) -> Known {
    Known {
        backend,
        platform,
        file,
        shape,
    }
}

impl Known {
    fn lies_in(&self, contents: Option<&Contents>) -> bool {
        contents.is_some_and(|contents| {
            let file = contents.files.contains(self.file);
            let folder = contents.folders.contains(self.file);
            match self.shape {
                Shape::File => file,
                Shape::Folder => folder,
                Shape::Either => file || folder,
            }
        })
    }

    /// Whether this is the model's backend, by its name, its platform, its file's name or its file.
    fn serves(&self, config: &ModelConfig, contents: Option<&Contents>) -> bool {
        let (backend, platform) = (config.backend.as_str(), config.platform.as_str());
        let file = config.default_model_filename.as_str();
        let named = !self.platform.is_empty() && platform == self.platform;
        let found = platform.is_empty() && file.is_empty() && self.lies_in(contents);
        if self.backend == "tensorflow" {
            // Two formats share this backend: its name alone says nothing.
            let open = platform.is_empty() && (backend.is_empty() || backend == self.backend);
            return named || open && (file == self.file || found);
        }
        backend == self.backend || backend.is_empty() && (named || file == self.file || found)
    }
}

/// The platforms that go with a backend that Triton knows by name; none for any other backend.
pub(super) fn platforms(backend: &str) -> Option<Vec<&'static str>> {
    let platforms: Vec<_> = KNOWN
        .iter()
        .filter(|known| known.backend == backend && !known.platform.is_empty())
        .map(|known| known.platform)
        .collect();
    (!platforms.is_empty()).then_some(platforms)
}

/// Fills in all that does not need the model. `contents` are those of its first version's folder, if it has one.
/// Problem: nothing says what serves the model; the rest is filled in all the same.
pub fn normalize(
    config: &mut ModelConfig,
    name: &str,
    contents: Option<&Contents>,
) -> Result<(), Problem> {
    if config.name.is_empty() {
        name.clone_into(&mut config.name);
    }
    let determined = backend(config, name, contents);
    version_policy(config);
    scheduling(config);
    signals(config);
    if ensemble::steps(config).is_some() {
        // Whether it says `decoupled` depends on the members.
        config.model_transaction_policy.get_or_insert_default();
    } else {
        pinned_memory(config);
        instances(config);
    }
    determined
}

fn backend(
    config: &mut ModelConfig,
    name: &str,
    contents: Option<&Contents>,
) -> Result<(), Problem> {
    let found = KNOWN.iter().find(|known| known.serves(config, contents));
    if let Some(found) = found {
        if config.backend.is_empty() {
            found.backend.clone_into(&mut config.backend);
        }
        if config.platform.is_empty() {
            found.platform.clone_into(&mut config.platform);
        }
        let in_python = config.backend == "pytorch" && config.runtime == "model.py";
        if config.default_model_filename.is_empty() && !in_python {
            found.file.clone_into(&mut config.default_model_filename);
        }
        return Ok(());
    }
    let silent = config.backend.is_empty() && config.platform.is_empty();
    if !silent || !config.default_model_filename.is_empty() {
        return Ok(());
    }
    if let Some((_, suffix)) = name.split_once('.')
        && is_backend(suffix)
    {
        config.default_model_filename = format!("model.{suffix}");
        config.backend = suffix.to_owned();
        return Ok(());
    }
    let message = format!(
        "Invalid model name: Could not determine backend for model '{name}' with no backend in model configuration. Expected model name of the form 'model.<backend_name>'."
    );
    let fix = "put the model at `1/model.onnx` in its folder, or name its engine in `backend`";
    Err(Problem::new("backend", message).fix(fix))
}

/// A version number or a file's ending behind the dot, as in `bge-small-en-v1.5`, names no backend.
fn is_backend(suffix: &str) -> bool {
    suffix != "onnx" && suffix.starts_with(|first: char| first.is_ascii_alphabetic())
}

fn version_policy(config: &mut ModelConfig) {
    let policy = config
        .version_policy
        .get_or_insert_with(ModelVersionPolicy::default);
    if policy.policy_choice.is_none() {
        policy.policy_choice = Some(PolicyChoice::Latest(Latest { num_versions: 1 }));
    }
}

/// The largest batch is the preferred one unless the file prefers others.
pub(super) fn scheduling(config: &mut ModelConfig) {
    let largest = config.max_batch_size;
    let preferred = match &mut config.scheduling_choice {
        Some(SchedulingChoice::DynamicBatching(batching)) => &mut batching.preferred_batch_size,
        Some(SchedulingChoice::SequenceBatching(batching)) => {
            if batching.max_sequence_idle_microseconds == 0 {
                batching.max_sequence_idle_microseconds = SEQUENCE_IDLE_MICROSECONDS;
            }
            match &mut batching.strategy_choice {
                Some(StrategyChoice::Oldest(oldest)) => &mut oldest.preferred_batch_size,
                Some(StrategyChoice::Direct(_)) | None => return,
            }
        }
        Some(SchedulingChoice::EnsembleScheduling(_)) | None => return,
    };
    if preferred.is_empty() && largest > 0 {
        preferred.push(largest);
    }
}

/// Triton's test backend of iterative sequences asks each request for its sequence; here it gets signals, as models do.
fn signals(config: &mut ModelConfig) {
    let Some(SchedulingChoice::SequenceBatching(batching)) = &mut config.scheduling_choice else {
        return;
    };
    let silent = batching.iterative_sequence && batching.control_input.is_empty();
    if config.backend != "iterative_sequence" || !silent {
        return;
    }
    let signal = |name: &str, control: Control| ControlInput {
        name: name.to_owned(),
        control: vec![control],
    };
    let flag = |kind: ControlKind| Control {
        kind: kind.into(),
        int32_false_true: vec![0, 1],
        ..Control::default()
    };
    let id = Control {
        kind: ControlKind::ControlSequenceCorrid.into(),
        data_type: DataType::TypeUint64.into(),
        ..Control::default()
    };
    batching.control_input = vec![
        signal("START", flag(ControlKind::ControlSequenceStart)),
        signal("READY", flag(ControlKind::ControlSequenceReady)),
        signal("CORRID", id),
    ];
}

/// Triton writes its defaults down; without a GPU they mean nothing.
fn pinned_memory(config: &mut ModelConfig) {
    let policy = config.optimization.get_or_insert_default();
    let enabled = PinnedMemoryBuffer { enable: true };
    policy.input_pinned_memory.get_or_insert(enabled);
    policy.output_pinned_memory.get_or_insert(enabled);
}

fn instances(config: &mut ModelConfig) {
    if config.instance_group.is_empty() {
        config.instance_group.push(ModelInstanceGroup {
            name: config.name.clone(),
            ..ModelInstanceGroup::default()
        });
    }
    for (index, group) in config.instance_group.iter_mut().enumerate() {
        if group.name.is_empty() {
            group.name = format!("{}_{index}", config.name);
        }
        if group.kind() == Kind::Auto {
            group.set_kind(Kind::Cpu);
        }
        if group.count < 1 {
            let onnx_on_cpu = config.backend == ONNX_BACKEND && group.kind() == Kind::Cpu;
            group.count = if onnx_on_cpu { ONNX_INSTANCES } else { 1 };
        }
    }
}

/// How many instances the file asks for, before [`normalize`] puts Triton's default there; none when it does not say.
/// Passive ones are loaded for others to use and serve nobody.
pub fn instances_asked(config: &ModelConfig) -> Option<usize> {
    let counts = config
        .instance_group
        .iter()
        .filter(|group| !group.passive)
        .filter_map(|group| usize::try_from(group.count).ok())
        .filter(|count| *count > 0);
    let total = counts.sum();
    (total > 0).then_some(total)
}
