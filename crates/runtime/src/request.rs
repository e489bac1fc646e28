//! Does a request fit the model? A pure check whose messages name the field, and the order the engine needs.

use protocol::config::reshaped;
use protocol::tensor::element_count;
use protocol::{InferRequest, RequestedOutput, Tensor, TensorSpec};

use crate::call::Call;
use crate::classify::{self, Labels};
use crate::engine::{absent, is_absent};
use crate::error::Error;

/// A model's inputs and outputs as clients see them, and where each is in the engine's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    /// For messages: Triton's own words name it.
    pub(crate) model: String,
    /// Whether the engine runs without its optional inputs.
    pub(crate) takes_absent: bool,
    /// In the engine's order.
    pub(crate) inputs: Vec<Port>,
    /// In the configuration's order.
    pub(crate) outputs: Vec<Port>,
    /// Largest first dimension; none when the model has no batch dimension.
    pub(crate) batch_max: Option<usize>,
}

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    /// As clients see it.
    pub(crate) spec: TensorSpec,
    /// As the engine sees it.
    pub(crate) engine: TensorSpec,
    /// Index in the engine's order.
    pub(crate) index: usize,
    /// The configuration's reshape.
    pub(crate) reshape: Option<Reshape>,
    /// Requests may leave it out.
    pub(crate) optional: bool,
}

/// One shape said in other dimensions, the batch dimension left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reshape {
    pub(crate) from: Vec<i64>,
    pub(crate) to: Vec<i64>,
}

const BATCH_NOTE: &str = "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be \
    prepended to each input shape. If you want to specify the full shape including the batch dim in your input dims config, \
    try setting max_batch_size to zero. See the model configuration docs for more info on max_batch_size.";

/// A request that fits.
#[derive(Debug)]
pub(crate) struct Fitted {
    pub(crate) call: Call,
    /// Indices into [`Interface::outputs`], in the client's order.
    pub(crate) outputs: Vec<usize>,
    /// For each of `outputs`, how many classes are wanted of it; empty when every output is wanted as it is.
    pub(crate) classes: Vec<Option<usize>>,
    /// Items in the batch; 1 without a batch dimension.
    pub(crate) batch: usize,
}

impl Interface {
    /// Checks a request and puts its tensors into the engine's order. Where Triton refuses, it is in its words: clients
    /// and their tests match on them.
    pub(crate) fn fit(&self, request: InferRequest) -> Result<Fitted, Error> {
        let outputs = self.wanted(&request.outputs)?;
        let classes = self.classes(&request.outputs)?;
        self.count(&request.inputs)?;
        let mut places: Vec<Option<Tensor>> = vec![None; self.inputs.len()];
        let batch = self.batch(&request.inputs)?;
        for mut input in request.inputs {
            let index = self.index_of(&input.name)?;
            let port = &self.inputs[index];
            self.check(port, &input)?;
            port.to_engine(&mut input)?;
            if places[index].is_some() {
                let message = format!("input `{}` is given twice", input.name);
                return Err(Error::request("inputs", message));
            }
            places[index] = Some(input);
        }
        let (inputs, class) = self.all(places)?;
        let engine_index = |index: &usize| self.outputs[*index].index;
        Ok(Fitted {
            call: Call {
                inputs,
                wanted: outputs.iter().map(engine_index).collect(),
                rows: self.batch_max.map_or(0, |_| batch),
                class,
                ..Call::default()
            },
            outputs,
            classes,
            batch,
        })
    }

    /// Whether as many inputs are there as the model takes.
    fn count(&self, inputs: &[Tensor]) -> Result<(), Error> {
        let all = self.inputs.len();
        let required = self.inputs.iter().filter(|port| !port.optional).count();
        if (required..=all).contains(&inputs.len()) {
            return Ok(());
        }
        Err(self.miscounted(inputs.iter().map(|input| input.name.as_str()).collect()))
    }

    fn miscounted(&self, given: Vec<&str>) -> Error {
        let all = self.inputs.len();
        let required: Vec<_> = self.inputs.iter().filter(|port| !port.optional).collect();
        let missing = required.iter().map(|port| port.spec.name.as_str());
        let missing = missing.filter(|name| !given.contains(name)).collect();
        let expected = if required.len() == all {
            format!("{all} inputs")
        } else {
            format!("number of inputs between {} and {all}", required.len())
        };
        let message = format!(
            "expected {expected} but got {} inputs for model '{}'. Got input(s) {}, but missing required input(s) {}. Please provide all required input(s).",
            given.len(),
            self.model,
            quoted(given),
            quoted(missing)
        );
        Error::request("inputs", message)
    }

