//! An ONNX file's inputs and outputs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onnx::graph::fuzz(data));
