//! Cutting tensors into items and joining them again. Pure.

use std::ops::Range;

use protocol::tensor::{BytesElements, element_count, encode_bytes_elements};
use protocol::{BufferPool, DataType, Tensor, TensorSpec};

use crate::engine::EngineError;

/// The tensor as `spec` wants it, where that is a matter of a batch of one said or left out; the bytes are the same.
pub(crate) fn conform(mut tensor: Tensor, spec: &TensorSpec) -> Tensor {
    if spec.accepts(&tensor.shape) {
        return tensor;
    }
    if let [1, rest @ ..] = tensor.shape.as_slice()
        && spec.accepts(rest)
    {
        tensor.shape.remove(0);
        return tensor;
    }
    tensor.shape.insert(0, 1);
    if !spec.accepts(&tensor.shape) {
        // The member says what it expects instead.
        tensor.shape.remove(0);
    }
    tensor
}

/// A tensor whose first dimension counts items.
#[derive(Debug)]
pub(crate) struct Items {
    tensor: Tensor,
    /// Where each item begins, and the end.
    offsets: Vec<usize>,
}

impl Items {
    /// None when there is no first dimension, or the bytes are not what the shape says.
    pub(crate) fn of(tensor: Tensor) -> Option<Self> {
        let (count, item) = tensor.shape.split_first()?;
        let elements = element_count(item)?;
        let offsets = match tensor.dtype.size() {
            Some(size) => (0..=*count).map(|item| item * elements * size).collect(),
            None => text_offsets(&tensor, *count, elements)?,
        };
        (offsets.last() == Some(&tensor.data.len())).then_some(Self { tensor, offsets })
    }

    pub(crate) fn count(&self) -> usize {
        self.offsets.len() - 1
    }

    pub(crate) fn name(&self) -> &str {
        &self.tensor.name
    }

    /// Some items as a tensor under the member's name; with `rows` they stay in a first dimension.
    pub(crate) fn cut(&self, name: &str, range: &Range<usize>, rows: bool) -> Tensor {
        let mut shape = self.tensor.shape.clone();
        if rows {
            shape[0] = range.len();
        } else {
            shape.remove(0);
        }
        let bytes = self.offsets[range.start]..self.offsets[range.end];
        Tensor {
            name: name.to_owned(),
            dtype: self.tensor.dtype,
            shape,
            data: self.tensor.data.slice(bytes),
        }
    }
}

fn text_offsets(tensor: &Tensor, count: usize, elements: usize) -> Option<Vec<usize>> {
    let mut texts = BytesElements::new(&tensor.data);
    let mut offsets = vec![0];
    let mut end = 0;
    for _ in 0..count {
        for _ in 0..elements {
            end += 4 + texts.next()?.ok()?.len();
        }
        offsets.push(end);
    }
    Some(offsets)
}

/// One call's answer for some items.
#[derive(Debug)]
pub(crate) struct Part {
    /// The first item.
    pub(crate) first: usize,
    pub(crate) tensor: Tensor,
}

/// Why items do not make one tensor.
#[derive(Debug)]
pub(crate) struct Ragged {
    pub(crate) item: usize,
    pub(crate) error: EngineError,
}

/// Joins the answers, in order, along a first dimension that counts items; `rows` says that the parts have it already.
/// BYTES items of different lengths are filled up with empty texts; other items must have one shape.
pub(crate) fn gather(
    name: &str,
    spec: &TensorSpec,
    mut parts: Vec<Part>,
    (rows, buffers): (bool, &BufferPool),
) -> Result<Tensor, Ragged> {
    if !rows {
        for part in &mut parts {
            part.tensor.shape.insert(0, 1);
        }
    }
    let Some(first) = parts.first() else {
        return Ok(empty(name, spec, rows));
    };
    let item_shape = first.tensor.shape.get(1..).unwrap_or_default().to_vec();
    let other = parts
        .iter()
        .find(|part| part.tensor.shape.get(1..) != Some(&item_shape));
    if let Some(other) = other {
        if spec.dtype == DataType::Bytes {
            return filled_up(name, &parts);
        }
        let shape = other.tensor.shape.get(1..).unwrap_or_default();
        return Err(Ragged {
            item: other.first,
            error: EngineError::Input(format!(
                "output `{name}` has shape {shape:?}, item 0 has {item_shape:?}: items of one output must have one shape"
            )),
        });
    }
    let count = parts.iter().map(|part| part.tensor.shape[0]).sum();
    let shape = [count].into_iter().chain(item_shape).collect();
    if parts.len() == 1
        && let Some(Part { mut tensor, .. }) = parts.pop()
    {
        tensor.shape = shape;
        name.clone_into(&mut tensor.name);
        return Ok(tensor);
    }
    let mut buffer = buffers.take(parts.iter().map(|part| part.tensor.data.len()).sum());
    for part in &parts {
        buffer.extend_from_slice(&part.tensor.data);
    }
    Ok(Tensor {
        name: name.to_owned(),
        dtype: spec.dtype,
        shape,
        data: buffer.freeze(),
    })
}

/// Dimensions that only an item could decide are 0.
fn empty(name: &str, spec: &TensorSpec, rows: bool) -> Tensor {
    let item = spec.shape.get(usize::from(rows)..).unwrap_or_default();
    let item = item.iter().map(|dim| usize::try_from(*dim).unwrap_or(0));
    Tensor {
        name: name.to_owned(),
        dtype: spec.dtype,
        shape: [0].into_iter().chain(item).collect(),
        data: Vec::new().into(),
    }
}

/// Each item's texts in one row, as long as the longest.
fn filled_up(name: &str, parts: &[Part]) -> Result<Tensor, Ragged> {
    let mut items: Vec<Vec<&[u8]>> = Vec::new();
    for part in parts {
        let broken = || Ragged {
            item: part.first,
            error: EngineError::Input(format!("output `{name}` is no list of texts")),
        };
        let count = part.tensor.shape[0];
        let texts: Result<Vec<&[u8]>, ()> = BytesElements::new(&part.tensor.data).collect();
        let texts = texts.map_err(|()| broken())?;
        let each = texts.len().checked_div(count).unwrap_or(0);
        items.extend((0..count).map(|item| texts[item * each..(item + 1) * each].to_vec()));
    }
    let longest = items.iter().map(Vec::len).max().unwrap_or(0);
    for item in &mut items {
        item.resize(longest, b"");
    }
    let data = encode_bytes_elements(items.iter().flatten()).unwrap_or_default();
    Ok(Tensor {
        name: name.to_owned(),
        dtype: DataType::Bytes,
        shape: vec![items.len(), longest],
        data: data.into(),
    })
}
