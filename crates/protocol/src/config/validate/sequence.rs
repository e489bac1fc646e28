//! Sequence batching: the signals that go to the model as tensors, the states, the two ways to schedule.

use std::collections::BTreeSet;

use super::{Context, Problem};
use crate::oip::proto::model_config::SchedulingChoice;
use crate::oip::proto::model_sequence_batching::control::Kind;
use crate::oip::proto::model_sequence_batching::initial_state::StateData;
use crate::oip::proto::model_sequence_batching::{
    Control, InitialState, State, StrategyChoice, StrategyDirect, StrategyOldest,
};
use crate::oip::proto::{DataType, ModelSequenceBatching};

pub(super) fn validate(context: &Context<'_>, problems: &mut Vec<Problem>) {
    let Some(SchedulingChoice::SequenceBatching(batching)) = &context.config.scheduling_choice
    else {
        return;
    };
    let name = context.name();
    control_inputs(batching, name, problems);
    for kind in [
        Kind::ControlSequenceStart,
        Kind::ControlSequenceEnd,
        Kind::ControlSequenceReady,
        Kind::ControlSequenceCorrid,
    ] {
        controls(batching, kind, name, problems);
    }
    match &batching.strategy_choice {
        Some(StrategyChoice::Oldest(oldest)) => {
            preferred(oldest, context.config.max_batch_size, name, problems);
        }
        Some(StrategyChoice::Direct(direct)) => utilization(direct, name, problems),
        None => {}
    }
    states(batching, problems);
}

fn control_inputs(batching: &ModelSequenceBatching, name: &str, problems: &mut Vec<Problem>) {
    let mut seen = BTreeSet::new();
    for (index, input) in batching.control_input.iter().enumerate() {
        let message = if input.name.is_empty() {
            format!("sequence batching control tensor must have a name for {name}")
        } else if !seen.insert(&input.name) {
            format!(
                "sequence batching control tensor '{}' is specified for multiple control kinds for {name}",
                input.name
            )
        } else {
            continue;
        };
        let field = format!("sequence_batching.control_input[{index}].name");
        problems
            .push(Problem::new(field, message).fix("give each control its own input of the model"));
    }
}

/// Every control of one kind: at most one, and its values in one type.
fn controls(batching: &ModelSequenceBatching, kind: Kind, name: &str, problems: &mut Vec<Problem>) {
    let mut seen = false;
    for (input, control_input) in batching.control_input.iter().enumerate() {
        for (index, control) in control_input.control.iter().enumerate() {
            if control.kind != i32::from(kind) {
                continue;
            }
            let field = format!("sequence_batching.control_input[{input}].control[{index}]");
            if seen {
                let message = format!(
                    "sequence batching specifies multiple {} tensors for {name}",
                    kind.as_str_name()
                );
                problems.push(Problem::new(field, message).fix("keep one of them"));
                continue;
            }
            seen = true;
            let fault = if kind == Kind::ControlSequenceCorrid {
                typed(control, name)
            } else {
                boolean(control, kind, name)
            };
            problems.extend(fault.map(|message| Problem::new(field, message)));
        }
    }
}

/// What means no and what means yes, in exactly one type.
fn boolean(control: &Control, kind: Kind, name: &str) -> Option<String> {
    let kind = kind.as_str_name();
    let values = [
        ("int32_false_true", control.int32_false_true.len()),
        ("fp32_false_true", control.fp32_false_true.len()),
        ("bool_false_true", control.bool_false_true.len()),
    ];
    let mut given = values.iter().filter(|(_, count)| *count > 0);
    match (given.next(), given.next()) {
        (None, _) => Some(format!(
            "sequence batching must specify either 'int32_false_true', 'fp32_false_true' or 'bool_false_true' for {kind} for {name}"
        )),
        (Some(_), Some(_)) => Some(format!(
            "sequence batching specifies more than one from 'int32_false_true', 'fp32_false_true' and 'bool_false_true' for {kind} for {name}"
        )),
        (Some((_, 2)), None) => None,
        (Some((field, _)), None) => Some(format!(
            "sequence batching control '{field}' must have exactly 2 entries for {kind} for {name}"
        )),
    }
}

