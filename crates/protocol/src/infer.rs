//! One inference, whatever door it came through.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::Tensor;

mod controls;

pub use controls::{Controls, CorrelationId};

/// A request or tensor parameter: the scalar types that both wires can carry.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
}

/// As a configuration writes it: there every parameter is a text, whatever it means.
impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Uint(value) => value.fmt(f),
            Self::Double(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
        }
    }
}

pub type Parameters = BTreeMap<String, Parameter>;

/// An inference request after parsing; inputs are in the client's order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InferRequest {
    pub model: String,
    /// The version asked for; none means the model's own policy decides.
    pub version: Option<String>,
    pub id: Option<String>,
    pub parameters: Parameters,
    pub inputs: Vec<Tensor>,
    /// Empty means all outputs, in the model's order.
    pub outputs: Vec<RequestedOutput>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestedOutput {
    pub name: String,
    pub parameters: Parameters,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct InferResponse {
    pub model: String,
    pub version: String,
    pub id: Option<String>,
    pub parameters: Parameters,
    pub outputs: Vec<Tensor>,
}

/// One answer of a call that may have several (`ModelStreamInfer`, `generate_stream`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StreamedResponse {
    pub response: InferResponse,
    /// Nothing follows. A decoupled model may end without saying so here: then the stream just ends.
    pub last: bool,
}

/// Where the time of one inference went inside the model server, in Triton's statistics' words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// Waiting for a lane.
    pub queue: Duration,
    /// Preparing inputs: alignment copies, tokenising.
    pub input: Duration,
    /// The engine itself, an artificial `execute_delay_ms` included.
    pub infer: Duration,
    /// Preparing outputs: pooling, selecting.
    pub output: Duration,
}

impl Timing {
    /// One after the other.
    #[must_use]
    pub fn plus(self, later: Self) -> Self {
        Self {
            queue: self.queue + later.queue,
            input: self.input + later.input,
            infer: self.infer + later.infer,
            output: self.output + later.output,
        }
    }

    pub fn total(self) -> Duration {
        self.queue + self.input + self.infer + self.output
    }
}
