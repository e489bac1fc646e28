//! Open Inference Protocol v2, with Triton's extensions.

pub mod proto;
