//! One model version that is in memory and answers.

use std::sync::Arc;

use protocol::oip::proto::ModelConfig;
use protocol::{EngineCandidate, TensorSpec};

use tokio::sync::Semaphore;

use crate::embed::TextPipeline;
use crate::queue::Queue;
use crate::request::Interface;
use crate::statistics::Statistics;

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) config: ModelConfig,
    /// As clients see them: the configuration's order, the batch dimension included.
    pub(crate) inputs: Vec<TensorSpec>,
    pub(crate) interface: Interface,
    pub(crate) queue: Arc<Queue>,
    pub(crate) statistics: Arc<Statistics>,
    pub(crate) text: Option<TextPipeline>,
    /// Places for embedding requests: each may tokenise and hold its texts, so they are counted before they do.
    pub(crate) embeds: Semaphore,
    /// All of `embeds`: as many as lanes and places in the queue.
    pub(crate) embeds_max: usize,
    pub(crate) lanes: usize,
    /// Cores of one call.
    pub(crate) threads: usize,
    pub(crate) engine: &'static str,
    pub(crate) engine_version: String,
    pub(crate) candidates: Vec<EngineCandidate>,
    pub(crate) load_ms: f64,
}
