//! The ONNX engines: rten (always there), ONNX Runtime and OpenVINO (libraries found and loaded at run time, never linked).
//!
//! Reading order: [`graph`] (what a file says goes in and out; all engines take it from there), [`RtenEngine`] with the
//! conversions at its border, [`Search`] and [`OrtEngine`] (find the library, make a session, call it), [`OpenVinoEngine`]
//! (its C interface, objects with owners, streams).
//!
//! `unsafe` is allowed in this room only, and denied unless a line asks for it: asking a library for its version before
//! it is loaded for good, calling the C interfaces where the wrapper is too narrow (ONNX Runtime) or there is none
//! (OpenVINO), reading an output where an engine left it, giving memory back after a load, and ending the process.
//! Never here: lanes' threads, batching, warm-up and the choice between engines (runtime does those), the environment
//! (kapok reads it and passes paths in).

pub mod graph;

mod lanes;
mod leave;
mod memory;
mod openvino;
mod ort;
mod processor;
mod proto;
mod reason;
mod rten;
mod search;

#[cfg(test)]
mod tests;

pub use self::leave::leave;
pub use self::memory::{give_back, keep_little};
pub use self::openvino::OpenVinoEngine;
pub use self::ort::OrtEngine;
pub use self::processor::Processor;
pub use self::rten::RtenEngine;
pub use self::search::Search;

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

/// Whether every element fits the 32 bits in which some engines compute INT64.
fn narrow(tensor: &Tensor, engine: &str) -> Result<(), EngineError> {
    let wide = |value: &&i64| i32::try_from(**value).is_err();
    match elements::<i64>(tensor)?.iter().find(wide) {
        None => Ok(()),
        Some(value) => Err(EngineError::Input(format!(
            "input `{}`: {value} does not fit the 32 bits in which engine `{engine}` computes INT64",
            tensor.name
        ))),
    }
}

/// Only ONNX Runtime takes operators from libraries.
fn no_operator_libraries(source: &Source) -> Result<(), String> {
    match ort::operators(source).next() {
        None => Ok(()),
        Some((_, library)) => Err(format!(
            "the model needs operators of the library `{}`, which only ONNX Runtime takes",
            library.display()
        )),
    }
}
