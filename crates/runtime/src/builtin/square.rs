use half::{bf16, f16};
use protocol::{DataType, Tensor};

use super::{failed, numeric};
use crate::engine::EngineError;

pub(super) fn supports(dtype: DataType) -> bool {
    numeric(dtype)
}

/// Each element times itself; integers wrap, as they do in ONNX.
pub(super) fn run(name: &str, input: &Tensor) -> Result<Tensor, EngineError> {
    match input.dtype {
        DataType::Uint8 => map(name, input, |x: u8| x.wrapping_mul(x)),
        DataType::Uint16 => map(name, input, |x: u16| x.wrapping_mul(x)),
        DataType::Uint32 => map(name, input, |x: u32| x.wrapping_mul(x)),
        DataType::Uint64 => map(name, input, |x: u64| x.wrapping_mul(x)),
        DataType::Int8 => map(name, input, |x: i8| x.wrapping_mul(x)),
        DataType::Int16 => map(name, input, |x: i16| x.wrapping_mul(x)),
        DataType::Int32 => map(name, input, |x: i32| x.wrapping_mul(x)),
        DataType::Int64 => map(name, input, |x: i64| x.wrapping_mul(x)),
        DataType::Fp32 => map(name, input, |x: f32| x * x),
        DataType::Fp64 => map(name, input, |x: f64| x * x),
        DataType::Fp16 => map(name, input, |x: u16| {
            let x = f16::from_bits(x);
            (x * x).to_bits()
        }),
        DataType::Bf16 => map(name, input, |x: u16| {
            let x = bf16::from_bits(x);
            (x * x).to_bits()
        }),
        DataType::Bool | DataType::Bytes => Err(failed(format!("{} is no number", input.dtype))),
    }
}

fn map<T: bytemuck::Pod + Send>(
    name: &str,
    input: &Tensor,
    square: impl Fn(T) -> T,
) -> Result<Tensor, EngineError> {
    let elements = input
        .elements::<T>()
        .ok_or_else(|| failed(format!("input `{}` is not aligned", input.name)))?;
    let squares = elements.iter().copied().map(square).collect();
    Tensor::from_elements(name, input.dtype, input.shape.clone(), squares).map_err(failed)
}
