//! Batches of sequences: rows put together, and taken apart again.

use batch::Turn;
use bytes::Bytes;
use protocol::tensor::{BytesElements, element_count};
use protocol::{DataType, Tensor};

use super::Waiter;

/// Requests whose inputs have the same shapes, in the order of their slots.
pub(super) fn alike(turns: Vec<(Turn, Waiter)>) -> Vec<Vec<(Turn, Waiter)>> {
    let mut groups: Vec<Vec<(Turn, Waiter)>> = Vec::new();
    for (turn, waiter) in turns {
        let fits = |group: &&mut Vec<(Turn, Waiter)>| {
            let first = group.first();
            first.is_some_and(|(_, first)| same(&first.call.inputs, &waiter.call.inputs))
        };
        match groups.iter_mut().find(fits) {
            Some(group) => group.push((turn, waiter)),
            None => groups.push(vec![(turn, waiter)]),
        }
    }
    groups
}

fn same(one: &[Tensor], other: &[Tensor]) -> bool {
    let mut pairs = one.iter().zip(other);
    one.len() == other.len() && pairs.all(|(one, other)| one.shape == other.shape)
}

/// One tensor of so many rows; rows that are not given are zeros, or empty texts. `given` is ascending.
pub(super) fn join<'a>(rows: usize, given: impl Iterator<Item = (usize, &'a Tensor)>) -> Tensor {
    let mut given = given.peekable();
    let Some((_, first)) = given.peek().copied() else {
        return crate::engine::absent();
    };
    if rows == 1 {
        return first.clone();
    }
    let mut shape = first.shape.clone();
    let elements = element_count(shape.get(1..).unwrap_or_default()).unwrap_or(0);
    // An empty text is its length alone.
    let filler = elements.saturating_mul(first.dtype.size().unwrap_or(4));
    let mut data = Vec::with_capacity(filler.saturating_mul(rows));
    let mut filled = 0;
    for (row, tensor) in given {
        data.resize(data.len() + (row - filled) * filler, 0);
        data.extend_from_slice(&tensor.data);
        filled = row + 1;
    }
    data.resize(data.len() + (rows - filled) * filler, 0);
    if let Some(size) = shape.first_mut() {
        *size = rows;
    }
    Tensor {
        name: first.name.clone(),
        dtype: first.dtype,
        shape,
        data: data.into(),
    }
}

/// One row of a tensor; none when it has not so many rows.
pub(super) fn row(tensor: &Tensor, row: usize, rows: usize) -> Option<Tensor> {
    if tensor.shape.first() != Some(&rows) {
        return None;
    }
    if rows == 1 {
        return Some(tensor.clone());
    }
    let mut shape = tensor.shape.clone();
    let elements = element_count(shape.get(1..)?)?;
    let data = match tensor.dtype.size() {
        Some(size) => {
            let bytes = elements.checked_mul(size)?;
            let from = bytes.checked_mul(row)?;
            let to = from.checked_add(bytes)?;
            (to <= tensor.data.len()).then(|| tensor.data.slice(from..to))?
        }
        None => texts(tensor, elements.checked_mul(row)?, elements)?,
    };
    *shape.first_mut()? = 1;
    Some(Tensor {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        shape,
        data,
    })
}

fn texts(tensor: &Tensor, skipped: usize, taken: usize) -> Option<Bytes> {
    debug_assert_eq!(tensor.dtype, DataType::Bytes);
    let mut bounds = [0_usize; 2];
    for (index, element) in BytesElements::new(&tensor.data)
        .enumerate()
        .take(skipped + taken)
    {
        let bytes = element.ok()?.len().checked_add(4)?;
        if index < skipped {
            bounds[0] += bytes;
        }
        bounds[1] += bytes;
    }
    (bounds[1] <= tensor.data.len()).then(|| tensor.data.slice(bounds[0]..bounds[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ints(shape: &[usize], values: &[i32]) -> Tensor {
        Tensor::from_elements("x", DataType::Int32, shape.to_vec(), values.to_vec()).expect("fits")
    }

    #[test]
    fn rows_come_apart_as_they_were_put_together() {
        let (one, two) = (ints(&[1, 2], &[1, 2]), ints(&[1, 2], &[3, 4]));
        let joined = join(4, [(1, &one), (2, &two)].into_iter());
        assert_eq!(joined, ints(&[4, 2], &[0, 0, 1, 2, 3, 4, 0, 0]));
        assert_eq!(row(&joined, 2, 4), Some(two));
        assert_eq!(row(&joined, 0, 3), None);
        let text = |text: &[u8]| Tensor {
            data: protocol::tensor::encode_bytes_elements([text])
                .expect("short")
                .into(),
            dtype: DataType::Bytes,
            shape: vec![1, 1],
            name: "x".to_owned(),
        };
        let joined = join(3, [(0, &text(b"abc")), (2, &text(b"z"))].into_iter());
        assert_eq!(row(&joined, 0, 3), Some(text(b"abc")));
        assert_eq!(row(&joined, 1, 3), Some(text(b"")));
        assert_eq!(row(&joined, 2, 3), Some(text(b"z")));
    }
}
