//! Inputs that no client sends: what each is, follows from one input of all requests of the batch.

use protocol::oip::proto::batch_input::Kind;
use protocol::{BufferPool, DataType, Tensor, TensorSpec};

use crate::engine::EngineError;

/// One `batch_input`, whose type is INT32 or FP32 and the engine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) kind: Kind,
    /// As the engine has it.
    pub(super) target: TensorSpec,
    /// The input it follows from, as an index into a request's.
    pub(super) source: usize,
}

impl Made {
    /// From the source's shape in each request, the batch dimension first.
    pub(super) fn tensor(
        &self,
        shapes: &[&[usize]],
        buffers: &BufferPool,
    ) -> Result<Tensor, EngineError> {
        let (shape, values) = self.values(shapes);
        let mut buffer = buffers.take(values.len() * 4);
        for value in values {
            match self.target.dtype {
                DataType::Fp32 => buffer.extend_from_slice(&(value as f32).to_le_bytes()),
                _ => {
                    let value = i32::try_from(value).map_err(|_| {
                        EngineError::Input(format!("input `{}` exceeds INT32", self.target.name))
                    })?;
                    buffer.extend_from_slice(&value.to_le_bytes());
                }
            }
        }
        Ok(Tensor {
            name: self.target.name.clone(),
            dtype: self.target.dtype,
            shape,
            data: buffer.freeze(),
        })
    }

    fn values(&self, shapes: &[&[usize]]) -> (Vec<usize>, Vec<usize>) {
        let counts = shapes.iter().map(|shape| shape.iter().product::<usize>());
        let mut sum = 0_usize;
        let sums = counts.clone().map(|count| {
            sum += count;
            sum
        });
        let values: Vec<usize> = match self.kind {
            Kind::BatchElementCount => counts.collect(),
            Kind::BatchAccumulatedElementCount => sums.collect(),
            Kind::BatchAccumulatedElementCountWithZero => std::iter::once(0).chain(sums).collect(),
            // Its shape alone says something.
            Kind::BatchMaxElementCountAsShape => vec![0; counts.max().unwrap_or(0)],
            Kind::BatchItemShape | Kind::BatchItemShapeFlatten => {
                let each = |shape: &&[usize]| {
                    let (rows, item) = shape.split_first().unwrap_or((&0, &[]));
                    item.repeat(*rows)
                };
                shapes.iter().flat_map(each).collect()
            }
        };
        let shape = match self.kind {
            Kind::BatchItemShape => {
                let rows = shapes.iter().filter_map(|shape| shape.first()).sum();
                let rank = shapes
                    .first()
                    .map_or(0, |shape| shape.len().saturating_sub(1));
                vec![rows, rank]
            }
            _ => vec![values.len()],
        };
        (shape, values)
    }
}
