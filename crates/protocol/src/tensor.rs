//! Tensors: a name, a type, a shape and row-major little-endian bytes.
//!
//! Bytes are [`Bytes`] whatever their origin: a pooled 64-byte aligned buffer filled from a socket, an engine's own
//! output kept alive, or a slice of a message. So a tensor is passed on, not copied; an engine that needs alignment asks
//! [`Tensor::aligned`], which copies only when it must.

mod pool;
mod text;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::shown;

pub use pool::{ALIGNMENT, BufferPool, PooledBuffer};
use text::cut_element;
pub use text::{BytesElements, encode_bytes_elements};

/// Element types of the Open Inference Protocol, under their wire names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DataType {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Fp32,
    Fp64,
    Bf16,
    Bytes,
}

impl DataType {
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Fp32,
        Self::Fp64,
        Self::Bf16,
        Self::Bytes,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bf16 => "BF16",
            Self::Bytes => "BYTES",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Bytes of one element; none for BYTES, whose elements differ in length.
    pub fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

impl std::fmt::Display for DataType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Elements in a shape (1 for a scalar's empty shape); none when the product overflows.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1_usize, |product, dim| product.checked_mul(*dim))
}

/// One named tensor. For BYTES, `data` holds the wire form: each element a little-endian u32 length, then that many bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    pub name: String,
    pub dtype: DataType,
    pub shape: Vec<usize>,
    pub data: Bytes,
}

impl Tensor {
    /// Checks that the bytes are exactly what type and shape need.
    pub fn new(
        name: impl Into<String>,
        dtype: DataType,
        shape: Vec<usize>,
        data: Bytes,
    ) -> Result<Self, TensorError> {
        let tensor = Self {
            name: name.into(),
            dtype,
            shape,
            data,
        };
        tensor.check()?;
        Ok(tensor)
    }

    fn check(&self) -> Result<(), TensorError> {
        let name = || self.name.clone();
        let count = element_count(&self.shape).ok_or_else(|| TensorError::TooLarge {
            name: name(),
            shape: self.shape.clone(),
        })?;
        let Some(size) = self.dtype.size() else {
            let found = BytesElements::new(&self.data)
                .try_fold(0_usize, |found, element| element.map(|_| found + 1))
                .map_err(|()| {
                    let (length, left) = cut_element(&self.data);
                    TensorError::BrokenElement {
                        name: name(),
                        length,
                        left,
                    }
                })?;
            return if found == count {
                Ok(())
            } else {
                Err(TensorError::ElementCount {
                    name: name(),
                    expected: count,
                    found,
                })
            };
        };
        let expected = count
            .checked_mul(size)
            .ok_or_else(|| TensorError::TooLarge {
                name: name(),
                shape: self.shape.clone(),
            })?;
        if self.data.len() == expected {
            Ok(())
        } else {
            Err(TensorError::ByteCount {
                name: name(),
                expected,
                found: self.data.len(),
            })
        }
    }

    pub fn element_count(&self) -> usize {
        // Checked when the tensor was made.
        element_count(&self.shape).unwrap_or(usize::MAX)
    }

    /// The data as typed elements; none when the bytes are not aligned for `T` or not a whole number of them.
    pub fn elements<T: bytemuck::Pod>(&self) -> Option<&[T]> {
        bytemuck::try_cast_slice(&self.data).ok()
    }

    /// The same tensor with data aligned for any element type, copied into a pooled buffer only if it is not already.
    #[must_use]
    pub fn aligned(self, pool: &BufferPool) -> Self {
        let needed = self.dtype.size().unwrap_or(1);
        if self.data.as_ptr().align_offset(needed) == 0 {
            return self;
        }
        let mut buffer = pool.take(self.data.len());
        buffer.extend_from_slice(&self.data);
        Self {
            data: buffer.freeze(),
            ..self
        }
    }

    /// Owns typed elements without copying them.
    pub fn from_elements<T: bytemuck::Pod + Send + 'static>(
        name: impl Into<String>,
        dtype: DataType,
        shape: Vec<usize>,
        elements: Vec<T>,
    ) -> Result<Self, TensorError> {
        Self::new(name, dtype, shape, Bytes::from_owner(Elements(elements)))
    }
}

/// Lets [`Bytes`] own a typed vector.
pub(crate) struct Elements<T>(pub(crate) Vec<T>);

impl<T: bytemuck::Pod> AsRef<[u8]> for Elements<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// Why bytes are not the tensor they claim to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    #[error(
        "tensor `{}`: shape {} has more elements than can be addressed",
        shown::name(name),
        shown::shape(shape)
    )]
    TooLarge { name: String, shape: Vec<usize> },
    #[error(
        "tensor `{}`: {found} bytes given, shape and type need {expected}",
        shown::name(name)
    )]
    ByteCount {
        name: String,
        expected: usize,
        found: usize,
    },
    #[error(
        "tensor `{}`: {found} elements given, shape needs {expected}",
        shown::name(name)
    )]
    ElementCount {
        name: String,
        expected: usize,
        found: usize,
    },
    #[error(
        "tensor `{}`: an element's length runs past the end of the data",
        shown::name(name)
    )]
    BrokenElement {
        name: String,
        /// What it says it has; none when that itself is cut.
        length: Option<u32>,
        /// Bytes there for it.
        left: usize,
    },
}

