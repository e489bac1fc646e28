//! Where each of the engine's tensors comes from, and how its outputs are shared out.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use protocol::config::data_type;
use protocol::oip::proto::ModelConfig;
use protocol::{BufferPool, Tensor, TensorSpec};

use super::made::Made;
use crate::engine::{EngineError, Loaded, absent, is_absent};
use crate::gather;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// A request's inputs, in the engine's order.
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    /// Which of `inputs` may differ in shape from request to request.
    ragged: Vec<bool>,
    /// For each of the engine's inputs.
    sources: Vec<Source>,
    /// By output.
    scattered: BTreeMap<usize, Scatter>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// An index into a request's inputs.
    Request(usize),
    Made(Made),
}

/// An output that is cut up by the shapes of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Scatter {
    /// An index into a request's inputs.
    input: usize,
    /// -1 stands for the input's dimension at this place.
    dims: Vec<i64>,
}

impl Plan {
    /// None when the configuration asks for nothing of the kind.
    pub(crate) fn of(config: &ModelConfig, model: &dyn Loaded) -> Result<Option<Self>, String> {
        let asked = config.input.iter().any(|input| input.allow_ragged_batch);
        if !asked && config.batch_input.is_empty() && config.batch_output.is_empty() {
            return Ok(None);
        }
        let mut plan = Self {
            inputs: Vec::new(),
            outputs: model.outputs().to_vec(),
            ragged: Vec::new(),
            sources: Vec::new(),
            scattered: BTreeMap::new(),
        };
        for spec in model.inputs() {
            let target = |name: &String| *name == spec.name;
            if config
                .batch_input
                .iter()
                .any(|made| made.target_name.iter().any(target))
            {
                continue;
            }
            plan.input(config, spec);
        }
        plan.sources = plan.sources(config, model)?;
        plan.scatter(config)?;
        Ok(Some(plan))
    }

    fn input(&mut self, config: &ModelConfig, spec: &TensorSpec) {
        let input = config.input.iter().find(|input| input.name == spec.name);
        let ragged = input.filter(|input| input.allow_ragged_batch);
        let spec = match ragged {
            Some(input) => {
                let item = input.reshape.as_ref().map_or(&input.dims, |to| &to.shape);
                TensorSpec::new(&spec.name, spec.dtype, batched(config, item))
            }
            None => spec.clone(),
        };
        self.ragged.push(ragged.is_some());
        self.inputs.push(spec);
    }

    fn sources(&self, config: &ModelConfig, model: &dyn Loaded) -> Result<Vec<Source>, String> {
        let mut sources = Vec::new();
        for spec in model.inputs() {
            let own = self.inputs.iter().position(|own| own.name == spec.name);
            sources.push(match own {
                Some(own) => Source::Request(own),
                None => Source::Made(self.made(config, spec)?),
            });
        }
        for (index, input) in config.batch_input.iter().enumerate() {
            let known = |name: &&String| model.inputs().iter().any(|spec| spec.name == **name);
            if let Some(name) = input.target_name.iter().find(|name| !known(name)) {
                return Err(format!(
                    "`batch_input[{index}].target_name`: the model has no input `{name}`"
                ));
            }
        }
        Ok(sources)
    }

    fn made(&self, config: &ModelConfig, spec: &TensorSpec) -> Result<Made, String> {
        let found = config
            .batch_input
            .iter()
            .enumerate()
            .find(|(_, input)| input.target_name.contains(&spec.name));
        let (index, input) = found.ok_or_else(|| format!("nothing gives input `{}`", spec.name))?;
        if data_type(input.data_type) != Some(spec.dtype) {
            return Err(format!(
                "`batch_input[{index}].data_type`: the model takes {} as `{}`",
                spec.dtype, spec.name
            ));
        }
        Ok(Made {
            kind: input.kind(),
            target: spec.clone(),
            source: self.source(&input.source_input)?,
        })
    }

    fn source(&self, names: &[String]) -> Result<usize, String> {
        let name = names.first().map_or("", String::as_str);
        let place = self.inputs.iter().position(|input| input.name == name);
        place.ok_or_else(|| format!("the model has no input `{name}`, which `source_input` names"))
    }

    fn scatter(&mut self, config: &ModelConfig) -> Result<(), String> {
        for (index, output) in config.batch_output.iter().enumerate() {
            let input = self.source(&output.source_input)?;
            for target in &output.target_name {
                let known = |name: &str| name == target;
                let place = self.outputs.iter().position(|spec| known(&spec.name));
                let place = place.ok_or_else(|| {
                    format!(
                        "`batch_output[{index}].target_name`: the model has no output `{target}`"
                    )
                })?;
                let configured = config.output.iter().find(|output| known(&output.name));
                let item = configured.map_or(&[][..], |output| {
                    let reshaped = output.reshape.as_ref();
                    reshaped.map_or(&output.dims, |from| &from.shape)
                });
                let dims = batched(config, item);
                let rank = self.inputs[input].shape.len();
                if dims.iter().rposition(|dim| *dim < 0) >= Some(rank) {
                    return Err(format!(
                        "`batch_output[{index}]`: output `{target}` has an open dimension that input `{}` does not have",
                        self.inputs[input].name
                    ));
                }
                self.outputs[place].shape.clone_from(&dims);
                self.scattered.insert(place, Scatter { input, dims });
            }
        }
        Ok(())
    }

