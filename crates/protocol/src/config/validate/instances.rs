//! Instance groups: where they run, and what only some places can have.

use super::super::ensemble;
use super::{Context, Problem};
use crate::oip::proto::ModelInstanceGroup;
use crate::oip::proto::model_instance_group::Kind;

/// How Triton's default for the least compute capability is printed.
const MIN_COMPUTE_CAPABILITY: &str = "6.000000";

pub(super) fn validate(context: &Context<'_>, problems: &mut Vec<Problem>) {
    // An ensemble must have none, which its own rules say.
    if ensemble::steps(context.config).is_some() {
        return;
    }
    for (index, group) in context.config.instance_group.iter().enumerate() {
        let field = |part: &str| format!("instance_group[{index}].{part}");
        let subject = format!("instance group {} of model {}", group.name, context.name());
        let misplaced = !group.gpus.is_empty();
        let fault = match group.kind() {
            Kind::Gpu => gpus(group, context.setting.gpus),
            Kind::Model if misplaced => {
                Some("has kind KIND_MODEL but specifies one or more GPUs".to_owned())
            }
            Kind::Cpu if misplaced => {
                Some("has kind KIND_CPU but specifies one or more GPUs".to_owned())
            }
            Kind::Model | Kind::Cpu | Kind::Auto => None,
        };
        if let Some(fault) = fault {
            let (part, fix) = match group.kind() {
                Kind::Gpu => (
                    "kind",
                    "set kind: KIND_CPU and no `gpus`, or kind: KIND_AUTO",
                ),
                _ => ("gpus", "remove `gpus`"),
            };
            problems.push(Problem::new(field(part), format!("{subject} {fault}")).fix(fix));
        }
        if !group.profile.is_empty() && context.config.platform != "tensorrt_plan" {
            // The missing space is Triton's.
            let message = format!(
                "{subject} and platform {}specifies profile field which is only supported for TensorRT models",
                context.config.platform
            );
            problems.push(Problem::new(field("profile"), message).fix("remove `profile`"));
        }
    }
}

fn gpus(group: &ModelInstanceGroup, on_hand: &[i32]) -> Option<String> {
    if group.gpus.is_empty() {
        return on_hand
            .is_empty()
            .then(|| "has kind KIND_GPU but no GPUs are available".to_owned());
    }
    let unknown = group.gpus.iter().find(|gpu| !on_hand.contains(gpu))?;
    let known: Vec<_> = on_hand.iter().map(i32::to_string).collect();
    Some(format!(
        "specifies invalid or unsupported gpu id {unknown}. GPUs with at least the minimum required CUDA compute compatibility of {MIN_COMPUTE_CAPABILITY} are: {}",
        known.join(", ")
    ))
}
