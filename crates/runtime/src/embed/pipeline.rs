use std::path::Path;
use std::sync::Arc;

use protocol::sidecar::{Pooling, Text};
use protocol::{DataType, Tensor, TensorSpec};
use text::{Batch, Encoder, Hidden, Sequence, pool};

use super::batches::Form;
use crate::agree::numbers;
use crate::call::Call;
use crate::engine::Loaded;
use crate::error::Error;
use crate::request::list;

/// How one model's text becomes inputs, and its output vectors. Checked against the model when it is loaded.
#[derive(Debug)]
pub(crate) struct TextPipeline {
    encoder: Arc<Encoder>,
    /// In the engine's order.
    inputs: Vec<(Part, TensorSpec)>,
    /// Index of the output in the engine's order.
    output: usize,
    /// Length of the model's vectors, where it is fixed.
    width: Option<usize>,
    form: Form,
    pooling: Pooling,
    normalize: bool,
}

/// Which part of a batch an input holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Ids,
    Mask,
    Types,
}

impl Part {
    const NAMES: [(&'static str, Self); 3] = [
        ("input_ids", Self::Ids),
        ("attention_mask", Self::Mask),
        ("token_type_ids", Self::Types),
    ];

    fn of(spec: &TensorSpec) -> Result<(Self, TensorSpec), String> {
        let Some((_, part)) = Self::NAMES.iter().find(|(name, _)| *name == spec.name) else {
            return Err(format!(
                "[text]: the model's input `{}` is none of {}",
                spec.name,
                list(Self::NAMES.iter().map(|(name, _)| *name))
            ));
        };
        match spec.dtype {
            DataType::Int64 | DataType::Int32 => Ok((*part, spec.clone())),
            other => Err(format!(
                "[text]: the model's input `{}` is {other}, not INT64 or INT32",
                spec.name
            )),
        }
    }
}

impl TextPipeline {
    /// Loads the tokenizer and checks that the model takes tokens and gives vectors. `rows_max` is the batch size that
    /// the configuration names.
    pub(crate) fn load(
        folder: &Path,
        settings: &Text,
        model: &dyn Loaded,
        rows_max: Option<usize>,
    ) -> Result<Self, String> {
        let inputs: Vec<_> = model
            .inputs()
            .iter()
            .map(Part::of)
            .collect::<Result<_, _>>()?;
        if !inputs.iter().any(|(part, _)| *part == Part::Ids) {
            return Err("[text]: the model has no input `input_ids`".to_owned());
        }
        let outputs = model.outputs();
        let Some(output) = outputs.iter().position(|spec| spec.name == settings.output) else {
            let known = list(outputs.iter().map(|spec| spec.name.as_str()));
            return Err(format!(
                "[text] output `{}` is unknown, the model's outputs are {known}",
                settings.output
            ));
        };
        let (rank, needed) = match settings.pooling {
            Pooling::None => (outputs[output].shape.len(), 2),
            Pooling::Mean | Pooling::Cls | Pooling::Last => (outputs[output].shape.len(), 3),
        };
        if rank != needed {
            return Err(format!(
                "[text] output `{}` has {rank} dimensions, pooling `{:?}` needs {needed}",
                settings.output, settings.pooling
            ));
        }
        let form = form(&inputs, rows_max)?;
        // Longer texts are cut, so a model of fixed length is one that cuts there.
        let tokens_max = settings
            .max_tokens
            .min(form.columns.unwrap_or(settings.max_tokens));
        let width = outputs[output].shape.last();
        let path = folder.join(&settings.tokenizer);
        let encoder =
            Encoder::from_file(&path, tokens_max).map_err(|error| format!("[text]: {error}"))?;
        Ok(Self {
            encoder: Arc::new(encoder),
            inputs,
            output,
            width: width.and_then(|width| usize::try_from(*width).ok()),
            form,
            pooling: settings.pooling,
            normalize: settings.normalize,
        })
    }

    pub(super) fn encoder(&self) -> Arc<Encoder> {
        Arc::clone(&self.encoder)
    }

    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// Refuses a length that no vector of this model has, as far as it is known before the model has run.
    pub(super) fn check_dimensions(&self, asked: Option<usize>) -> Result<(), Error> {
        let refused = match (asked, self.width) {
            (Some(0), _) => "`dimensions` must be at least 1".to_owned(),
            (Some(asked), Some(width)) if asked > width => {
                text::Error::Dimensions { asked, width }.to_string()
            }
            _ => return Ok(()),
        };
        Err(Error::request("dimensions", refused))
    }