/// The sequence's id: a type and no values.
fn typed(control: &Control, name: &str) -> Option<String> {
    let kind = Kind::ControlSequenceCorrid.as_str_name();
    let valued = !control.int32_false_true.is_empty()
        || !control.fp32_false_true.is_empty()
        || !control.bool_false_true.is_empty();
    if valued {
        return Some(format!(
            "sequence batching must not specify either 'int32_false_true', 'fp32_false_true' or 'bool_false_true' for {kind} for {name}"
        ));
    }
    let allowed = matches!(
        control.data_type(),
        DataType::TypeUint64
            | DataType::TypeInt64
            | DataType::TypeUint32
            | DataType::TypeInt32
            | DataType::TypeString
    );
    (!allowed).then(|| {
        format!(
            "unexpected data type for control {kind} for {name}. Allowed data types are TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32 and TYPE_STRING"
        )
    })
}

fn preferred(oldest: &StrategyOldest, largest: i32, name: &str, problems: &mut Vec<Problem>) {
    for (index, size) in oldest.preferred_batch_size.iter().enumerate() {
        let rule = match *size {
            size if size <= 0 => "must be positive",
            size if size > largest => "must be <= max batch size",
            _ => continue,
        };
        let field = format!("sequence_batching.oldest.preferred_batch_size[{index}]");
        let message = format!("sequence batching preferred batch size {rule} for {name}");
        let fix = format!("choose sizes from 1 to {largest}, or raise max_batch_size");
        problems.push(Problem::new(field, message).fix(fix));
    }
}

fn utilization(direct: &StrategyDirect, name: &str, problems: &mut Vec<Problem>) {
    // Not a number is in no range.
    if !(0.0..=1.0).contains(&direct.minimum_slot_utilization) {
        let message = format!(
            "sequence batching minimum slot utilization must be in range (0.0, 1.0] for {name}"
        );
        let field = "sequence_batching.direct.minimum_slot_utilization";
        problems.push(Problem::new(field, message));
    }
}

fn states(batching: &ModelSequenceBatching, problems: &mut Vec<Problem>) {
    let mut seen = BTreeSet::new();
    for (index, state) in batching.state.iter().enumerate() {
        let name = &state.input_name;
        let field = format!("sequence_batching.state[{index}]");
        let count = state.initial_state.len();
        let fault = match state.initial_state.as_slice() {
            [] => None,
            [initial] if seen.insert(name) => initial_state(state, initial),
            [_] => Some(format!(
                "State input name '{name}' specified more than once."
            )),
            _ => Some(format!(
                "initial_state field for state input '{name}' must contain exactly one or zero element. Found '{count}' elements."
            )),
        };
        problems
            .extend(fault.map(|message| Problem::new(format!("{field}.initial_state"), message)));
    }
}

fn initial_state(state: &State, initial: &InitialState) -> Option<String> {
    let name = &state.input_name;
    if initial.data_type != state.data_type {
        return Some(format!(
            "The data type used for 'initial_state' field of state '{name}' does not match the state data type."
        ));
    }
    if initial.name.is_empty() {
        return Some(format!(
            "Field 'name' must be set when using initial_state for state input '{name}'."
        ));
    }
    let (given, wanted) = (initial.dims.len(), state.dims.len());
    if given != wanted {
        return Some(format!(
            "Number of dimensions in 'initial_state' doesn't match the size of 'state' dimensions for state input '{name}'. {given} != {wanted}"
        ));
    }
    for (given, wanted) in initial.dims.iter().zip(&state.dims) {
        if *given == -1 {
            return Some(format!(
                "'initial_state' field for state input name '{name}' contains variable dimensions."
            ));
        }
        if *wanted != -1 && given != wanted {
            return Some(format!(
                "'initial_state' dim for input name '{name}' doesn't match 'state' dim description. {given} != {wanted}"
            ));
        }
    }
    match &initial.state_data {
        Some(StateData::ZeroData(_) | StateData::DataFile(_)) => None,
        // The quotes are Triton's.
        None => Some(format!(
            "initial_state setting expects state'{name}' to have state_data set"
        )),
    }
}