    fn index_of(&self, name: &str) -> Result<usize, Error> {
        let found = self.inputs.iter().position(|port| port.spec.name == name);
        found.ok_or_else(|| {
            let name = protocol::shown::name(name);
            let message = format!(
                "unexpected inference input '{name}' for model '{}'",
                self.model
            );
            Error::request("inputs", message)
        })
    }

    /// The inputs, and which of them are absent as bits: only requests that lack the same inputs may share a batch.
    fn all(&self, places: Vec<Option<Tensor>>) -> Result<(Vec<Tensor>, u64), Error> {
        let mut inputs = Vec::with_capacity(places.len());
        let mut class = 0_u64;
        for (index, (place, port)) in places.iter().zip(&self.inputs).enumerate() {
            if place.is_some() {
                continue;
            }
            if !port.optional {
                let given = places.iter().flatten().map(|input| input.name.as_str());
                return Err(self.miscounted(given.collect()));
            }
            if !self.takes_absent {
                let message = format!(
                    "input `{}` is optional in the configuration, but the engine of model `{}` cannot run without it",
                    port.spec.name, self.model
                );
                return Err(Error::request("inputs", message));
            }
            // Inputs beyond the 64th share bits: such requests still find each other by their shapes.
            class |= 1_u64.rotate_left(u32::try_from(index).unwrap_or(u32::MAX));
        }
        inputs.extend(places.into_iter().map(|place| place.unwrap_or_else(absent)));
        Ok((inputs, class))
    }

    /// The common first dimension, within the bound.
    fn batch(&self, inputs: &[Tensor]) -> Result<usize, Error> {
        let Some(batch_max) = self.batch_max else {
            return Ok(1);
        };
        let refuse = |message: String| Err(Error::request("inputs", message));
        let model = &self.model;
        let mut batch: Option<usize> = None;
        for input in inputs {
            let Some(rows) = input.shape.first().copied() else {
                let name = protocol::shown::name(&input.name);
                return refuse(format!(
                    "input '{name}' has no shape but model requires batch dimension for '{model}'"
                ));
            };
            if rows == 0 {
                let name = protocol::shown::name(&input.name);
                return refuse(format!(
                    "input `{name}`: batch of 0, the model takes 1 to {batch_max}"
                ));
            }
            if *batch.get_or_insert(rows) != rows {
                let name = protocol::shown::name(&input.name);
                return refuse(format!(
                    "input '{name}' batch size does not match other inputs for '{model}'"
                ));
            }
        }
        let batch = batch.unwrap_or(1);
        if batch > batch_max {
            return refuse(format!(
                "inference request batch-size must be <= {batch_max} for '{model}'"
            ));
        }
        Ok(batch)
    }

    /// As the client sees it.
    fn check(&self, port: &Port, input: &Tensor) -> Result<(), Error> {
        let (spec, model) = (&port.spec, &self.model);
        if input.dtype != spec.dtype {
            let message = format!(
                "inference input '{}' data-type is '{}', but model '{model}' expects '{}'",
                spec.name, input.dtype, spec.dtype
            );
            return Err(Error::request("inputs", message));
        }
        // A scalar may be sent as one, although the configuration has no way to say so.
        let scalar = input.shape.is_empty() && port.engine.shape.is_empty();
        if scalar || spec.accepts(&input.shape) {
            return Ok(());
        }
        let note = if self.batch_max.is_some() {
            BATCH_NOTE
        } else {
            ""
        };
        let message = format!(
            "unexpected shape for input '{}' for model '{model}'. Expected {}, got {}. {note}",
            spec.name,
            shape(&spec.shape),
            shape(&input.shape)
        );
        Err(Error::request("inputs", message.trim_end()))
    }

    fn classes(&self, requested: &[RequestedOutput]) -> Result<Vec<Option<usize>>, Error> {
        // Most requests have no parameters here: they pay nothing.
        if requested.iter().all(|output| output.parameters.is_empty()) {
            return Ok(Vec::new());
        }
        let classes: Vec<_> = requested
            .iter()
            .map(classify::asked)
            .collect::<Result<_, _>>()?;
        for (output, _) in requested
            .iter()
            .zip(&classes)
            .filter(|(_, classes)| classes.is_some())
        {
            let port = self
                .outputs
                .iter()
                .find(|port| port.spec.name == output.name);
            port.map_or(Ok(()), |port| classify::supported(port.spec.dtype))?;
        }
        let some = classes.iter().any(Option::is_some);
        Ok(if some { classes } else { Vec::new() })
    }

