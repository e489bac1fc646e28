//! Inputs made from the requests of a batch, and outputs split by them.

use std::collections::BTreeSet;

use super::{Context, Problem};
use crate::oip::proto::{BatchInput, BatchOutput, DataType, batch_input, batch_output};

pub(super) fn validate(context: &Context<'_>, problems: &mut Vec<Problem>) {
    let config = context.config;
    let inputs: BTreeSet<_> = config
        .input
        .iter()
        .map(|input| input.name.as_str())
        .collect();
    let outputs: BTreeSet<_> = config
        .output
        .iter()
        .map(|output| output.name.as_str())
        .collect();
    let mut report = |field: String, message: String| {
        let message = format!("{message} for {}", context.name());
        problems.push(Problem::new(field, message));
    };
    for (index, input) in config.batch_input.iter().enumerate() {
        check_input(input, &mut |part, message| {
            report(format!("batch_input[{index}]{part}"), message);
        });
        check_sources(&input.source_input, &inputs, &mut |part, message| {
            report(format!("batch_input[{index}]{part}"), message);
        });
    }
    for (index, output) in config.batch_output.iter().enumerate() {
        check_output(output, &outputs, &mut |part, message| {
            report(format!("batch_output[{index}]{part}"), message);
        });
        check_sources(&output.source_input, &inputs, &mut |part, message| {
            report(format!("batch_output[{index}]{part}"), message);
        });
    }
}

type Report<'a> = dyn FnMut(String, String) + 'a;

fn check_input(input: &BatchInput, report: &mut Report<'_>) {
    match batch_input::Kind::try_from(input.kind) {
        Ok(kind) if input.source_input.len() != 1 => report(
            ".source_input".to_owned(),
            format!(
                "batch input kind '{}' expects 1 source input, got {}",
                kind.as_str_name(),
                input.source_input.len()
            ),
        ),
        Ok(_) => {}
        Err(_) => report(
            ".kind".to_owned(),
            format!("unknown batch input kind '{}'", input.kind),
        ),
    }
    if !matches!(input.data_type(), DataType::TypeInt32 | DataType::TypeFp32) {
        let message = "batch input data type must be TYPE_INT32 or TYPE_FP32".to_owned();
        report(".data_type".to_owned(), message);
    }
}

fn check_output(output: &BatchOutput, known: &BTreeSet<&str>, report: &mut Report<'_>) {
    match batch_output::Kind::try_from(output.kind) {
        Ok(kind) if output.source_input.len() != 1 => report(
            ".source_input".to_owned(),
            format!(
                "batch output kind '{}' expects 1 source input, got {}",
                kind.as_str_name(),
                output.source_input.len()
            ),
        ),
        Ok(_) => {}
        Err(_) => report(
            ".kind".to_owned(),
            format!("unknown batch output kind '{}'", output.kind),
        ),
    }
    let mut seen = BTreeSet::new();
    for (index, target) in output.target_name.iter().enumerate() {
        let field = format!(".target_name[{index}]");
        if !known.contains(target.as_str()) {
            report(field, format!("unknown target output name '{target}'"));
        } else if !seen.insert(target) {
            report(
                field,
                format!("target output name '{target}' can only be specified once"),
            );
        }
    }
}

fn check_sources(sources: &[String], known: &BTreeSet<&str>, report: &mut Report<'_>) {
    for (index, source) in sources.iter().enumerate() {
        if !known.contains(source.as_str()) {
            let message = format!("unknown source input name '{source}'");
            report(format!(".source_input[{index}]"), message);
        }
    }
}