impl TensorError {
    /// The same of a request's input, in Triton's words.
    pub fn of_input(&self, model: &str) -> String {
        let of = |name: &str| {
            let (name, model) = (shown::name(name), shown::name(model));
            format!("input '{name}' for model '{model}'")
        };
        match self {
            Self::TooLarge { .. } => self.to_string(),
            Self::ByteCount {
                name,
                expected,
                found,
            } => format!(
                "input byte size mismatch for {}. Expected {expected}, got {found}",
                of(name)
            ),
            Self::ElementCount {
                name,
                expected,
                found,
            } if found < expected => format!(
                "expected {expected} string elements for inference {}, got {found}",
                of(name)
            ),
            // Triton counts no further than the first too many.
            Self::ElementCount { name, expected, .. } => format!(
                "unexpected number of string elements {} for inference {}, expecting {expected}",
                expected.saturating_add(1),
                of(name)
            ),
            Self::BrokenElement {
                name,
                length: None,
                left,
            } => format!(
                "incomplete string length indicator for inference {}, expecting 4 bytes but only {left} bytes available. Please make sure the string length indicator is in one buffer.",
                of(name)
            ),
            Self::BrokenElement {
                name,
                length: Some(length),
                left,
            } => format!(
                "incomplete string data for inference {}, expecting string of length {length} but only {left} bytes available. Please make sure the string data is in one buffer.",
                of(name)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_input_is_said_in_tritons_words() {
        let said = |dtype, shape: &[usize], bytes: &[u8]| {
            let bytes = Bytes::copy_from_slice(bytes);
            let error = Tensor::new("x", dtype, shape.to_vec(), bytes).expect_err("wrong");
            error.of_input("m")
        };
        let two = [1, 0, 0, 0, b'a', 0, 0, 0, 0];
        for (said, expected) in [
            (
                said(DataType::Int32, &[2], &[0; 12]),
                "input byte size mismatch for input 'x' for model 'm'. Expected 8, got 12",
            ),
            (
                said(DataType::Bytes, &[3], &two),
                "expected 3 string elements for inference input 'x' for model 'm', got 2",
            ),
            (
                said(DataType::Bytes, &[0], &two),
                "unexpected number of string elements 1 for inference input 'x' for model 'm', expecting 0",
            ),
            (
                said(DataType::Bytes, &[2], &two[..7]),
                "incomplete string length indicator for inference input 'x' for model 'm', expecting 4 bytes but only 2 bytes available. Please make sure the string length indicator is in one buffer.",
            ),
            (
                said(DataType::Bytes, &[1], &[9, 0, 0, 0, 1]),
                "incomplete string data for inference input 'x' for model 'm', expecting string of length 9 but only 1 bytes available. Please make sure the string data is in one buffer.",
            ),
        ] {
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn bytes_must_match_type_and_shape() {
        let tensor = |dtype, shape: &[usize], bytes: usize| {
            Tensor::new("x", dtype, shape.to_vec(), Bytes::from(vec![0; bytes])).map(|_| ())
        };
        assert_eq!(tensor(DataType::Fp32, &[2, 3], 24), Ok(()));
        assert_eq!(tensor(DataType::Fp32, &[], 4), Ok(()));
        assert_eq!(tensor(DataType::Fp32, &[0, 3], 0), Ok(()));
        assert_eq!(
            tensor(DataType::Fp32, &[2, 3], 23),
            Err(TensorError::ByteCount {
                name: "x".into(),
                expected: 24,
                found: 23
            })
        );
        assert!(matches!(
            tensor(DataType::Fp64, &[usize::MAX / 4], 8),
            Err(TensorError::TooLarge { .. })
        ));
        assert!(matches!(
            tensor(DataType::Fp64, &[usize::MAX, 2], 8),
            Err(TensorError::TooLarge { .. })
        ));
    }

    #[test]
    fn unaligned_data_is_copied_once_and_aligned_data_never() {
        let pool = BufferPool::default();
        let whole = Bytes::from_owner(pool_filled(&pool, 65));
        let shifted =
            Tensor::new("x", DataType::Fp32, vec![4], whole.slice(1..17)).expect("16 bytes");
        let copied = shifted.aligned(&pool);
        assert!(copied.elements::<f32>().is_some());
        let address = copied.data.as_ptr();
        assert_eq!(copied.aligned(&pool).data.as_ptr(), address);
    }

    fn pool_filled(pool: &BufferPool, bytes: usize) -> PooledBuffer {
        let mut buffer = pool.take(bytes);
        buffer.extend_from_slice(&vec![1; bytes]);
        buffer
    }

    #[test]
    fn every_type_is_found_by_its_name() {
        for dtype in DataType::ALL {
            assert_eq!(DataType::from_name(dtype.name()), Some(dtype));
            assert_eq!(
                serde_json::to_string(&dtype).expect("serialises"),
                format!("\"{dtype}\"")
            );
        }
        assert_eq!(DataType::from_name("FLOAT32"), None);
    }
}
