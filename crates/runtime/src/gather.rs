//! Several callers' tensors as one batch, and one batch's outputs as several callers'.

use std::hash::{DefaultHasher, Hash, Hasher};

use protocol::{BufferPool, DataType, Tensor};

/// What must be equal for calls to share a batch: every shape but for its first dimension.
pub(crate) fn class(own: u64, inputs: &[Tensor]) -> u64 {
    let mut hasher = DefaultHasher::new();
    own.hash(&mut hasher);
    for input in inputs {
        // Type and number are the model's; an absent input has no name.
        input.name.is_empty().hash(&mut hasher);
        input.shape.get(1..).hash(&mut hasher);
    }
    hasher.finish()
}

/// Rows of all callers, one after the other, filled up to `padded` with the last row. None when their shapes do not fit
/// together after all.
pub(crate) fn gather(
    callers: &[&[Tensor]],
    padded: usize,
    buffers: &BufferPool,
) -> Option<Vec<Tensor>> {
    let inputs = callers.first()?.len();
    (0..inputs)
        .map(|index| {
            let parts: Option<Vec<&Tensor>> =
                callers.iter().map(|caller| caller.get(index)).collect();
            joined(&parts?, padded, buffers)
        })
        .collect()
}

/// Rows of one input of all callers, as [`gather`] says.
pub(crate) fn joined(parts: &[&Tensor], padded: usize, buffers: &BufferPool) -> Option<Tensor> {
    let first = *parts.first()?;
    let alike = |part: &&Tensor| {
        part.dtype == first.dtype
            && part.name.is_empty() == first.name.is_empty()
            && part.shape.get(1..) == first.shape.get(1..)
    };
    if !parts.iter().all(alike) {
        return None;
    }
    if first.name.is_empty() {
        return Some(first.clone());
    }
    let rows: usize = parts
        .iter()
        .map(|part| part.shape.first().copied().unwrap_or(0))
        .sum();
    let filler = if padded > rows {
        let last = *parts.last()?;
        let last_rows = *last.shape.first()?;
        let at = offset(last, last_rows.checked_sub(1)?)?;
        last.data.slice(at..)
    } else {
        first.data.slice(..0)
    };
    let missing = padded.saturating_sub(rows);
    let bytes: usize = parts.iter().map(|part| part.data.len()).sum();
    let mut buffer = buffers.take(bytes + filler.len() * missing);
    for part in parts {
        buffer.extend_from_slice(&part.data);
    }
    for _ in 0..missing {
        buffer.extend_from_slice(&filler);
    }
    let mut shape = first.shape.clone();
    *shape.first_mut()? = rows + missing;
    Some(Tensor {
        name: first.name.clone(),
        dtype: first.dtype,
        shape,
        data: buffer.freeze(),
    })
}

/// Where a row begins; none when the tensor has no rows or its elements are broken.
fn offset(tensor: &Tensor, row: usize) -> Option<usize> {
    let elements = tensor.shape.get(1..)?.iter().product::<usize>() * row;
    bytes_of(elements, tensor.dtype, &tensor.data)
}

/// Bytes of so many elements at the head of `data`; none when texts among them are broken.
pub(crate) fn bytes_of(elements: usize, dtype: DataType, data: &[u8]) -> Option<usize> {
    if let Some(size) = dtype.size() {
        return elements.checked_mul(size);
    }
    let mut at = 0_usize;
    for _ in 0..elements {
        let length = data.get(at..at.checked_add(4)?)?;
        let length = u32::from_le_bytes(length.try_into().ok()?);
        at = at
            .checked_add(4)?
            .checked_add(usize::try_from(length).ok()?)?;
    }
    (at <= data.len()).then_some(at)
}

/// Gives each caller its rows of an output, without copying. What follows them is padding. The error names the output.
pub(crate) fn split(output: &Tensor, rows: &[usize], padded: usize) -> Result<Vec<Tensor>, String> {
    if output.name.is_empty() {
        return Ok(vec![output.clone(); rows.len()]);
    }
    let found = output.shape.first().copied();
    let broken = || {
        let found = found.map_or_else(|| "none".to_owned(), |found| found.to_string());
        format!(
            "output `{}`: first dimension {found}, the batch has {padded} rows; set `max_batch_size: 0` if it is no batch dimension",
            output.name
        )
    };
    if found != Some(padded) {
        return Err(broken());
    }
    let mut from = 0;
    let mut at = 0;
    let mut parts = Vec::with_capacity(rows.len());
    for rows in rows {
        let rest = Tensor {
            name: String::new(),
            shape: output.shape.clone(),
            dtype: output.dtype,
            data: output.data.slice(at..),
        };
        let length = offset(&rest, *rows).ok_or_else(broken)?;
        if at + length > output.data.len() {
            return Err(broken());
        }
        let mut shape = output.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = *rows;
        }
        parts.push(Tensor {
            name: output.name.clone(),
            dtype: output.dtype,
            shape,
            data: output.data.slice(at..at + length),
        });
        from += rows;
        at += length;
    }
    if from > padded {
        return Err(broken());
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use protocol::tensor::encode_bytes_elements;

    use super::*;

    fn floats(shape: &[usize], from: u8) -> Tensor {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count)
            .map(|index| f32::from(from) + index as f32)
            .collect();
        Tensor::from_elements("x", DataType::Fp32, shape.to_vec(), values).expect("fits")
    }

    fn texts(texts: &[&str]) -> Tensor {
        let data = encode_bytes_elements(texts.iter().map(|text| text.as_bytes())).expect("short");
        Tensor::new("t", DataType::Bytes, vec![texts.len()], data.into()).expect("fits")
    }

    #[test]
    fn what_goes_in_together_comes_out_apart() {
        let callers = [
            vec![floats(&[1, 2], 0), texts(&["a"])],
            vec![floats(&[2, 2], 10), texts(&["", "ccc"])],
        ];
        let slices: Vec<&[Tensor]> = callers.iter().map(Vec::as_slice).collect();
        for padded in [3, 5] {
            let joined = gather(&slices, padded, &BufferPool::default()).expect("alike");
            assert_eq!(joined[0].shape, [padded, 2]);
            assert_eq!(joined[0].element_count() * 4, joined[0].data.len());
            for (index, tensor) in joined.iter().enumerate() {
                let parts = split(tensor, &[1, 2], padded).expect("a batch");
                let expected: Vec<_> = callers.iter().map(|caller| caller[index].clone()).collect();
                assert_eq!(parts, expected, "{padded}");
            }
        }
    }

    #[test]
    fn shapes_that_do_not_fit_together_are_not_joined() {
        let (left, right) = (vec![floats(&[1, 2], 0)], vec![floats(&[1, 3], 0)]);
        assert_ne!(class(0, &left), class(0, &right));
        assert_eq!(class(0, &left), class(0, &[floats(&[7, 2], 0)]));
        assert_ne!(class(1, &left), class(0, &left));
        assert_eq!(gather(&[&left, &right], 2, &BufferPool::default()), None);
    }

    #[test]
    fn an_output_that_is_no_batch_is_named() {
        for (shape, said) in [(vec![2, 3], "2"), (vec![], "none"), (vec![6], "6")] {
            let count = shape.iter().product::<usize>().max(1);
            let output = Tensor::from_elements("boxes", DataType::Fp32, shape, vec![0_f32; count]);
            let error = split(&output.expect("fits"), &[1, 2], 3).expect_err("not three rows");
            let expected = format!("output `boxes`: first dimension {said}, the batch has 3 rows");
            assert!(error.starts_with(&expected), "{error}");
        }
    }
}
