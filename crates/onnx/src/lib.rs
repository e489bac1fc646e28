//! The ONNX engines: rten (always there) and ONNX Runtime (loaded at run time).
