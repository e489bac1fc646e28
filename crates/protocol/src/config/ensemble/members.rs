use std::collections::{BTreeMap, BTreeSet};

use super::super::Problem;
use super::{step_field, steps};
use crate::oip::proto::model_ensembling::Step;
use crate::oip::proto::{DataType, ModelConfig};

/// The model behind one step.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Completed.
    pub config: &'a ModelConfig,
    /// The ensemble's tensors whose first dimension counts items that this step runs on one by one; empty for a step
    /// that runs once.
    pub over: &'a [String],
}

/// Checks the steps against their models, in the order of the steps; a member that is none is not known yet. True when
/// the ensemble may answer more than once because a member does.
pub fn check_members(
    config: &ModelConfig,
    name: &str,
    members: &[Option<Member<'_>>],
) -> Result<bool, Problem> {
    let steps = steps(config).unwrap_or_default();
    let mut tensors = Tensors::of(config, name);
    for (index, (step, member)) in steps.iter().zip(members).enumerate() {
        if let Some(member) = member {
            let checked = check_step(config, name, (step, *member), &mut tensors);
            checked.map_err(|message| Problem::new(step_field(index), message))?;
        }
    }
    decoupled(config, name, members)
}

fn check_step(
    config: &ModelConfig,
    name: &str,
    (step, member): (&Step, Member<'_>),
    tensors: &mut Tensors<'_>,
) -> Result<(), String> {
    let rows_max = member.config.max_batch_size;
    if rows_max != 0 && rows_max < config.max_batch_size {
        return Err(format!(
            "ensemble {name} allows maximum batch size {}, but it contains model {} which only allows maximum batch size to be {rows_max}",
            config.max_batch_size, step.model_name
        ));
    }
    inputs(name, (step, member), tensors)?;
    outputs(name, (step, member), tensors)
}

fn inputs(
    name: &str,
    (step, member): (&Step, Member<'_>),
    tensors: &mut Tensors<'_>,
) -> Result<(), String> {
    let model = &step.model_name;
    for (input, tensor) in &step.input_map {
        if member.config.input.iter().all(|known| known.name != *input) {
            return Err(format!(
                "in ensemble {name}, ensemble tensor {tensor} is mapping to non-existing input {input} in model {model}"
            ));
        }
    }
    for input in &member.config.input {
        match step.input_map.get(&input.name) {
            Some(tensor) => {
                let per_item = member.over.contains(tensor);
                let broadcast = !member.over.is_empty() && !per_item;
                let rows = per_item || member.config.max_batch_size > 0 && !broadcast;
                tensors.agree(
                    tensor,
                    Node::new(model, (input.data_type, &input.dims), rows),
                )?;
            }
            None if input.optional => {}
            None => {
                return Err(format!(
                    "in ensemble {name}, input {} in model {model} is not mapped to any ensemble tensors",
                    input.name
                ));
            }
        }
    }
    Ok(())
}

fn outputs(
    name: &str,
    (step, member): (&Step, Member<'_>),
    tensors: &mut Tensors<'_>,
) -> Result<(), String> {
    let model = &step.model_name;
    for (output, tensor) in &step.output_map {
        let known = member
            .config
            .output
            .iter()
            .find(|known| known.name == *output);
        let Some(known) = known else {
            return Err(format!(
                "in ensemble {name}, ensemble tensor {tensor} is mapped from non-existing output {output} in model {model}"
            ));
        };
        let rows = !member.over.is_empty() || member.config.max_batch_size > 0;
        tensors.agree(
            tensor,
            Node::new(model, (known.data_type, &known.dims), rows),
        )?;
    }
    Ok(())
}

/// What is known of an ensemble's tensors, from whoever named them first.
struct Tensors<'a> {
    ensemble: &'a str,
    nodes: BTreeMap<String, Node>,
}

struct Node {
    model: String,
    data_type: i32,
    dims: Vec<i64>,
    /// With the batch dimension, if there is one.
    full: Vec<i64>,
}

impl Node {
    fn new(model: &str, (data_type, dims): (i32, &[i64]), rows: bool) -> Self {
        Self {
            model: model.to_owned(),
            data_type,
            dims: dims.to_vec(),
            full: rows
                .then_some(-1)
                .into_iter()
                .chain(dims.iter().copied())
                .collect(),
        }
    }
}

impl<'a> Tensors<'a> {
    /// The ensemble's own inputs and outputs.
    fn of(config: &ModelConfig, ensemble: &'a str) -> Self {
        let rows = config.max_batch_size > 0;
        let inputs = config.input.iter().map(|input| {
            let dims = input.reshape.as_ref().map_or(&input.dims, |to| &to.shape);
            (&input.name, input.data_type, dims)
        });
        let outputs = config.output.iter().map(|output| {
            let dims = output.reshape.as_ref().map_or(&output.dims, |to| &to.shape);
            (&output.name, output.data_type, dims)
        });
        let mut nodes = BTreeMap::new();
        for (name, data_type, dims) in inputs.chain(outputs) {
            nodes
                .entry(name.clone())
                .or_insert_with(|| Node::new(ensemble, (data_type, dims), rows));
        }
        Self { ensemble, nodes }
    }

    /// A dimension that either side leaves open is checked when a request comes. A model without a batch dimension may
    /// stand beside one that has it when its own first dimension plays that part.
    fn agree(&mut self, tensor: &str, node: Node) -> Result<(), String> {
        let Some(known) = self.nodes.get(tensor) else {
            self.nodes.insert(tensor.to_owned(), node);
            return Ok(());
        };
        let ensemble = self.ensemble;
        let (first, second) = (&known.model, &node.model);
        if known.data_type != node.data_type {
            return Err(format!(
                "in ensemble {ensemble}, ensemble tensor {tensor}: inconsistent data type: {} is inferred from model {first} while {} is inferred from model {second}",
                type_name(known.data_type),
                type_name(node.data_type),
            ));
        }
        if compatible(&known.dims, &node.dims) || compatible(&known.full, &node.full) {
            return Ok(());
        }
        Err(format!(
            "in ensemble {ensemble}, ensemble tensor {tensor}: inconsistent shape: {} is inferred from model {first} while {} is inferred from model {second}",
            shown(&known.full),
            shown(&node.full),
        ))
    }
}

fn compatible(left: &[i64], right: &[i64]) -> bool {
    let fits = |(left, right): (&i64, &i64)| left == right || *left == -1 || *right == -1;
    left.len() == right.len() && left.iter().zip(right).all(fits)
}

fn type_name(data_type: i32) -> &'static str {
    DataType::try_from(data_type).map_or("TYPE_INVALID", |data_type| data_type.as_str_name())
}

fn shown(dims: &[i64]) -> String {
    let dims: Vec<_> = dims.iter().map(i64::to_string).collect();
    format!("[{}]", dims.join(","))
}

/// How often each tensor comes: as often as the decoupled step it stems from answers. One step cannot take tensors that
/// come differently often.
fn decoupled(
    config: &ModelConfig,
    name: &str,
    members: &[Option<Member<'_>>],
) -> Result<bool, Problem> {
    let inputs = config.input.iter().map(|input| (input.name.as_str(), 0));
    let mut labels: BTreeMap<&str, usize> = inputs.collect();
    let mut next_label = 1;
    let mut left: Vec<_> = steps(config)
        .unwrap_or_default()
        .iter()
        .zip(members)
        .enumerate()
        .collect();
    while let Some(place) = left.iter().position(|(_, (step, _))| {
        let mut inputs = step.input_map.values();
        inputs.all(|tensor| labels.contains_key(tensor.as_str()))
    }) {
        let (index, (step, member)) = left.remove(place);
        let mut label = one_label(&labels, step.input_map.values())
            .ok_or_else(|| Problem::new(step_field(index), mixed(name, &step.model_name)))?;
        let policy = member.and_then(|member| member.config.model_transaction_policy.as_ref());
        if policy.is_some_and(|policy| policy.decoupled) {
            label = next_label;
            next_label += 1;
        }
        labels.extend(
            step.output_map
                .values()
                .map(|tensor| (tensor.as_str(), label)),
        );
    }
    let outputs = config.output.iter().map(|output| &output.name);
    match one_label(&labels, outputs) {
        Some(_) => Ok(next_label > 1),
        None => Err(Problem::new("output", mixed(name, name))),
    }
}

/// None when there are several.
fn one_label<'a>(
    labels: &BTreeMap<&str, usize>,
    tensors: impl Iterator<Item = &'a String>,
) -> Option<usize> {
    let found: BTreeSet<usize> = tensors
        .filter_map(|tensor| labels.get(tensor.as_str()).copied())
        .collect();
    (found.len() <= 1).then(|| found.first().copied().unwrap_or(0))
}

fn mixed(name: &str, model: &str) -> String {
    format!(
        "in ensemble {name}, step of model '{model}' receives inputs originated from different decoupled models"
    )
}
