//! Tensors to ONNX Runtime's values without a copy, and its outputs kept where they are until the last reader is done.

use std::fmt::Debug;
use std::sync::Arc;

use bytemuck::Pod;
use bytes::Bytes;
use half::{bf16, f16};
use ort::session::{SessionInputValue, SharedSessionInner};
use ort::value::{
    DynTensor, DynTensorValueType, DynValue, PrimitiveTensorElementType, Tensor as OrtTensor,
    TensorElementType, TensorRef, ValueType,
};
use protocol::tensor::{BytesElements, encode_bytes_elements};
use protocol::{DataType, Tensor};
use runtime::engine::EngineError;

use super::failed;

/// Binds a tensor's bytes as they lie; only strings are copied, for they become C++ strings.
pub(super) fn bind(tensor: &Tensor) -> Result<SessionInputValue<'_>, EngineError> {
    match tensor.dtype {
        DataType::Bool => view(tensor, crate::bools(tensor)?),
        DataType::Uint8 => pod::<u8>(tensor),
        DataType::Uint16 => pod::<u16>(tensor),
        DataType::Uint32 => pod::<u32>(tensor),
        DataType::Uint64 => pod::<u64>(tensor),
        DataType::Int8 => pod::<i8>(tensor),
        DataType::Int16 => pod::<i16>(tensor),
        DataType::Int32 => pod::<i32>(tensor),
        DataType::Int64 => pod::<i64>(tensor),
        DataType::Fp16 => pod::<f16>(tensor),
        DataType::Fp32 => pod::<f32>(tensor),
        DataType::Fp64 => pod::<f64>(tensor),
        DataType::Bf16 => pod::<bf16>(tensor),
        DataType::Bytes => strings(tensor),
    }
}

fn pod<T: Pod + PrimitiveTensorElementType + Debug>(
    tensor: &Tensor,
) -> Result<SessionInputValue<'_>, EngineError> {
    view(tensor, crate::elements::<T>(tensor)?)
}

fn view<'a, T: PrimitiveTensorElementType + Debug + Clone + 'static>(
    tensor: &'a Tensor,
    elements: &'a [T],
) -> Result<SessionInputValue<'a>, EngineError> {
    TensorRef::from_array_view((tensor.shape.as_slice(), elements))
        .map(SessionInputValue::from)
        .map_err(|error| wrong(tensor, error.message()))
}

fn strings(tensor: &Tensor) -> Result<SessionInputValue<'_>, EngineError> {
    let elements = BytesElements::new(&tensor.data)
        .map(|element| {
            let bytes = element.map_err(|()| wrong(tensor, "an element runs past the end"))?;
            let text = str::from_utf8(bytes)
                .map_err(|_| wrong(tensor, "ONNX strings are UTF-8, an element is not"))?;
            if text.contains('\0') {
                return Err(wrong(tensor, "an element contains a NUL character"));
            }
            Ok(text.to_owned())
        })
        .collect::<Result<Vec<String>, _>>()?;
    OrtTensor::from_string_array((tensor.shape.as_slice(), elements.as_slice()))
        .map(SessionInputValue::from)
        .map_err(|error| wrong(tensor, error.message()))
}

fn wrong(tensor: &Tensor, reason: &str) -> EngineError {
    EngineError::Input(format!("input `{}`: {reason}", tensor.name))
}

/// An output as a tensor. `inputs` are what the call borrowed: a graph may hand one of them through.
pub(super) fn unbind(
    name: &str,
    value: DynValue,
    session: &Arc<SharedSessionInner>,
    inputs: &[Tensor],
) -> Result<Tensor, EngineError> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(failed(format!("output `{name}` is {}", value.dtype())));
    };
    let dtype =
        data_type(*ty).ok_or_else(|| failed(format!("output `{name}` is a tensor of {ty}")))?;
    let shape = shape
        .iter()
        .map(|dim| usize::try_from(*dim))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| failed(format!("output `{name}` has a negative dimension")))?;
    let data = match dtype.size() {
        None => text(name, &value)?,
        Some(size) => {
            let count = protocol::tensor::element_count(&shape);
            let length = count
                .and_then(|count| count.checked_mul(size))
                .ok_or_else(|| failed(format!("output `{name}` is too large")))?;
            let value = value
                .downcast::<DynTensorValueType>()
                .map_err(|error| failed(format!("output `{name}`: {}", error.message())))?;
            if !value.memory_info().is_cpu_accessible() {
                return Err(failed(format!("output `{name}` is in device memory")));
            }
            kept(value, length, session, inputs)
        }
    };
    Tensor::new(name, dtype, shape, data).map_err(|error| failed(error.to_string()))
}

fn text(name: &str, value: &DynValue) -> Result<Bytes, EngineError> {
    let (_, strings) = value
        .try_extract_strings()
        .map_err(|error| failed(format!("output `{name}`: {}", error.message())))?;
    encode_bytes_elements(strings)
        .map(Bytes::from)
        .ok_or_else(|| failed(format!("output `{name}` has a string of more than 4 GiB")))
}

fn kept(
    value: DynTensor,
    length: usize,
    session: &Arc<SharedSessionInner>,
    inputs: &[Tensor],
) -> Bytes {
    if length == 0 {
        return Bytes::new();
    }
    let output = Output {
        value,
        length,
        _session: Arc::clone(session),
    };
    let start = output.as_ref().as_ptr();
    if inputs
        .iter()
        .any(|tensor| tensor.data.as_ptr_range().contains(&start))
    {
        // The input's bytes are borrowed for this call only.
        return Bytes::copy_from_slice(output.as_ref());
    }
    Bytes::from_owner(output)
}

/// An output that ONNX Runtime allocated, read where it is.
struct Output {
    value: DynTensor,
    length: usize,
    /// An output may be one of the session's own initializers.
    _session: Arc<SharedSessionInner>,
}

impl AsRef<[u8]> for Output {
    #[expect(
        unsafe_code,
        reason = "ort reads BOOL as Rust's bool, which is undefined for bytes a model may produce"
    )]
    fn as_ref(&self) -> &[u8] {
        let start = self.value.data_ptr().cast::<u8>();
        // SAFETY: `unbind` saw that the value is in memory that the CPU reads; a tensor is one block of
        // `length` > 0 bytes, its element count times its type's size; bytes have no invalid value; the value owns the
        // block or shares it with the session, both of which `self` keeps; and nobody writes to a finished output.
        unsafe { std::slice::from_raw_parts(start, self.length) }
    }
}

/// The protocol's type of an element type, if it has one.
pub(super) fn data_type(element: TensorElementType) -> Option<DataType> {
    Some(match element {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Uint8 => DataType::Uint8,
        TensorElementType::Uint16 => DataType::Uint16,
        TensorElementType::Uint32 => DataType::Uint32,
        TensorElementType::Uint64 => DataType::Uint64,
        TensorElementType::Int8 => DataType::Int8,
        TensorElementType::Int16 => DataType::Int16,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Float16 => DataType::Fp16,
        TensorElementType::Float32 => DataType::Fp32,
        TensorElementType::Float64 => DataType::Fp64,
        TensorElementType::Bfloat16 => DataType::Bf16,
        TensorElementType::String => DataType::Bytes,
        _ => return None,
    })
}
