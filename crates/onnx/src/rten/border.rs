//! Tensors to rten's values and back: as they are where the types are the same, converted where the values stay exact.

use bytemuck::Pod;
use half::f16;
use half::slice::HalfFloatSliceExt;
use half::vec::HalfFloatVecExt;
use protocol::{DataType, Tensor, TensorSpec};
use rten::{Value, ValueOrView, ValueView};
use rten_tensor::{Layout, TensorView};
use runtime::engine::EngineError;

use super::failed;

/// Borrows FP32, INT32, INT8 and UINT8; widens FP16; narrows INT64 and BOOL to the i32 that rten has for them.
pub(super) fn into_engine(tensor: &Tensor) -> Result<ValueOrView<'_>, EngineError> {
    match tensor.dtype {
        DataType::Fp32 => borrowed::<f32>(tensor),
        DataType::Int32 => borrowed::<i32>(tensor),
        DataType::Int8 => borrowed::<i8>(tensor),
        DataType::Uint8 => borrowed::<u8>(tensor),
        DataType::Int64 => {
            let narrowed = crate::elements::<i64>(tensor)?
                .iter()
                .map(|value| i32::try_from(*value).map_err(|_| out_of_range(tensor, *value)))
                .collect::<Result<_, _>>()?;
            owned(tensor, narrowed)
        }
        DataType::Bool => {
            let elements = crate::bools(tensor)?;
            owned(tensor, elements.iter().copied().map(i32::from).collect())
        }
        DataType::Fp16 => owned(tensor, crate::elements::<f16>(tensor)?.to_f32_vec()),
        DataType::Uint16
        | DataType::Uint32
        | DataType::Uint64
        | DataType::Int16
        | DataType::Fp64
        | DataType::Bf16
        | DataType::Bytes => Err(failed(format!(
            "input `{}` is {}, which was refused at load",
            tensor.name, tensor.dtype
        ))),
    }
}

fn borrowed<'a, T: Pod>(tensor: &'a Tensor) -> Result<ValueOrView<'a>, EngineError>
where
    ValueView<'a>: From<TensorView<'a, T>>,
{
    ValueView::from_shape(&tensor.shape, crate::elements::<T>(tensor)?)
        .map(ValueOrView::from)
        .map_err(|error| EngineError::Input(format!("input `{}`: {error}", tensor.name)))
}

fn owned<T>(tensor: &Tensor, elements: Vec<T>) -> Result<ValueOrView<'_>, EngineError>
where
    Value: From<rten_tensor::Tensor<T>>,
{
    Value::from_shape(&tensor.shape, elements)
        .map(ValueOrView::from)
        .map_err(|error| EngineError::Input(format!("input `{}`: {error}", tensor.name)))
}

fn out_of_range(tensor: &Tensor, value: i64) -> EngineError {
    EngineError::Input(format!(
        "input `{}`: {value} does not fit the 32 bits in which engine `rten` computes INT64",
        tensor.name
    ))
}

/// The declared type again; the elements themselves are passed on wherever the types are the same.
pub(super) fn out_of_engine(value: Value, spec: &TensorSpec) -> Result<Tensor, EngineError> {
    let shape = value.shape().to_vec();
    match (spec.dtype, value) {
        (DataType::Fp32, Value::FloatTensor(tensor)) => tensor_of(spec, shape, tensor.into_data()),
        (DataType::Int32, Value::Int32Tensor(tensor)) => tensor_of(spec, shape, tensor.into_data()),
        (DataType::Int8, Value::Int8Tensor(tensor)) => tensor_of(spec, shape, tensor.into_data()),
        (DataType::Uint8, Value::UInt8Tensor(tensor)) => tensor_of(spec, shape, tensor.into_data()),
        (DataType::Int64, Value::Int32Tensor(tensor)) => {
            let widened: Vec<i64> = tensor.into_data().into_iter().map(i64::from).collect();
            tensor_of(spec, shape, widened)
        }
        (DataType::Bool, Value::Int32Tensor(tensor)) => {
            let bytes: Vec<u8> = tensor
                .into_data()
                .into_iter()
                .map(|v| u8::from(v != 0))
                .collect();
            tensor_of(spec, shape, bytes)
        }
        (DataType::Fp16, Value::FloatTensor(tensor)) => {
            tensor_of(spec, shape, Vec::<f16>::from_f32_slice(&tensor.into_data()))
        }
        (dtype, value) => Err(failed(format!(
            "output `{}` came back as {}, declared {dtype}",
            spec.name,
            value.dtype()
        ))),
    }
}

fn tensor_of<T: Pod + Send>(
    spec: &TensorSpec,
    shape: Vec<usize>,
    elements: Vec<T>,
) -> Result<Tensor, EngineError> {
    Tensor::from_elements(&spec.name, spec.dtype, shape, elements)
        .map_err(|error| failed(error.to_string()))
}
