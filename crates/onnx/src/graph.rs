//! What an ONNX file says about its inputs and outputs, read without loading its weights.
//!
//! Engines widen, narrow or drop this (rten runs INT64 as 32 bits; ONNX Runtime infers missing shapes), so the file itself
//! is the authority on what a client sees.

mod walk;

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Cursor};
use std::path::Path;

use prost::Message;
use protocol::{DataType, TensorSpec};

use crate::proto::{self, element};
use walk::Walker;

/// A graph's inputs that a caller must give, and its outputs, each in the file's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
}

/// One input or output as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub kind: PortKind,
    /// Dimensions that the request decides are -1; none when the file does not even give the rank.
    pub shape: Option<Vec<i64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortKind {
    Tensor(DataType),
    /// A tensor of an element type that the Open Inference Protocol lacks, by its ONNX number.
    ForeignElement(i32),
    Sequence,
    Map,
    SparseTensor,
    Optional,
    /// The file gives no type; an engine may infer it.
    Undeclared,
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor(dtype) => write!(f, "a tensor of {dtype}"),
            Self::ForeignElement(number) => write!(
                f,
                "a tensor of ONNX element type {number}, which the inference protocol does not have"
            ),
            Self::Sequence => f.write_str("a sequence"),
            Self::Map => f.write_str("a map"),
            Self::SparseTensor => f.write_str("a sparse tensor"),
            Self::Optional => f.write_str("an optional value"),
            Self::Undeclared => f.write_str("of no declared type"),
        }
    }
}

/// Why a file could not be described.
#[derive(Debug)]
pub enum Error {
    Read(io::Error),
    /// The file's bytes are not an ONNX model.
    Broken(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "cannot read the model file: {error}"),
            Self::Broken(reason) => write!(f, "not an ONNX model: {reason}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// Reads the declared inputs and outputs of an ONNX file; weights are skipped, not read.
pub fn describe(path: &Path) -> Result<Description, Error> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Walker::new(file, length).model()?.description()
}

/// Feeds arbitrary bytes to the reader; it must answer, never panic.
pub fn fuzz(data: &[u8]) {
    let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
    if let Ok(found) = Walker::new(Cursor::new(data), length).model() {
        drop(found.description());
    }
}

/// The parts of a file that matter, still encoded.
#[derive(Debug, Default)]
struct Found {
    graphs: usize,
    inputs: Vec<Vec<u8>>,
    outputs: Vec<Vec<u8>>,
    initializers: HashSet<String>,
}

impl Found {
    fn description(self) -> Result<Description, Error> {
        if self.graphs == 0 {
            return Err(Error::Broken("it has no graph".to_owned()));
        }
        let mut inputs = ports(&self.inputs)?;
        // Before version 4 of the format every initializer had to be listed as an input, too; it has a value already.
        inputs.retain(|port| !self.initializers.contains(&port.name));
        Ok(Description {
            inputs,
            outputs: ports(&self.outputs)?,
        })
    }
}

fn ports(encoded: &[Vec<u8>]) -> Result<Vec<Port>, Error> {
    encoded
        .iter()
        .map(|bytes| {
            proto::ValueInfo::decode(bytes.as_slice())
                .map(Port::from)
                .map_err(|error| Error::Broken(format!("an input or output: {error}")))
        })
        .collect()
}

impl From<proto::ValueInfo> for Port {
    fn from(info: proto::ValueInfo) -> Self {
        let kind = info.kind.unwrap_or_default();
        let tensor = kind.tensor.as_ref();
        let shape = tensor.and_then(|tensor| tensor.shape.as_ref());
        Self {
            name: info.name,
            kind: port_kind(&kind),
            shape: shape.map(|shape| shape.dims.iter().map(dimension).collect()),
        }
    }
}

fn port_kind(kind: &proto::Type) -> PortKind {
    if let Some(tensor) = &kind.tensor {
        data_type(tensor.element).map_or(
            if tensor.element == 0 {
                PortKind::Undeclared
            } else {
                PortKind::ForeignElement(tensor.element)
            },
            PortKind::Tensor,
        )
    } else if kind.sequence.is_some() {
        PortKind::Sequence
    } else if kind.map.is_some() {
        PortKind::Map
    } else if kind.sparse_tensor.is_some() {
        PortKind::SparseTensor
    } else if kind.optional.is_some() {
        PortKind::Optional
    } else {
        PortKind::Undeclared
    }
}

/// Some exporters write -1 where the format wants a name or nothing.
fn dimension(dimension: &proto::Dimension) -> i64 {
    dimension.value.map_or(-1, |size| size.max(-1))
}

fn data_type(number: i32) -> Option<DataType> {
    Some(match number {
        element::FLOAT => DataType::Fp32,
        element::UINT8 => DataType::Uint8,
        element::INT8 => DataType::Int8,
        element::UINT16 => DataType::Uint16,
        element::INT16 => DataType::Int16,
        element::INT32 => DataType::Int32,
        element::INT64 => DataType::Int64,
        element::STRING => DataType::Bytes,
        element::BOOL => DataType::Bool,
        element::FLOAT16 => DataType::Fp16,
        element::DOUBLE => DataType::Fp64,
        element::UINT32 => DataType::Uint32,
        element::UINT64 => DataType::Uint64,
        element::BFLOAT16 => DataType::Bf16,
        _ => return None,
    })
}

impl Description {
    /// Refuses, by name, what no engine could hand to a client; a type that is not declared may still be inferred.
    pub fn check_kinds(&self) -> Result<(), String> {
        let inputs = self.inputs.iter().map(|port| (port, "input"));
        let outputs = self.outputs.iter().map(|port| (port, "output"));
        inputs
            .chain(outputs)
            .filter(|(port, _)| port.kind != PortKind::Undeclared)
            .try_for_each(|(port, role)| port.dtype(role).map(|_| ()))
    }

