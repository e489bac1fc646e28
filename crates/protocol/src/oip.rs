//! Open Inference Protocol v2, with Triton's extensions.

mod checks;
pub mod grpc;
pub mod proto;
pub mod rest;
