//! Open Inference Protocol v2, with Triton's extensions.

pub mod grpc;
pub mod proto;
pub mod rest;
