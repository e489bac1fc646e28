//! One model version that is in memory and answers.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use protocol::oip::proto::{ModelConfig, ModelTransactionPolicy};
use protocol::{Controls, EngineCandidate, Parameters, TensorSpec};

use tokio::sync::Semaphore;

use crate::cache::Member;
use crate::classify::Labels;
use crate::embed::TextPipeline;
use crate::ensemble::Ensemble;
use crate::lifecycle::Track;
use crate::queue::Queue;
use crate::request::Interface;
use crate::sequence::Sequencer;
use crate::statistics::Statistics;

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) config: ModelConfig,
    /// As clients see them: the configuration's order, the batch dimension included.
    pub(crate) inputs: Vec<TensorSpec>,
    pub(crate) interface: Interface,
    pub(crate) labels: Labels,
    /// Present when equal requests may have the same answer.
    pub(crate) cache: Option<Member>,
    pub(crate) statistics: Arc<Statistics>,
    pub(crate) load_ms: f64,
    /// How it has done, for whoever replaces it.
    pub(crate) track: Track,
    pub(crate) serving: Serving,
}

/// What answers a model's calls.
#[derive(Debug)]
pub(crate) enum Serving {
    Engine(ByEngine),
    Ensemble(Ensemble),
}

/// An engine behind a queue.
#[derive(Debug)]
pub(crate) struct ByEngine {
    /// The model's.
    pub(crate) name: String,
    pub(crate) queue: Arc<Queue>,
    /// For a model with sequences: then the lanes are here.
    pub(crate) sequencer: Option<Arc<Sequencer>>,
    /// What served before, for as long as it stays in memory: sequences go on where they began.
    pub(crate) before: Mutex<Weak<Model>>,
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
}

impl ByEngine {
    /// None when the model does not take text.
    pub(crate) fn with_text(&self) -> Option<(&Self, &TextPipeline)> {
        Some((self, self.text.as_ref()?))
    }

    /// The version before, if the request's sequence began there and has not ended: its state is there.
    pub(crate) fn elder(&self, parameters: &Parameters) -> Option<Arc<Model>> {
        let sequencer = self.sequencer.as_ref().filter(|own| !own.iterative())?;
        let before = self.before.lock().upgrade()?;
        let controls = Controls::of(parameters).ok()?;
        let id = controls.sequence.as_ref()?;
        if controls.start || sequencer.knows(id) {
            return None;
        }
        let began = before.by_engine()?.sequencer.as_ref()?.knows(id);
        began.then_some(before)
    }
}

impl Model {
    /// None when something else answers.
    pub(crate) fn by_engine(&self) -> Option<&ByEngine> {
        match &self.serving {
            Serving::Engine(engine) => Some(engine),
            Serving::Ensemble(_) => None,
        }
    }

    /// Whether one request may have any number of answers.
    pub(crate) fn decoupled(&self) -> bool {
        if let Serving::Ensemble(ensemble) = &self.serving {
            return ensemble.decoupled();
        }
        let policy = self.config.model_transaction_policy.as_ref();
        policy.is_some_and(|policy| policy.decoupled)
    }

    /// The configuration as clients see it: what an ensemble is follows from its members.
    pub(crate) fn shown_config(&self) -> ModelConfig {
        let mut config = self.config.clone();
        if self.ensemble().is_some() {
            let decoupled = self.decoupled();
            config.model_transaction_policy = Some(ModelTransactionPolicy { decoupled });
        }
        config
    }

    /// None when an engine answers.
    pub(crate) fn ensemble(&self) -> Option<&Ensemble> {
        match &self.serving {
            Serving::Ensemble(ensemble) => Some(ensemble),
            Serving::Engine(_) => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&TextPipeline> {
        self.by_engine()?.text.as_ref()
    }
}
