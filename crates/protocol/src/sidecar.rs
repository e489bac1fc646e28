//! `kapok.toml` beside a model: what Triton's `config.pbtxt` has no words for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::file_error::FileError;

mod batch;
mod compute;
mod custom_ops;
mod integrity;
mod isolation;
mod memory;
mod parameters;
mod parse;
mod pipeline;
mod sequence;
mod swap;
#[cfg(test)]
mod tests;
mod versions;

pub use batch::{Batch, Slo};
pub use compute::{PrecisionChoice, Threads};
pub use custom_ops::CustomOps;
pub use integrity::{Integrity, is_public_key};
pub use isolation::Isolation;
pub use memory::Memory;
pub use parameters::{Merged, PREFIX};
pub use parse::fuzz_sidecar;
pub use pipeline::{FanOut, Pipeline};
pub use sequence::Sequence;
pub use swap::Swap;
pub use versions::Versions;

/// The whole file; every field has a default, so an empty file is legal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sidecar {
    pub engine: EngineChoice,
    pub isolation: Isolation,
    /// Calls that run at the same time; absent means one per core, shared out by `threads`.
    pub lanes: Option<usize>,
    /// Compute threads of one lane; absent means what `intra_op_thread_count` of the configuration says, or 1.
    pub threads: Option<Threads>,
    pub precision: PrecisionChoice,
    pub agree: Agree,
    /// Present when the model takes text (`/v1/embeddings`).
    pub text: Option<Text>,
    pub warmup: Warmup,
    pub versions: Versions,
    pub slo: Slo,
    pub batch: Batch,
    pub swap: Swap,
    pub memory: Memory,
    pub integrity: Integrity,
    pub pipeline: Pipeline,
    pub sequence: Sequence,
    pub custom_ops: CustomOps,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// Load with each that can, compare, time, keep the fastest.
    #[default]
    Auto,
    Rten,
    OnnxRuntime,
    OpenVino,
    /// A shared library with kapok's node interface.
    Node,
    Builtin,
}

impl EngineChoice {
    /// The engine's own name; none for `auto`.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Auto => None,
            Self::Rten => Some("rten"),
            Self::OnnxRuntime => Some("onnxruntime"),
            Self::OpenVino => Some("openvino"),
            Self::Node => Some("node"),
            Self::Builtin => Some("builtin"),
        }
    }
}

/// When two engines' outputs count as equal: within `atol + rtol * |reference|` each, or by cosine over the whole tensor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Agree {
    pub atol: f64,
    pub rtol: f64,
    /// Reached by quantised models whose single elements differ more.
    pub min_cosine: f64,
}

impl Default for Agree {
    fn default() -> Self {
        Self {
            atol: 1e-3,
            rtol: 1e-2,
            min_cosine: 0.99,
        }
    }
}

/// How text becomes one vector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Text {
    /// Relative to the sidecar's folder, and inside it.
    pub tokenizer: PathBuf,
    pub pooling: Pooling,
    /// The model's output that is pooled.
    pub output: String,
    /// Scale the vector to length 1.
    pub normalize: bool,
    /// Longer texts are cut.
    pub max_tokens: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            tokenizer: PathBuf::from("tokenizer.json"),
            pooling: Pooling::default(),
            output: "last_hidden_state".to_owned(),
            normalize: true,
            max_tokens: 256,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Mean over the tokens that are not padding.
    #[default]
    Mean,
    /// The first token.
    Cls,
    /// The last token that is not padding.
    Last,
    /// The output is already one vector per text.
    None,
}

/// Concrete shapes for inputs whose dimensions the model leaves open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Warmup {
    pub shapes: BTreeMap<String, Vec<usize>>,
}

impl Sidecar {
    /// Reads and validates; every problem found is named with line and column.
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<FileError>> {
        parse::parse(text, file)
    }
}
