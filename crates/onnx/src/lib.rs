//! The ONNX engines: rten (always there) and ONNX Runtime (a library found and loaded at run time, never linked).
//!
//! Reading order: [`graph`] (what a file says goes in and out; both engines take it from there), [`RtenEngine`] with the
//! conversions at its border, [`Search`] and [`OrtEngine`] (find the library, make sessions, bind tensors).
//! OpenVINO will be a third engine beside them (`openvino.rs`: its C library found like ONNX Runtime's).
//!
//! `unsafe` is allowed in this room only, and denied unless a line asks for it: asking a library for its version before
//! it is loaded for good, reading an output where ONNX Runtime left it, and giving memory back after a load.
//! Never here: lanes' threads, batching, warm-up and the choice between engines (runtime does those), the environment
//! (kapok reads it and passes paths in).

pub mod graph;

mod memory;
mod ort;
mod proto;
mod reason;
mod rten;

#[cfg(test)]
mod tests;

pub use self::ort::{OrtEngine, Search};
pub use self::rten::RtenEngine;

use bytemuck::Pod;
use protocol::Tensor;
use runtime::engine::{EngineError, Source};

/// `backend` names that mean an ONNX file, whichever engine runs it.
const BACKENDS: [&str; 2] = ["onnxruntime", "onnx"];

fn is_onnx(source: &Source) -> bool {
    BACKENDS.contains(&source.backend.as_str())
}

fn input_count(expected: usize, found: usize) -> EngineError {
    EngineError::Input(format!(
        "the model has {expected} inputs, {found} were given"
    ))
}

/// A tensor's elements in place. Its bytes were counted when it was made; that they are aligned is the caller's part.
fn elements<T: Pod>(tensor: &Tensor) -> Result<&[T], EngineError> {
    if tensor.data.is_empty() {
        // An empty buffer may lie anywhere.
        return Ok(&[]);
    }
    tensor.elements().ok_or_else(|| {
        EngineError::Input(format!(
            "input `{}`: its data is not aligned for {}",
            tensor.name, tensor.dtype
        ))
    })
}

fn bools(tensor: &Tensor) -> Result<&[bool], EngineError> {
    bytemuck::checked::try_cast_slice(&tensor.data).map_err(|_| {
        EngineError::Input(format!(
            "input `{}`: the bytes of BOOL must be 0 or 1",
            tensor.name
        ))
    })
}