    /// The rectangle that the model takes. Where it fixes the rows, the last text fills them: any text will do, and one
    /// of padding alone may be not-a-number.
    pub(super) fn batch<'a>(&self, sequences: impl Iterator<Item = &'a Sequence> + Clone) -> Batch {
        let missing = self
            .form
            .rows
            .unwrap_or_default()
            .saturating_sub(sequences.clone().count());
        let filler = sequences.clone().last().into_iter().cycle().take(missing);
        let columns_min = self.form.columns.unwrap_or_default();
        Batch::pad(sequences.chain(filler), columns_min, self.encoder.pad_id())
    }

    /// The tensors that the model has inputs for.
    pub(super) fn inputs(&self, batch: &Batch) -> Result<Call, Error> {
        let tensor = |(part, spec): &(Part, TensorSpec)| {
            let values = match part {
                Part::Ids => &batch.input_ids,
                Part::Mask => &batch.attention_mask,
                Part::Types => &batch.token_type_ids,
            };
            let shape = vec![batch.rows, batch.columns];
            let made = match spec.dtype {
                DataType::Int32 => {
                    // Ids come from u32 and are below the vocabulary's size.
                    let narrow = values
                        .iter()
                        .map(|value| i32::try_from(*value).unwrap_or(i32::MAX))
                        .collect();
                    Tensor::from_elements(&spec.name, spec.dtype, shape, narrow)
                }
                _ => Tensor::from_elements(&spec.name, spec.dtype, shape, values.clone()),
            };
            made.map_err(|error| Error::request("input", error.to_string()))
        };
        Ok(Call {
            inputs: self.inputs.iter().map(tensor).collect::<Result<_, _>>()?,
            wanted: vec![self.output],
            // A model that fixes its rows takes no others beside them.
            rows: self.form.rows.map_or(batch.rows, |_| 0),
            ..Call::default()
        })
    }

    /// What remains to be done once the model has run.
    pub(super) fn finish(&self, batch: Batch) -> Finish {
        Finish {
            mask: batch.attention_mask,
            rows: batch.rows,
            pooling: self.pooling,
            normalize: self.normalize,
        }
    }
}

/// What the token inputs fix; they must be rectangles of one size.
fn form(inputs: &[(Part, TensorSpec)], rows_max: Option<usize>) -> Result<Form, String> {
    let mut form = Form {
        rows_max,
        ..Form::default()
    };
    for (_, spec) in inputs {
        let [rows, columns] = spec.shape[..] else {
            return Err(format!(
                "[text]: the model's input `{}` has {} dimensions, tokens need 2: [texts, tokens]",
                spec.name,
                spec.shape.len()
            ));
        };
        for (fixed, dim) in [(&mut form.rows, rows), (&mut form.columns, columns)] {
            let Ok(dim) = usize::try_from(dim) else {
                continue;
            };
            if dim == 0 || fixed.is_some_and(|other| other != dim) {
                return Err(format!(
                    "[text]: the model's input `{}` has shape {:?}, which fits no batch of texts that its other inputs take",
                    spec.name, spec.shape
                ));
            }
            *fixed = Some(dim);
        }
    }
    Ok(form)
}

/// Goes to the compute thread with the call.
#[derive(Debug)]
pub(super) struct Finish {
    mask: Vec<i64>,
    rows: usize,
    pooling: Pooling,
    normalize: bool,
}

impl Finish {
    pub(super) fn normalized(&self) -> bool {
        self.normalize
    }

    pub(super) fn pool(&self, outputs: Vec<Tensor>) -> Result<Vec<Vec<f32>>, Error> {
        let values: Vec<f32> = outputs.iter().flat_map(floats).collect();
        let shape = outputs.first().map_or(&[][..], |output| &output.shape);
        let (columns, width) = match shape {
            [_, columns, width] => (*columns, *width),
            [_, width] => (1, *width),
            _ => (0, 0),
        };
        let hidden = Hidden {
            values: &values,
            rows: self.rows,
            columns,
            width,
        };
        Ok(pool(hidden, &self.mask, self.pooling)?)
    }
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    match tensor.elements::<f32>() {
        Some(values) if tensor.dtype == DataType::Fp32 => values.to_vec(),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "embeddings are f32 whatever the model computes in"
        )]
        _ => numbers(tensor)
            .into_iter()
            .map(|value| value as f32)
            .collect(),
    }
}
