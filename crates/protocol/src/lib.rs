//! Everything that crosses a process border, and nothing that keeps state or does I/O.
//!
//! Reading order: [`tensor`] (typed bytes), [`infer`] (one inference, whatever door it came through),
//! [`model`] (what a model looks like from outside), [`error`] and [`status`] (one error, every protocol's shape),
//! [`shown`] (how much of a client's text a message repeats), then the wire formats ([`oip`], [`openai`], [`anthropic`],
//! [`otlp`]) and the files people write ([`config`], [`resource`], [`sidecar`]).
//! Never here: sockets, clocks, decisions. A parser takes bytes and returns a value or an error that names the field.

pub mod anthropic;
pub mod config;
pub mod embed;
pub mod error;
mod file_error;
pub mod infer;
mod inside;
mod json;
pub mod metrics_page;
pub mod model;
pub mod oip;
pub mod openai;
pub mod otlp;
#[cfg(test)]
mod replay;
pub mod resource;
pub mod shown;
pub mod sidecar;
pub mod status;
pub mod tensor;

pub use embed::{EmbedInputs, EmbedRequest, Embeddings};
pub use error::ApiError;
pub use file_error::FileError;
pub use infer::{
    Controls, CorrelationId, InferRequest, InferResponse, Parameter, Parameters, RequestedOutput,
    StreamedResponse, Timing,
};
pub use inside::stays_inside;
pub use model::{
    EngineCandidate, IndexEntry, LoadRequest, ModelDescription, ModelMetadata, ModelState,
    ModelTraits, Precision, TensorSpec,
};
pub use tensor::{BufferPool, DataType, PooledBuffer, Tensor};
