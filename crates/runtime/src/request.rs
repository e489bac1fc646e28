//! Does a request fit the model? A pure check whose messages name the field, and the order the engine needs.

use protocol::config::reshaped;
use protocol::tensor::element_count;
use protocol::{InferRequest, RequestedOutput, Tensor, TensorSpec};

use crate::call::Call;
use crate::error::Error;

/// A model's inputs and outputs as clients see them, and where each is in the engine's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
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
}

/// One shape said in other dimensions, the batch dimension left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reshape {
    pub(crate) from: Vec<i64>,
    pub(crate) to: Vec<i64>,
}

/// A request that fits.
#[derive(Debug)]
pub(crate) struct Fitted {
    pub(crate) call: Call,
    /// Indices into [`Interface::outputs`], in the client's order.
    pub(crate) outputs: Vec<usize>,
    /// Items in the batch; 1 without a batch dimension.
    pub(crate) batch: usize,
}

impl Interface {
    /// Checks a request and puts its tensors into the engine's order.
    pub(crate) fn fit(&self, request: InferRequest) -> Result<Fitted, Error> {
        let mut places: Vec<Option<Tensor>> = vec![None; self.inputs.len()];
        for input in request.inputs {
            let index = self.index_of(&input.name)?;
            self.inputs[index].check(&input)?;
            let place = &mut places[index];
            if place.is_some() {
                let message = format!("input `{}` is given twice", input.name);
                return Err(Error::request("inputs", message));
            }
            *place = Some(input);
        }
        let mut inputs = self.all(places)?;
        let batch = self.batch(&inputs)?;
        for (input, port) in inputs.iter_mut().zip(&self.inputs) {
            port.to_engine(input)?;
        }
        let outputs = self.wanted(&request.outputs)?;
        let engine_index = |index: &usize| self.outputs[*index].index;
        Ok(Fitted {
            call: Call {
                inputs,
                wanted: outputs.iter().map(engine_index).collect(),
                rows: self.batch_max.map_or(0, |_| batch),
                ..Call::default()
            },
            outputs,
            batch,
        })
    }

    fn index_of(&self, name: &str) -> Result<usize, Error> {
        let found = self.inputs.iter().position(|port| port.spec.name == name);
        found.ok_or_else(|| {
            let known = list(self.inputs.iter().map(|port| port.spec.name.as_str()));
            let message = format!("input `{name}` is unknown, the model's inputs are {known}");
            Error::request("inputs", message)
        })
    }

    fn all(&self, places: Vec<Option<Tensor>>) -> Result<Vec<Tensor>, Error> {
        let missing = |(port, place): (&Port, &Option<Tensor>)| {
            place.is_none().then(|| port.spec.name.clone())
        };
        let absent: Vec<String> = self
            .inputs
            .iter()
            .zip(&places)
            .filter_map(missing)
            .collect();
        if absent.is_empty() {
            return Ok(places.into_iter().flatten().collect());
        }
        let noun = if absent.len() == 1 { "input" } else { "inputs" };
        let verb = if absent.len() == 1 { "is" } else { "are" };
        let names = list(absent.iter().map(String::as_str));
        let message = format!("{noun} {names} {verb} missing");
        Err(Error::request("inputs", message))
    }

    /// The common first dimension, within the bound.
    fn batch(&self, inputs: &[Tensor]) -> Result<usize, Error> {
        let Some(batch_max) = self.batch_max else {
            return Ok(1);
        };
        let mut batch: Option<(&str, usize)> = None;
        for input in inputs {
            let rows = input.shape.first().copied().unwrap_or(0);
            if rows == 0 || rows > batch_max {
                let message = format!(
                    "input `{}`: batch of {rows}, the model takes 1 to {batch_max}",
                    input.name
                );
                return Err(Error::request("inputs", message));
            }
            match batch {
                Some((first, expected)) if expected != rows => {
                    let message = format!(
                        "input `{}`: batch of {rows}, input `{first}` has {expected}",
                        input.name
                    );
                    return Err(Error::request("inputs", message));
                }
                _ => batch = Some((&input.name, rows)),
            }
        }
        Ok(batch.map_or(1, |(_, rows)| rows))
    }

    fn wanted(&self, requested: &[RequestedOutput]) -> Result<Vec<usize>, Error> {
        if requested.is_empty() {
            return Ok((0..self.outputs.len()).collect());
        }
        let mut wanted = Vec::with_capacity(requested.len());
        for RequestedOutput { name, .. } in requested {
            let found = self.outputs.iter().position(|port| port.spec.name == *name);
            let index = found.ok_or_else(|| {
                let known = list(self.outputs.iter().map(|port| port.spec.name.as_str()));
                let message =
                    format!("output `{name}` is unknown, the model's outputs are {known}");
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

    /// Gives the engine's outputs the names and shapes that clients know; `wanted` is [`Fitted::outputs`].
    pub(crate) fn answer(&self, outputs: Vec<Tensor>, wanted: &[usize]) -> Vec<Tensor> {
        let known_as = |(mut output, index): (Tensor, &usize)| {
            let port = &self.outputs[*index];
            output.name.clone_from(&port.spec.name);
            if let Some(shape) = port.reshaped(&output.shape) {
                output.shape = shape;
            }
            output
        };
        outputs.into_iter().zip(wanted).map(known_as).collect()
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
    /// A scalar may be sent as one, although the configuration has no way to say so.
    fn check(&self, input: &Tensor) -> Result<(), Error> {
        if input.shape.is_empty() && self.engine.shape.is_empty() {
            return check(input, &self.engine);
        }
        check(input, &self.spec)
    }

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

pub(crate) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests;
