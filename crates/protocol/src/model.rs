//! What a model looks like from outside.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::DataType;

/// One input or output of a model. A dimension of -1 is decided by the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorSpec {
    pub name: String,
    #[serde(rename = "datatype")]
    pub dtype: DataType,
    pub shape: Vec<i64>,
}

impl TensorSpec {
    pub fn new(name: impl Into<String>, dtype: DataType, shape: Vec<i64>) -> Self {
        Self {
            name: name.into(),
            dtype,
            shape,
        }
    }

    /// Whether a concrete shape fits: same rank, and equal wherever the dimension is fixed.
    pub fn accepts(&self, shape: &[usize]) -> bool {
        self.shape.len() == shape.len()
            && self
                .shape
                .iter()
                .zip(shape)
                .all(|(want, have)| *want < 0 || usize::try_from(*want) == Ok(*have))
    }
}

/// `GET /v2/models/{name}`; shapes include the batch dimension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelMetadata {
    pub name: String,
    pub versions: Vec<String>,
    pub platform: String,
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
}

/// How a model takes requests and answers them: what a door needs of its configuration for each request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModelTraits {
    /// The first dimension counts the items of a batch.
    pub batches: bool,
    /// One request may have any number of answers.
    pub decoupled: bool,
}

/// The repository index's states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ModelState {
    Loading,
    Ready,
    Unloading,
    Unavailable,
}

impl ModelState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Loading => "LOADING",
            Self::Ready => "READY",
            Self::Unloading => "UNLOADING",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// One line of the repository index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndexEntry {
    pub name: String,
    pub version: String,
    pub state: ModelState,
    /// Why it is not ready; empty when it is.
    pub reason: String,
}

/// `RepositoryModelLoad`: (re)load a model, perhaps with another configuration or other files than the folder's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadRequest {
    pub model: String,
    /// `parameters.config`: a `ModelConfig` as JSON, instead of `config.pbtxt`.
    pub config: Option<String>,
    /// `parameters["file:<version>/<name>"]`, by the path without `file:`, which stays below the model's folder: the whole
    /// content of that folder; needs `config`.
    pub files: BTreeMap<String, Bytes>,
}

/// One known model version, as `kapok models list -v` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct ModelDescription {
    pub name: String,
    pub version: String,
    pub state: ModelState,
    pub reason: String,
    /// The engine that serves it; empty while not loaded.
    pub engine: String,
    pub engine_version: String,
    /// What `engine: auto` saw, best first; one entry when the engine was named.
    pub candidates: Vec<EngineCandidate>,
    pub lanes: usize,
    pub load_ms: f64,
    /// Takes text (`/v1/embeddings`).
    pub text: bool,
}

/// The numbers that a model's products are computed in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As the model says.
    #[default]
    Fp32,
    /// FP32 products in bfloat16: half the bits, the same range.
    Bf16,
}

impl Precision {
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
        }
    }
}

fn one() -> usize {
    1
}

/// How one engine did on the warm-up data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineCandidate {
    pub engine: String,
    #[serde(default)]
    pub precision: Precision,
    /// Threads of a call.
    #[serde(default = "one")]
    pub threads: usize,
    /// Median of a call, one lane.
    pub median_ms: Option<f64>,
    /// Calls a second with as many lanes as the cores hold; measured where `threads = "auto"` weighs one against the other.
    #[serde(default)]
    pub calls_per_s: Option<f64>,
    /// Largest absolute difference from the reference engine's outputs; none for the reference itself.
    pub max_difference: Option<f64>,
    /// `fastest`, `slower`, `disagrees`, or why it could not load.
    pub verdict: String,
}