    /// Inputs and outputs as a client sees them, or which one cannot be shown and why.
    ///
    /// The protocol cannot say "any rank". An input without one takes the dimensions `configured` for it; an output
    /// without one is shown as `[-1]`, which nothing checks against.
    pub fn specs(
        &self,
        configured: &[TensorSpec],
    ) -> Result<(Vec<TensorSpec>, Vec<TensorSpec>), String> {
        let inputs = self.inputs.iter().map(|port| {
            let dtype = port.dtype("input")?;
            let named = || configured.iter().find(|spec| spec.name == port.name);
            let shape = port
                .shape
                .clone()
                .or_else(|| Some(named()?.shape.clone()))
                .ok_or_else(|| {
                    format!(
                        "the rank of input `{}` is not declared; give its `dims` in config.pbtxt",
                        port.name
                    )
                })?;
            Ok(TensorSpec::new(&port.name, dtype, shape))
        });
        let outputs = self.outputs.iter().map(|port| {
            let shape = port.shape.clone().unwrap_or_else(|| vec![-1]);
            Ok(TensorSpec::new(&port.name, port.dtype("output")?, shape))
        });
        Ok((
            inputs.collect::<Result<_, String>>()?,
            outputs.collect::<Result<_, String>>()?,
        ))
    }
}

impl Port {
    /// Whether every dimension is fixed by the model.
    pub fn is_static(&self) -> bool {
        self.shape
            .as_ref()
            .is_some_and(|shape| shape.iter().all(|dim| *dim >= 0))
    }

    fn dtype(&self, role: &str) -> Result<DataType, String> {
        match self.kind {
            PortKind::Tensor(dtype) => Ok(dtype),
            other @ (PortKind::ForeignElement(_)
            | PortKind::Sequence
            | PortKind::Map
            | PortKind::SparseTensor
            | PortKind::Optional
            | PortKind::Undeclared) => Err(format!("{role} `{}` is {other}", self.name)),
        }
    }
}
