//! Inputs to try a model with when nobody has sent any yet: shapes from the sidecar, else a ladder of guesses.

use half::{bf16, f16};
use protocol::sidecar::Warmup;
use protocol::tensor::{element_count, encode_bytes_elements};
use protocol::{DataType, Tensor, TensorSpec};

/// What open dimensions other than the first may be, in the order tried. 32 suits text and every image model whose
/// strides multiply to 32; 64 and above suit image models that pool further; 1 is the last resort of odd graphs.
const SIZES: [usize; 8] = [32, 64, 128, 224, 320, 640, 16, 1];

/// A guess larger than this is not worth its memory.
const ELEMENTS_MAX: usize = 1 << 24;

/// Every set of inputs worth trying, made as they are asked for. The same specs give the same data.
pub(crate) fn guesses<'a>(
    specs: &'a [TensorSpec],
    warmup: &'a Warmup,
) -> impl Iterator<Item = Vec<Tensor>> + 'a {
    let open = specs
        .iter()
        .filter(|spec| !warmup.shapes.contains_key(&spec.name))
        .any(|spec| spec.shape.iter().skip(1).any(|dim| *dim < 0));
    let sizes = if open { &SIZES[..] } else { &SIZES[..1] };
    sizes.iter().filter_map(|size| {
        specs
            .iter()
            .map(|spec| guess(spec, warmup, *size))
            .collect()
    })
}

/// One input. The first dimension is the batch wherever it is open.
fn guess(spec: &TensorSpec, warmup: &Warmup, size: usize) -> Option<Tensor> {
    let open = |(axis, dim): (usize, &i64)| match usize::try_from(*dim) {
        Ok(fixed) => fixed,
        Err(_) if axis == 0 => 1,
        Err(_) => size,
    };
    let shape = match warmup.shapes.get(&spec.name) {
        Some(shape) => shape.clone(),
        None => spec.shape.iter().enumerate().map(open).collect(),
    };
    let count = element_count(&shape).filter(|count| *count <= ELEMENTS_MAX)?;
    let data = elements(spec, count)?;
    Tensor::new(&spec.name, spec.dtype, shape, data.into()).ok()
}

/// Floats in [0, 1), integers 0 or 1: valid as ids of any vocabulary and as classes. Masks are all ones, or a model
/// would see an empty text; segment ids all zeros, because some models know only one segment.
fn elements(spec: &TensorSpec, count: usize) -> Option<Vec<u8>> {
    let mut draw = Draw::seeded(&spec.name);
    let (mask, segment) = (spec.name.contains("mask"), spec.name.contains("type_id"));
    let mut bit = || match (mask, segment) {
        (true, _) => 1_u8,
        (_, true) => 0,
        _ => u8::from(draw.unit() < 0.5),
    };
    fn all<const N: usize>(count: usize, mut one: impl FnMut() -> [u8; N]) -> Vec<u8> {
        (0..count).flat_map(|_| one()).collect()
    }
    Some(match spec.dtype {
        DataType::Bool | DataType::Uint8 | DataType::Int8 => all(count, || [bit()]),
        DataType::Uint16 | DataType::Int16 => all(count, || u16::from(bit()).to_le_bytes()),
        DataType::Uint32 | DataType::Int32 => all(count, || u32::from(bit()).to_le_bytes()),
        DataType::Uint64 | DataType::Int64 => all(count, || u64::from(bit()).to_le_bytes()),
        DataType::Fp16 => all(count, || f16::from_f32(draw.unit()).to_le_bytes()),
        DataType::Bf16 => all(count, || bf16::from_f32(draw.unit()).to_le_bytes()),
        DataType::Fp32 => all(count, || draw.unit().to_le_bytes()),
        DataType::Fp64 => all(count, || f64::from(draw.unit()).to_le_bytes()),
        DataType::Bytes => encode_bytes_elements((0..count).map(|_| b"a"))?,
    })
}

/// xorshift64: warm-up data needs to be repeatable, not random.
struct Draw(u64);

impl Draw {
    fn seeded(name: &str) -> Self {
        // FNV-1a: two inputs of one shape must not hold the same numbers.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash | 1)
    }

    /// In [0, 1), with the 24 bits that an f32 holds exactly.
    fn unit(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1_u32 << 24) as f32
    }
}

#[cfg(test)]
mod tests;