    pub(super) fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    pub(super) fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// As [`gather::class`], but for inputs that may differ: of those, only what cannot be told apart in one tensor counts.
    pub(crate) fn class(&self, own: u64, inputs: &[Tensor]) -> u64 {
        let mut hasher = DefaultHasher::new();
        own.hash(&mut hasher);
        for (input, ragged) in inputs.iter().zip(&self.ragged) {
            is_absent(input).hash(&mut hasher);
            let item = if *ragged { None } else { input.shape.get(1..) };
            (item, input.shape.len()).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// The engine's inputs for these requests together.
    pub(super) fn gather(
        &self,
        requests: &[&[Tensor]],
        buffers: &BufferPool,
    ) -> Result<Vec<Tensor>, EngineError> {
        let input = |source: &Source| match source {
            Source::Made(made) => {
                let shapes: Option<Vec<&[usize]>> = requests
                    .iter()
                    .map(|request| Some(request.get(made.source)?.shape.as_slice()))
                    .collect();
                made.tensor(&shapes.ok_or_else(apart)?, buffers)
            }
            Source::Request(index) => {
                let parts: Option<Vec<&Tensor>> =
                    requests.iter().map(|request| request.get(*index)).collect();
                let parts = parts.ok_or_else(apart)?;
                if self.ragged[*index] {
                    return Ok(flat(&parts, buffers));
                }
                match parts.as_slice() {
                    [one] => Ok((*one).clone().aligned(buffers)),
                    parts => gather::joined(parts, 0, buffers).ok_or_else(apart),
                }
            }
        };
        self.sources.iter().map(input).collect()
    }

    /// Each request's part of an output.
    pub(super) fn cut(
        &self,
        index: usize,
        output: &Tensor,
        requests: &[&[Tensor]],
    ) -> Result<Vec<Tensor>, EngineError> {
        match self.scattered.get(&index) {
            Some(scatter) if !is_absent(output) => scatter.cut(output, requests),
            // An item is an item, of whatever length.
            _ if requests.len() == 1 => Ok(vec![output.clone()]),
            _ => {
                let shares: Vec<usize> = requests.iter().map(|request| rows(request)).collect();
                gather::split(output, &shares, shares.iter().sum()).map_err(EngineError::Input)
            }
        }
    }
}

impl Scatter {
    fn cut(&self, output: &Tensor, requests: &[&[Tensor]]) -> Result<Vec<Tensor>, EngineError> {
        let mut at = 0;
        let mut parts = Vec::with_capacity(requests.len());
        for request in requests {
            let data = output.data.slice(at..);
            let shape = request.get(self.input).and_then(|input| self.shape(input));
            let length = shape.as_ref().and_then(|shape| {
                let elements = protocol::tensor::element_count(shape)?;
                let length = gather::bytes_of(elements, output.dtype, &data)?;
                (length <= data.len()).then_some(length)
            });
            let (Some(shape), Some(length)) = (shape, length) else {
                return Err(EngineError::Input(format!(
                    "output `{}`: {} elements are too few for the shapes of the batch",
                    output.name,
                    output.element_count()
                )));
            };
            parts.push(Tensor {
                name: output.name.clone(),
                dtype: output.dtype,
                shape,
                data: data.slice(..length),
            });
            at += length;
        }
        Ok(parts)
    }

    fn shape(&self, input: &Tensor) -> Option<Vec<usize>> {
        let dims = self.dims.iter().enumerate();
        dims.map(|(index, dim)| match usize::try_from(*dim) {
            Ok(dim) => Some(dim),
            Err(_) => input.shape.get(index).copied(),
        })
        .collect()
    }
}

/// With the batch dimension, where the model has one.
fn batched(config: &ModelConfig, item: &[i64]) -> Vec<i64> {
    let batch = (config.max_batch_size > 0).then_some(-1);
    batch.into_iter().chain(item.iter().copied()).collect()
}

fn rows(request: &[Tensor]) -> usize {
    let given = request.iter().find(|input| !is_absent(input));
    given
        .and_then(|input| input.shape.first().copied())
        .unwrap_or(0)
}

/// All elements one after the other.
fn flat(parts: &[&Tensor], buffers: &BufferPool) -> Tensor {
    let there = || parts.iter().filter(|part| !is_absent(part));
    let Some(first) = there().next() else {
        return absent();
    };
    let bytes = there().map(|part| part.data.len()).sum();
    let mut buffer = buffers.take(bytes);
    for part in there() {
        buffer.extend_from_slice(&part.data);
    }
    Tensor {
        name: first.name.clone(),
        dtype: first.dtype,
        shape: vec![there().map(|part| part.element_count()).sum()],
        data: buffer.freeze(),
    }
}

fn apart() -> EngineError {
    EngineError::Input("the inputs' shapes do not fit together in one batch".to_owned())
}
