//! The Open Inference Protocol v2 over REST, with Triton's binary tensor extension.
//!
//! A request is read in two steps, so that a binary body can be streamed straight into aligned buffers:
//! [`parse_header`] reads the JSON and says by [`Header::binary_plan`] how many bytes follow for which tensor;
//! [`Header::into_request`] joins both. [`encode`] is the way back.
//! Never here: HTTP itself, and whether the model wants these tensors.

mod bodies;
mod client;
mod data;
mod error;
mod fuzz;
mod generate;
mod header;
mod number;
mod raw;
mod region;
mod response;
#[cfg(test)]
mod tests;

pub use bodies::{
    EXTENSIONS, index, live, metadata, model_ready, ready, server_metadata, statistics,
};
pub use client::{decode_metadata, decode_response, encode_request, error_of};
pub use fuzz::fuzz_rest_infer;
pub use generate::{encode_generate, fuzz_rest_generate, read_generate};
pub use header::{Header, Input, InputData, ResponseForm, parse_header};
pub use raw::raw_request;
pub use region::{RegionStatus, RegisterRegion, fuzz_rest_region, read_region, regions};
pub use response::{EncodedResponse, encode};

/// Says where the JSON ends and binary tensors begin; on requests and on answers.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// Triton's own limit on nested JSON.
const DEPTH_MAX: usize = 100;
