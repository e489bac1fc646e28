//! Do two engines give the same answer? Numbers within a tolerance, or the same direction.

use half::{bf16, f16};
use protocol::sidecar::Agree;
use protocol::{DataType, Tensor};

/// Fewer numbers have no direction worth the name: the cosine of two positive scalars is 1 whatever they are.
const DIRECTION_ELEMENTS_MIN: usize = 16;

/// How far an engine's outputs are from the reference's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Agreement {
    pub(crate) agrees: bool,
    pub(crate) max_difference: f64,
}

/// Compares output by output; each must pass on its own.
pub(crate) fn compare(reference: &[Tensor], other: &[Tensor], tolerance: &Agree) -> Agreement {
    let mut total = Agreement {
        agrees: reference.len() == other.len(),
        max_difference: 0.0,
    };
    for (reference, other) in reference.iter().zip(other) {
        let one = tensors(reference, other, tolerance);
        total.agrees &= one.agrees;
        total.max_difference = total.max_difference.max(one.max_difference);
    }
    total
}

fn tensors(reference: &Tensor, other: &Tensor, tolerance: &Agree) -> Agreement {
    let same_form = reference.dtype == other.dtype && reference.shape == other.shape;
    if !same_form || reference.dtype == DataType::Bytes {
        let agrees = same_form && reference.data == other.data;
        return Agreement {
            agrees,
            max_difference: if agrees { 0.0 } else { f64::INFINITY },
        };
    }
    let float = is_float(reference.dtype);
    // Integers are labels and ids as often as amounts; no share of 900 makes 905 the same class.
    let rtol = if float { tolerance.rtol } else { 0.0 };
    let mut sums = Sums::default();
    let mut close = true;
    let mut max_difference = 0.0_f64;
    for (left, right) in numbers(reference).into_iter().zip(numbers(other)) {
        if left == right || (left.is_nan() && right.is_nan()) {
            sums.add(left, right);
            continue;
        }
        let difference = (left - right).abs();
        // A NaN on one side only must not compare as small.
        let difference = if difference.is_nan() {
            f64::INFINITY
        } else {
            difference
        };
        max_difference = max_difference.max(difference);
        close &= difference <= tolerance.atol + rtol * left.abs();
        sums.add(left, right);
    }
    let directed = float && sums.count >= DIRECTION_ELEMENTS_MIN && max_difference.is_finite();
    let alike = directed && sums.cosine() >= tolerance.min_cosine;
    Agreement {
        agrees: close || alike,
        max_difference,
    }
}

fn is_float(dtype: DataType) -> bool {
    matches!(
        dtype,
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64
    )
}

#[derive(Debug, Default)]
struct Sums {
    count: usize,
    product: f64,
    left: f64,
    right: f64,
}

impl Sums {
    fn add(&mut self, left: f64, right: f64) {
        if left.is_finite() && right.is_finite() {
            self.count += 1;
            self.product += left * right;
            self.left += left * left;
            self.right += right * right;
        }
    }

    /// 0 when one side is all zeros and the other is not: no direction is shared then.
    fn cosine(&self) -> f64 {
        let lengths = (self.left * self.right).sqrt();
        if lengths > 0.0 {
            self.product / lengths
        } else {
            0.0
        }
    }
}

/// The elements as numbers; none for BYTES. Works on any alignment.
pub(crate) fn numbers(tensor: &Tensor) -> Vec<f64> {
    fn read<const N: usize>(data: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        data.as_chunks::<N>()
            .0
            .iter()
            .copied()
            .map(number)
            .collect()
    }
    let data = &tensor.data;
    match tensor.dtype {
        DataType::Bool => read(data, |[byte]| f64::from(u8::from(byte != 0))),
        DataType::Uint8 => read(data, |[byte]| f64::from(byte)),
        DataType::Int8 => read(data, |bytes| f64::from(i8::from_le_bytes(bytes))),
        DataType::Uint16 => read(data, |bytes| f64::from(u16::from_le_bytes(bytes))),
        DataType::Int16 => read(data, |bytes| f64::from(i16::from_le_bytes(bytes))),
        DataType::Uint32 => read(data, |bytes| f64::from(u32::from_le_bytes(bytes))),
        DataType::Int32 => read(data, |bytes| f64::from(i32::from_le_bytes(bytes))),
        DataType::Fp16 => read(data, |bytes| f16::from_le_bytes(bytes).to_f64()),
        DataType::Bf16 => read(data, |bytes| bf16::from_le_bytes(bytes).to_f64()),
        DataType::Fp32 => read(data, |bytes| f64::from(f32::from_le_bytes(bytes))),
        DataType::Fp64 => read(data, f64::from_le_bytes),
        // Above 2^53 neighbours fall together, far below any tolerance.
        DataType::Uint64 => read(data, |bytes| u64::from_le_bytes(bytes) as f64),
        DataType::Int64 => read(data, |bytes| i64::from_le_bytes(bytes) as f64),
        DataType::Bytes => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