    fn wanted(&self, requested: &[RequestedOutput]) -> Result<Vec<usize>, Error> {
        if requested.is_empty() {
            return Ok((0..self.outputs.len()).collect());
        }
        let mut wanted = Vec::with_capacity(requested.len());
        for RequestedOutput { name, .. } in requested {
            let found = self.outputs.iter().position(|port| port.spec.name == *name);
            let index = found.ok_or_else(|| {
                let name = protocol::shown::name(name);
                let message = format!(
                    "unexpected inference output '{name}' for model '{}'",
                    self.model
                );
                Error::request("outputs", message)
            })?;
            if wanted.contains(&index) {
                let message = format!("output `{name}` is asked for twice");
                return Err(Error::request("outputs", message));
            }
            wanted.push(index);
        }
        Ok(wanted)
    }

    /// As [`Self::answer`], with the outputs that the client wants as classes; `classes` is [`Fitted::classes`].
    pub(crate) fn classified(
        &self,
        outputs: Vec<Tensor>,
        (wanted, classes): (&[usize], &[Option<usize>]),
        labels: &Labels,
    ) -> Result<Vec<Tensor>, Error> {
        let mut outputs = self.answer(outputs, wanted);
        for ((output, index), count) in outputs.iter_mut().zip(wanted).zip(classes) {
            if let Some(count) = count {
                let batched = self.batch_max.is_some();
                *output = classify::classify(output, *count, batched, (labels, *index))?;
            }
        }
        Ok(outputs)
    }

    /// Outputs as what runs the model has them; `wanted` is [`Fitted::outputs`].
    pub(crate) fn behind(&self, wanted: &[usize]) -> Vec<TensorSpec> {
        let behind = |index: &usize| self.outputs[*index].engine.clone();
        wanted.iter().map(behind).collect()
    }

    /// Gives the engine's outputs the names and shapes that clients know; `wanted` is [`Fitted::outputs`].
    pub(crate) fn answer(&self, outputs: Vec<Tensor>, wanted: &[usize]) -> Vec<Tensor> {
        let known_as = |(mut output, index): (Tensor, &usize)| {
            // What a request left out has no answer either.
            if is_absent(&output) {
                return None;
            }
            let port = &self.outputs[*index];
            output.name.clone_from(&port.spec.name);
            if let Some(shape) = port.reshaped(&output.shape) {
                output.shape = shape;
            }
            Some(output)
        };
        outputs
            .into_iter()
            .zip(wanted)
            .filter_map(known_as)
            .collect()
    }
}

impl Reshape {
    pub(crate) fn reversed(self) -> Self {
        Self {
            from: self.to,
            to: self.from,
        }
    }
}

impl Port {
    /// None when there is no reshape, or when the shape is not one the configuration foresees.
    fn reshaped(&self, shape: &[usize]) -> Option<Vec<usize>> {
        let Reshape { from, to } = self.reshape.as_ref()?;
        let reshaped = reshaped(shape, from, to)?;
        (element_count(&reshaped) == element_count(shape)).then_some(reshaped)
    }

    fn to_engine(&self, input: &mut Tensor) -> Result<(), Error> {
        if let Some(shape) = self.reshaped(&input.shape) {
            input.shape = shape;
        }
        // The configuration may be wider than the model.
        check(input, &self.engine)
    }
}

fn check(input: &Tensor, spec: &TensorSpec) -> Result<(), Error> {
    if input.dtype != spec.dtype {
        let message = format!(
            "input `{}`: datatype {}, the model expects {}",
            input.name, input.dtype, spec.dtype
        );
        return Err(Error::request("inputs", message));
    }
    if !spec.accepts(&input.shape) {
        let message = format!(
            "input `{}`: shape {}, the model expects {}",
            input.name,
            shape(&input.shape),
            shape(&spec.shape)
        );
        return Err(Error::request("inputs", message));
    }
    Ok(())
}

fn shape<T: ToString>(dims: &[T]) -> String {
    let dims: Vec<_> = dims.iter().map(T::to_string).collect();
    format!("[{}]", dims.join(","))
}

fn quoted(names: Vec<&str>) -> String {
    let names = names.into_iter().map(protocol::shown::name);
    let quoted: Vec<_> = names.map(|name| format!("'{name}'")).collect();
    format!("[{}]", quoted.join(","))
}

pub(crate) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests;
