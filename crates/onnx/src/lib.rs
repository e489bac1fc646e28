//! The ONNX engines: rten (always there) and ONNX Runtime (a library found and loaded at run time, never linked).
//!
//! Reading order: [`graph`] (what a file says goes in and out; both engines take it from there), [`RtenEngine`] with the
//! conversions at its border, [`Search`] and [`OrtEngine`] (find the library, make sessions, bind tensors).
//! OpenVINO will be a third engine beside them (`openvino.rs`: its C library found like ONNX Runtime's).
//!
//! `unsafe` is allowed in this room only, and denied unless a line asks for it: asking a library for its version before
//! it is loaded for good, and reading an output where ONNX Runtime left it.
//! Never here: lanes' threads, batching, warm-up and the choice between engines (runtime does those), the environment
//! (kapok reads it and passes paths in).

pub mod graph;
pub mod proto;
