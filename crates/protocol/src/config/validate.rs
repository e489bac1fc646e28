//! Triton's rules over a normalised configuration, in its order and its words. Triton stops at the first; all are
//! reported here.

use super::unsupported::unsupported;
use super::{Problem, agents, ensemble};
use crate::oip::proto::ModelConfig;

mod batch_io;
mod files;
mod instances;
mod model;
mod platform;
mod scheduling;
mod sequence;
mod tensors;
mod warmup;

pub use model::against_model;

/// What a configuration is judged in.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// The name of the model's folder.
    pub folder: &'a str,
    /// The GPUs that can be used, by number.
    pub gpus: &'a [i32],
}

struct Context<'a> {
    config: &'a ModelConfig,
    setting: Setting<'a>,
}

impl<'a> Context<'a> {
    /// What messages call the model.
    fn name(&self) -> &'a str {
        match self.config.name.as_str() {
            "" => self.setting.folder,
            name => name,
        }
    }
}

/// Everything that keeps this configuration from being served, whatever the model turns out to be; empty when nothing
/// does.
pub fn validate(config: &ModelConfig, setting: Setting<'_>) -> Vec<Problem> {
    let context = Context { config, setting };
    let mut problems = Vec::new();
    for rule in [
        platform::validate,
        max_batch_size,
        scheduling::validate,
        sequence::validate,
        ensembles,
        response_cache,
        metric_tags,
        model_metrics,
        name,
        version_policy,
        instances::validate,
        tensors::validate,
        batch_io::validate,
        warmup::validate,
        accelerators,
        files::validate,
        repository_agents,
        not_supported,
    ] {
        rule(&context, &mut problems);
    }
    problems
}

fn ensembles(context: &Context<'_>, problems: &mut Vec<Problem>) {
    ensemble::alone(context.config, context.name(), problems);
}

fn repository_agents(context: &Context<'_>, problems: &mut Vec<Problem>) {
    agents::validate(context.config, context.name(), problems);
}

fn not_supported(context: &Context<'_>, problems: &mut Vec<Problem>) {
    unsupported(context.config, context.name(), problems);
}

fn max_batch_size(context: &Context<'_>, problems: &mut Vec<Problem>) {
    if context.config.max_batch_size < 0 {
        let message = format!(
            "'max_batch_size' must be non-negative value for {}",
            context.name()
        );
        problems.push(
            Problem::new("max_batch_size", message)
                .fix("set 0 for a model without a batch dimension, or the largest batch"),
        );
    }
}

fn name(context: &Context<'_>, problems: &mut Vec<Problem>) {
    let (name, folder) = (&context.config.name, context.setting.folder);
    if !name.is_empty() && name != folder {
        let message = format!(
            "unexpected directory name '{folder}' for model '{name}', directory name must equal model name"
        );
        let fix = format!("leave `name` out, set name: \"{folder}\", or rename the folder");
        problems.push(Problem::new("name", message).fix(fix));
    }
}

fn version_policy(context: &Context<'_>, problems: &mut Vec<Problem>) {
    use crate::oip::proto::model_version_policy::PolicyChoice;
    let policy = context.config.version_policy.as_ref();
    let message = format!(
        "at least one version must be available under the version policy of model '{}'",
        context.name()
    );
    let (field, fix) = match policy.and_then(|policy| policy.policy_choice.as_ref()) {
        Some(PolicyChoice::Latest(latest)) if latest.num_versions == 0 => (
            "version_policy.latest.num_versions",
            "set num_versions: 1 or more",
        ),
        Some(PolicyChoice::Specific(specific)) if specific.versions.is_empty() => (
            "version_policy.specific.versions",
            "name at least one version",
        ),
        _ => return,
    };
    problems.push(Problem::new(field, message).fix(fix));
}

/// Where the answer depends on more than the inputs, or is more than one, no stored answer can stand for it.
fn response_cache(context: &Context<'_>, problems: &mut Vec<Problem>) {
    use crate::oip::proto::model_config::SchedulingChoice;
    let config = context.config;
    if !config.response_cache.is_some_and(|cache| cache.enable) {
        return;
    }
    let sequence = matches!(
        config.scheduling_choice,
        Some(SchedulingChoice::SequenceBatching(_))
    );
    let decoupled = config
        .model_transaction_policy
        .is_some_and(|policy| policy.decoupled);
    let name = context.name();
    for (applies, with) in [
        (sequence, "sequence batching scheduler"),
        (decoupled, "'decoupled' transaction policy"),
    ] {
        if applies {
            let message = format!(
                "Response Cache does not currently support model {name} with {with}. Please disable the response cache."
            );
            problems.push(Problem::new("response_cache.enable", message).fix("set enable: false"));
        }
    }
}

/// The label is the tag's name behind `_`. Triton takes any name, and fails at the first count.
fn metric_tags(context: &Context<'_>, problems: &mut Vec<Problem>) {
    for name in context.config.metric_tags.keys() {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || name.starts_with('_') || !name.bytes().all(word) {
            let message = format!(
                "`{name}` cannot be a label of metrics: a name of letters, digits and `_` expected that does not begin with `_`"
            );
            problems.push(Problem::new("metric_tags", message));
        }
    }
}

fn model_metrics(context: &Context<'_>, problems: &mut Vec<Problem>) {
    use crate::oip::proto::model_metrics::metric_control::MetricOptions;
    let metrics = context.config.model_metrics.iter();
    let controls = metrics.flat_map(|metrics| &metrics.metric_control);
    for (index, control) in controls.enumerate() {
        let mut report = |part: &str, message: &str| {
            let field = format!("model_metrics.metric_control[{index}]{part}");
            problems.push(Problem::new(field, message));
        };
        match &control.metric_identifier {
            None => report("", "metric control must specify 'metric_identifier'"),
            Some(identifier) if identifier.family.is_empty() => report(
                ".metric_identifier",
                "metric identifier must specify non-empty 'family'",
            ),
            Some(_) => {}
        }
        match &control.metric_options {
            None => report("", "metric control must specify 'histogram_options'"),
            Some(MetricOptions::HistogramOptions(options)) => {
                let buckets = &options.buckets;
                if buckets.is_empty() {
                    report(
                        ".histogram_options",
                        "histogram options must specify non-empty 'buckets'",
                    );
                } else if !buckets.is_sorted_by(|one, next| one < next) {
                    report(
                        ".histogram_options.buckets",
                        "histogram options must specify 'buckets' in increasing order",
                    );
                }
            }
        }
    }
}

/// Those for a GPU are read only by instances on one.
fn accelerators(context: &Context<'_>, problems: &mut Vec<Problem>) {
    let asked = context
        .config
        .optimization
        .iter()
        .filter_map(|optimization| optimization.execution_accelerators.as_ref())
        .flat_map(|accelerators| &accelerators.cpu_execution_accelerator);
    for (index, accelerator) in asked.enumerate() {
        if accelerator.name != "openvino" {
            let field = format!(
                "optimization.execution_accelerators.cpu_execution_accelerator[{index}].name"
            );
            let message = format!(
                "unknown Execution Accelerator '{}' is requested",
                accelerator.name
            );
            problems.push(Problem::new(field, message).fix("on a CPU: `openvino`, or none"));
        }
    }
}
