use super::{Problem, proto_data_type};
use crate::TensorSpec;
use crate::oip::proto::model_config::SchedulingChoice;
use crate::oip::proto::model_instance_group::Kind;
use crate::oip::proto::model_optimization_policy::PinnedMemoryBuffer;
use crate::oip::proto::model_version_policy::{Latest, PolicyChoice};
use crate::oip::proto::{
    ModelConfig, ModelDynamicBatching, ModelInput, ModelInstanceGroup, ModelOutput,
    ModelTensorReshape, ModelVersionPolicy,
};

const ONNX_BACKEND: &str = "onnxruntime";
const ONNX_PLATFORM: &str = "onnxruntime_onnx";

/// What Triton's `default-max-batch-size` is when its command line does not say.
const MAX_BATCH_SIZE: i32 = 4;

/// Triton's own count of instances of an ONNX model on a CPU.
const ONNX_INSTANCES: i32 = 2;

/// Triton closes a sequence after a second without requests.
const SEQUENCE_IDLE_MICROSECONDS: u64 = 1_000_000;

/// How many instances the file asks for, before [`complete`] puts Triton's default there; none when it does not say.
pub fn instances_asked(config: &ModelConfig) -> Option<usize> {
    let counts = config
        .instance_group
        .iter()
        .filter_map(|group| usize::try_from(group.count).ok())
        .filter(|count| *count > 0);
    let total = counts.sum();
    (total > 0).then_some(total)
}

/// Whether a version's folder holds the file that an ONNX model is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelFile {
    Found,
    Missing,
}

/// Fills in what the file leaves out, as Triton does: from the model's own inputs and outputs (batch dimension
/// included) for ONNX, and with Triton's defaults for everybody. Instances land on the CPU.
pub fn complete(
    config: &mut ModelConfig,
    name: &str,
    file: ModelFile,
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
) -> Result<(), Problem> {
    if config.name.is_empty() {
        name.clone_into(&mut config.name);
    }
    let ensemble = super::ensemble::steps(config).is_some();
    if ensemble {
        // Whether it says `decoupled` depends on the members.
        config.model_transaction_policy.get_or_insert_default();
    } else {
        backend(config, file);
    }
    // Triton asks the model only when the file does not describe both sides.
    if config.backend == ONNX_BACKEND
        && (config.input.is_empty() && config.batch_input.is_empty() || config.output.is_empty())
    {
        batching(config, inputs, outputs)?;
        tensors(config, inputs, outputs);
    }
    version_policy(config);
    preferred_batch_sizes(config);
    if !ensemble {
        pinned_memory(config);
        instances(config);
    }
    Ok(())
}

/// Backend, platform and file name each imply the others. With none of them, a model that has a file is ONNX; only one
/// without may say its backend in its name, as in `echo.identity`, because names such as `bge-small-en-v1.5` have dots.
fn backend(config: &mut ModelConfig, file: ModelFile) {
    let silent = config.backend.is_empty() && config.platform.is_empty();
    let found = file == ModelFile::Found;
    if config.platform == ONNX_PLATFORM && config.backend.is_empty() || silent && found {
        ONNX_BACKEND.clone_into(&mut config.backend);
    } else if silent
        && config.default_model_filename.is_empty()
        && let Some((_, suffix)) = config.name.split_once('.')
        && is_backend(suffix)
    {
        config.default_model_filename = format!("model.{suffix}");
        config.backend = suffix.to_owned();
    }
    if config.backend == ONNX_BACKEND {
        if config.platform.is_empty() {
            ONNX_PLATFORM.clone_into(&mut config.platform);
        }
        if config.default_model_filename.is_empty() {
            "model.onnx".clone_into(&mut config.default_model_filename);
        }
    }
}

/// A version number or a file's ending behind the dot names no backend.
fn is_backend(suffix: &str) -> bool {
    suffix != "onnx" && suffix.starts_with(|first: char| first.is_ascii_alphabetic())
}

/// A model batches when the first dimension of everything is left to the request.
fn batching(
    config: &mut ModelConfig,
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
) -> Result<(), Problem> {
    let batches = inputs
        .iter()
        .chain(outputs)
        .all(|tensor| tensor.shape.first() == Some(&-1));
    if !batches {
        return if config.max_batch_size == 0 {
            Ok(())
        } else {
            Err(Problem::new(
                "max_batch_size",
                format!(
                    "autofill failed for model '{}': model does not support batching while non-zero max_batch_size is specified",
                    config.name
                ),
            ))
        };
    }
    if config.max_batch_size == 0 {
        config.max_batch_size = MAX_BATCH_SIZE;
    }
    if config.max_batch_size > 1 && config.scheduling_choice.is_none() {
        config.scheduling_choice = Some(SchedulingChoice::DynamicBatching(
            ModelDynamicBatching::default(),
        ));
    }
    Ok(())
}

fn tensors(config: &mut ModelConfig, inputs: &[TensorSpec], outputs: &[TensorSpec]) {
    let batch = config.max_batch_size > 0;
    if config.input.is_empty() && config.batch_input.is_empty() {
        config.input = inputs
            .iter()
            .map(|spec| {
                let (dims, reshape) = dims(spec, batch);
                ModelInput {
                    name: spec.name.clone(),
                    data_type: proto_data_type(spec.dtype).into(),
                    dims,
                    reshape,
                    ..ModelInput::default()
                }
            })
            .collect();
    }
    if config.output.is_empty() {
        config.output = outputs
            .iter()
            .map(|spec| {
                let (dims, reshape) = dims(spec, batch);
                ModelOutput {
                    name: spec.name.clone(),
                    data_type: proto_data_type(spec.dtype).into(),
                    dims,
                    reshape,
                    ..ModelOutput::default()
                }
            })
            .collect();
    }
}

/// The configuration has no way to say "no dimensions": one of size 1 stands for it, and with batching a reshape says
/// that the model does not have it.
fn dims(spec: &TensorSpec, batch: bool) -> (Vec<i64>, Option<ModelTensorReshape>) {
    let dims: Vec<_> = spec
        .shape
        .iter()
        .copied()
        .skip(usize::from(batch))
        .collect();
    if dims.is_empty() {
        (vec![1], batch.then(ModelTensorReshape::default))
    } else {
        (dims, None)
    }
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
fn preferred_batch_sizes(config: &mut ModelConfig) {
    use crate::oip::proto::model_sequence_batching::StrategyChoice;
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
    let default_count = if config.backend == ONNX_BACKEND {
        ONNX_INSTANCES
    } else {
        1
    };
    for (index, group) in config.instance_group.iter_mut().enumerate() {
        if group.name.is_empty() {
            group.name = format!("{}_{index}", config.name);
        }
        if group.kind() == Kind::Auto {
            group.set_kind(Kind::Cpu);
        }
        if group.count < 1 {
            group.count = default_count;
        }
    }
}
