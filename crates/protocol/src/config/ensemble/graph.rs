use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::Problem;
use super::{PLATFORM, step_field, steps};
use crate::oip::proto::ModelConfig;
use crate::oip::proto::model_ensembling::Step;

/// What is wrong with an ensemble whatever its members are.
pub(in super::super) fn alone(config: &ModelConfig, name: &str, problems: &mut Vec<Problem>) {
    let Some(steps) = steps(config) else {
        if config.platform == PLATFORM {
            let message = format!(
                "ensemble scheduling must be set for ensemble {name} whose platform is {PLATFORM}"
            );
            let fix = "add `ensemble_scheduling { step [ … ] }`, or name the engine in `backend`";
            problems.push(Problem::new("platform", message).fix(fix));
        }
        return;
    };
    foreign_fields(config, name, problems);
    let mut report = |field: String, message: String| problems.push(Problem::new(field, message));
    if steps.is_empty() {
        report(
            "ensemble_scheduling.step".to_owned(),
            format!("must specify 'step' for ensemble '{name}'"),
        );
        return;
    }
    let mut complete = true;
    for (index, step) in steps.iter().enumerate() {
        for (missing, field) in [
            (step.model_name.is_empty(), "model_name"),
            (step.input_map.is_empty(), "input_map"),
            (step.output_map.is_empty(), "output_map"),
        ] {
            if missing {
                complete = false;
                report(
                    format!("{}.{field}", step_field(index)),
                    format!("must specify '{field}' in step {index} of ensemble '{name}'"),
                );
            }
        }
    }
    if complete {
        flow(config, steps, name, problems);
    }
}

/// What belongs to the members and not to the ensemble.
fn foreign_fields(config: &ModelConfig, name: &str, problems: &mut Vec<Problem>) {
    let mut report = |field: &str, message: String, fix: &str| {
        problems.push(Problem::new(field, message).fix(fix));
    };
    if config.platform != PLATFORM {
        report(
            "ensemble_scheduling",
            format!(
                "ensemble scheduling cannot be set for model '{name}' whose platform is not {PLATFORM}"
            ),
            "set platform: \"ensemble\" and no backend, or remove `ensemble_scheduling`",
        );
    }
    if !config.instance_group.is_empty() {
        report(
            "instance_group",
            format!("instance group should not be specified for ensemble '{name}'"),
            "remove it here and set it in the models of the steps",
        );
    }
    if config.optimization.is_some() {
        report(
            "optimization",
            format!("optimization should not be specified for ensemble '{name}'"),
            "remove it here and set it in the models of the steps",
        );
    }
    if !config.model_warmup.is_empty() {
        report(
            "model_warmup",
            format!("model_warmup can not be specified for ensemble '{name}'"),
            "remove it here and set it in the models of the steps",
        );
    }
}

/// A tensor of the ensemble: what it is made from and what is made from it, as names.
#[derive(Debug, Default)]
struct Node<'a> {
    /// Some step writes it.
    written: bool,
    ready: bool,
    from: Vec<&'a str>,
    into: Vec<&'a str>,
}

type Graph<'a> = BTreeMap<&'a str, Node<'a>>;

/// Every input is used, every output is written, and nothing lies between them that leads nowhere.
fn flow(config: &ModelConfig, steps: &[Step], name: &str, problems: &mut Vec<Problem>) {
    let mut graph = link(steps, name, problems);
    let mut open = VecDeque::new();
    for (index, input) in config.input.iter().enumerate() {
        if let Some(node) = graph.get_mut(input.name.as_str()) {
            node.ready = true;
            open.push_back(input.name.as_str());
        } else {
            // The stray quote is Triton's.
            let message = format!(
                "ensemble input '{}' for ensemble {name}' is not used",
                input.name
            );
            problems.push(Problem::new(format!("input[{index}]"), message));
        }
    }
    while let Some(ready) = open.pop_front() {
        let next = graph
            .get(ready)
            .map_or_else(Vec::new, |node| node.into.clone());
        for next in next {
            let becomes_ready = graph.get(next).is_some_and(|node| {
                !node.ready && node.from.iter().all(|from| is_ready(&graph, from))
            });
            if becomes_ready && let Some(node) = graph.get_mut(next) {
                node.ready = true;
                open.push_back(next);
            }
        }
    }
    let outputs = outputs(config, &graph, name, problems);
    for (tensor, node) in &graph {
        if !outputs.contains(tensor) && (!node.ready || node.into.is_empty()) {
            let message = format!("ensemble tensor '{tensor}' is unused in ensemble '{name}'");
            problems.push(Problem::new(place_of(steps, tensor), message));
        }
    }
}

