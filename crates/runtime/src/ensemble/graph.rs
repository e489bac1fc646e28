use std::collections::BTreeMap;

use protocol::config::ensemble;
use protocol::oip::proto::ModelConfig;
use protocol::oip::proto::model_ensembling;
use protocol::sidecar::Pipeline;

use crate::request::list;

/// The steps, with the ensemble's tensors as numbers. Checked: each tensor comes from a client or from one step, and
/// there is no cycle.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) steps: Vec<Step>,
    tensors: BTreeMap<String, usize>,
    /// By tensor: the step that makes it; none for inputs.
    writers: Vec<Option<usize>>,
}

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) model: String,
    /// None is the latest.
    pub(crate) version: Option<String>,
    /// The member's name of an input, and the tensor that goes there.
    pub(crate) inputs: Vec<(String, usize)>,
    pub(crate) outputs: Vec<(String, usize)>,
    pub(crate) fan_out: Option<FanOut>,
}

/// A step that runs per item.
#[derive(Debug)]
pub(crate) struct FanOut {
    /// Tensors, by name as the rules of ensembles want them, and by number.
    pub(crate) names: Vec<String>,
    pub(crate) over: Vec<usize>,
    pub(crate) items_max: usize,
    pub(crate) in_flight: usize,
    pub(crate) chunk: Option<usize>,
}

impl Graph {
    /// From a valid configuration.
    pub(crate) fn build(config: &ModelConfig, pipeline: &Pipeline) -> Result<Self, String> {
        let mut graph = Self {
            steps: Vec::new(),
            tensors: BTreeMap::new(),
            writers: Vec::new(),
        };
        for input in &config.input {
            graph.number(&input.name);
        }
        for (index, step) in ensemble::steps(config)
            .unwrap_or_default()
            .iter()
            .enumerate()
        {
            let step = graph.step(step)?;
            for (_, tensor) in &step.outputs {
                graph.writers[*tensor] = Some(index);
            }
            graph.steps.push(step);
        }
        if !pipeline.fan_out.is_empty() && config.max_batch_size > 0 {
            return Err(
                "[[pipeline.fan_out]] needs an ensemble without a batch dimension: set max_batch_size to 0"
                    .to_owned(),
            );
        }
        for fan_out in &pipeline.fan_out {
            graph.fan_out(fan_out)?;
        }
        Ok(graph)
    }

    fn number(&mut self, tensor: &str) -> usize {
        let next = self.writers.len();
        let number = *self.tensors.entry(tensor.to_owned()).or_insert(next);
        if number == next {
            self.writers.push(None);
        }
        number
    }

    fn step(&mut self, step: &model_ensembling::Step) -> Result<Step, String> {
        if !step.model_namespace.is_empty() {
            return Err(format!(
                "`model_namespace` of the step of model `{}` is not supported: all models are in one",
                step.model_name
            ));
        }
        let mut numbered = |map: &BTreeMap<String, String>| -> Vec<(String, usize)> {
            map.iter()
                .map(|(name, tensor)| (name.clone(), self.number(tensor)))
                .collect()
        };
        Ok(Step {
            inputs: numbered(&step.input_map),
            outputs: numbered(&step.output_map),
            model: step.model_name.clone(),
            version: (step.model_version > 0).then(|| step.model_version.to_string()),
            fan_out: None,
        })
    }

    fn fan_out(&mut self, said: &protocol::sidecar::FanOut) -> Result<(), String> {
        let named: Vec<usize> = self.steps_named(&said.step);
        let [index] = named[..] else {
            let models = list(self.steps.iter().map(|step| step.model.as_str()));
            return Err(if named.is_empty() {
                format!(
                    "[[pipeline.fan_out]] step: there is no step `{}`, the steps' models are {models}",
                    said.step
                )
            } else {
                format!(
                    "[[pipeline.fan_out]] step: several steps are of model `{}`; write the step's number, counted from 0",
                    said.step
                )
            });
        };
        let step = &mut self.steps[index];
        let mut over = Vec::new();
        for name in &said.over {
            let tensor = self.tensors.get(name).copied();
            let read = tensor.filter(|tensor| step.inputs.iter().any(|(_, input)| input == tensor));
            over.push(read.ok_or_else(|| {
                format!(
                    "[[pipeline.fan_out]] over: step `{}` reads no tensor `{name}`",
                    said.step
                )
            })?);
        }
        step.fan_out = Some(FanOut {
            names: said.over.clone(),
            over,
            items_max: said.max_items,
            in_flight: said.in_flight,
            chunk: said.chunk,
        });
        Ok(())
    }

    /// By their model's name; else by number.
    fn steps_named(&self, said: &str) -> Vec<usize> {
        let by_name: Vec<usize> = (0..self.steps.len())
            .filter(|index| self.steps[*index].model == said)
            .collect();
        if !by_name.is_empty() {
            return by_name;
        }
        let number = said.parse().ok();
        number
            .filter(|number| *number < self.steps.len())
            .into_iter()
            .collect()
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<usize> {
        self.tensors.get(name).copied()
    }

    /// Of a tensor's number.
    pub(crate) fn name(&self, tensor: usize) -> &str {
        let mut names = self.tensors.iter();
        let found = names.find(|(_, number)| **number == tensor);
        found.map_or("", |(name, _)| name)
    }

    pub(crate) fn is_input(&self, tensor: usize) -> bool {
        self.writers[tensor].is_none()
    }

    pub(crate) fn tensors(&self) -> usize {
        self.writers.len()
    }

    /// The steps without which these tensors cannot be.
    pub(crate) fn needed(&self, wanted: &[usize]) -> Vec<bool> {
        let mut needed = vec![false; self.steps.len()];
        let mut open = wanted.to_vec();
        while let Some(tensor) = open.pop() {
            if let Some(step) = self.writers[tensor]
                && !needed[step]
            {
                needed[step] = true;
                open.extend(self.steps[step].inputs.iter().map(|(_, input)| *input));
            }
        }
        needed
    }
}
