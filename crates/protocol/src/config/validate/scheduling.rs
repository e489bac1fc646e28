//! Dynamic batching: sizes, priorities and what goes with keeping the order.

use super::{Context, Problem};
use crate::oip::proto::model_config::SchedulingChoice;
use crate::oip::proto::model_queue_policy::TimeoutAction;
use crate::oip::proto::{ModelDynamicBatching, ModelQueuePolicy};

pub(super) fn validate(context: &Context<'_>, problems: &mut Vec<Problem>) {
    let Some(SchedulingChoice::DynamicBatching(batching)) = &context.config.scheduling_choice
    else {
        return;
    };
    let name = context.name();
    let largest = context.config.max_batch_size;
    for (index, size) in batching.preferred_batch_size.iter().enumerate() {
        let rule = match *size {
            size if size <= 0 => "must be positive",
            size if size > largest => "must be <= max batch size",
            _ => continue,
        };
        let field = format!("dynamic_batching.preferred_batch_size[{index}]");
        let message = format!("dynamic batching preferred size {rule} for {name}");
        let fix = format!("choose sizes from 1 to {largest}, or raise max_batch_size");
        problems.push(Problem::new(field, message).fix(fix));
    }
    priorities(batching, name, problems);
    if batching.preserve_ordering {
        ordering(batching, name, problems);
    }
}

fn priorities(batching: &ModelDynamicBatching, name: &str, problems: &mut Vec<Problem>) {
    let levels = batching.priority_levels;
    if levels == 0 {
        return;
    }
    let known = 1..=levels;
    if !known.contains(&batching.default_priority_level) {
        let message = format!("default priority level must be in range [1, {levels}] for {name}");
        problems.push(
            Problem::new("dynamic_batching.default_priority_level", message)
                .fix(format!("set a level from 1 (most urgent) to {levels}")),
        );
    }
    for level in batching.priority_queue_policy.keys() {
        if !known.contains(level) {
            let message = format!(
                "priority queue policy must have priority level in range [1, {levels}] for {name}"
            );
            let field = format!("dynamic_batching.priority_queue_policy[{level}]");
            problems.push(Problem::new(field, message).fix("raise `priority_levels` or remove it"));
        }
    }
}

/// Priorities and delays change the order.
fn ordering(batching: &ModelDynamicBatching, name: &str, problems: &mut Vec<Problem>) {
    if batching.priority_levels > 1 {
        let message = format!(
            "Only one priority level is allowed when 'preserve_ordering' is true for {name}"
        );
        problems.push(
            Problem::new("dynamic_batching.priority_levels", message)
                .fix("set preserve_ordering: false, or priority_levels: 1"),
        );
    }
    let default = batching
        .default_queue_policy
        .iter()
        .map(|policy| ("dynamic_batching.default_queue_policy".to_owned(), policy));
    let levels = batching
        .priority_queue_policy
        .iter()
        .map(|(level, policy)| {
            let field = format!("dynamic_batching.priority_queue_policy[{level}]");
            (field, policy)
        });
    for (field, policy) in default.chain(levels) {
        if delays(policy) {
            let message = format!(
                "Queue policy can not have DELAY as timeout action when 'preserve_ordering' is true for {name}"
            );
            problems.push(
                Problem::new(field, message)
                    .fix("set timeout_action: REJECT, or preserve_ordering: false"),
            );
        }
    }
}

fn delays(policy: &ModelQueuePolicy) -> bool {
    policy.default_timeout_microseconds != 0 && policy.timeout_action() == TimeoutAction::Delay
}