fn link<'a>(steps: &'a [Step], name: &str, problems: &mut Vec<Problem>) -> Graph<'a> {
    let mut graph = Graph::new();
    for (index, step) in steps.iter().enumerate() {
        for (output, tensor) in &step.output_map {
            let node = graph.entry(tensor).or_default();
            if node.written {
                // The stray quote is Triton's.
                let message = format!(
                    "ensemble tensor '{tensor}' can appear in an output map only once for ensemble '{name}' step {index}"
                );
                let field = format!("{}.output_map[{output}]", step_field(index));
                problems.push(Problem::new(field, message));
            }
            node.written = true;
        }
        for input in step.input_map.values() {
            graph.entry(input).or_default();
            for output in step.output_map.values() {
                if let Some(node) = graph.get_mut(output.as_str()) {
                    node.from.push(input);
                }
                if let Some(node) = graph.get_mut(input.as_str()) {
                    node.into.push(output);
                }
            }
        }
    }
    graph
}

fn is_ready(graph: &Graph<'_>, tensor: &str) -> bool {
    graph.get(tensor).is_some_and(|node| node.ready)
}

/// The outputs that are written; the others are reported.
fn outputs<'a>(
    config: &'a ModelConfig,
    graph: &Graph<'a>,
    name: &str,
    problems: &mut Vec<Problem>,
) -> BTreeSet<&'a str> {
    let mut known = BTreeSet::new();
    for (index, output) in config.output.iter().enumerate() {
        let message = match graph.get(output.name.as_str()) {
            // The stray quote is Triton's.
            None => format!(
                "ensemble output '{}' for ensemble {name}' is not used",
                output.name
            ),
            Some(node) => {
                known.insert(output.name.as_str());
                if node.ready {
                    continue;
                }
                let source = match unconnected(graph, &output.name) {
                    Some(source) => format!(
                        ": at least one of its depending tensors, '{source}', is not connected"
                    ),
                    None => String::new(),
                };
                format!(
                    "output '{}' for ensemble '{name}' is not written{source}",
                    output.name
                )
            }
        };
        problems.push(Problem::new(format!("output[{index}]"), message));
    }
    known
}

/// The farthest tensor that is not ready, following the first such one at each step; there may be circles.
fn unconnected<'a>(graph: &Graph<'a>, output: &'a str) -> Option<&'a str> {
    let mut seen = BTreeSet::new();
    let mut last = None;
    let mut at = output;
    loop {
        let from = &graph.get(at)?.from;
        let next = from
            .iter()
            .find(|from| !is_ready(graph, from) && !seen.contains(*from));
        let Some(next) = next else {
            return last.filter(|last| *last != output);
        };
        seen.insert(*next);
        last = Some(*next);
        at = next;
    }
}

/// The first place that names a tensor.
fn place_of(steps: &[Step], tensor: &str) -> String {
    for (index, step) in steps.iter().enumerate() {
        for (map, entries) in [
            ("input_map", &step.input_map),
            ("output_map", &step.output_map),
        ] {
            let entry = entries.iter().find(|(_, name)| *name == tensor);
            if let Some((key, _)) = entry {
                return format!("{}.{map}[{key}]", step_field(index));
            }
        }
    }
    "ensemble_scheduling".to_owned()
}
