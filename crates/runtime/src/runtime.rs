//! The handle that others hold: everything a door asks about models in this process.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base::{Clock, Deadline, ErrorKind, Tasks};
use parking_lot::RwLock;
use protocol::oip::proto::{ModelConfig, ModelStatistics};
use protocol::{
    ApiError, BufferPool, EmbedRequest, Embeddings, IndexEntry, InferRequest, InferResponse,
    LoadRequest, ModelDescription, ModelMetadata, ModelState, Timing,
};
use telemetry::metrics::Registry;
use tokio::sync::watch;

use crate::cache::ResponseCache;
use crate::call::Place;
use crate::choose::{Cache, Tools};
use crate::compute::ComputePool;
use crate::embed;
use crate::engine::Engine;
use crate::ensemble;
use crate::error::Error;
use crate::infer;
use crate::limit::Limits;
use crate::loader;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::queue;
use crate::repository;
use crate::snapshot::{Snapshot, Version};
use crate::stream::{self, Responses};
use crate::timer::Timer;

/// What the runtime is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folders in Triton's layout: `<repository>/<model>/<version>/model.onnx`.
    pub repositories: Vec<PathBuf>,
    /// Calls waiting for a lane, per model; one more is refused.
    pub queue_max: usize,
    /// Answers kept for models that say `response_cache { enable: true }`; 0 keeps none.
    pub response_cache_bytes: usize,
    /// Compute threads: the machine's core budget.
    pub cores: usize,
    /// Where engine choices are kept between starts; none keeps nothing.
    pub cache_dir: Option<PathBuf>,
}

/// What the runtime is given.
#[derive(Debug)]
pub struct Parts {
    pub config: Config,
    /// In the order of preference: the most complete first, built-ins anywhere.
    pub engines: Vec<Arc<dyn Engine>>,
    pub clock: Clock,
    pub tasks: Tasks,
    pub registry: Registry,
    pub buffers: BufferPool,
}

/// Models in this process. Cheap to clone; dropping a future of its methods cancels the call.
#[derive(Debug, Clone)]
pub struct Runtime(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) engines: Vec<Arc<dyn Engine>>,
    pub(crate) queue_max: usize,
    pub(crate) response_cache: Option<Arc<ResponseCache>>,
    /// What every model's queue works with.
    pub(crate) queues: queue::Tools,
    pub(crate) limits: Limits,
    pub(crate) tools: Tools,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Metrics,
    /// Loader threads at work.
    pub(crate) loading: watch::Sender<usize>,
    pub(crate) buffers: BufferPool,
    snapshot: ArcSwap<Snapshot>,
}

impl Inner {
    /// Replaces what is known about one model.
    pub(crate) fn publish(&self, name: &str, versions: BTreeMap<u64, Version>) {
        let before = self.snapshot.rcu(|before| {
            let mut next = Snapshot::clone(before);
            next.models.insert(name.to_owned(), versions.clone());
            ensemble::settle(&mut next);
            next
        });
        ensemble::announce(&before, &self.snapshot.load());
    }

    /// The model behind a step of an ensemble.
    pub(crate) fn member(&self, name: &str, version: Option<&str>) -> Result<Arc<Model>, Error> {
        self.snapshot.load().model(name, version).map(Arc::clone)
    }
}

impl Runtime {
    /// Looks at the repositories, starts the compute threads, and loads the models in the background.
    pub fn start(parts: Parts) -> Result<Self, Error> {
        let Parts {
            config,
            engines,
            clock,
            tasks,
            registry,
            buffers,
        } = parts;
        let found = repository::scan(&config.repositories)?;
        for found in &found {
            if let Some(problem) = &found.problem {
                tracing::error!(
                    model = found.name,
                    folder = %found.folder.display(),
                    twin = found.twin.as_ref().map(|twin| tracing::field::display(twin.display())),
                    problem,
                    "model is unavailable"
                );
            }
        }
        let compute = ComputePool::start(config.cores).map_err(Error::Threads)?;
        let timer = Timer::start(clock.clone()).map_err(Error::Threads)?;
        let inner = Arc::new(Inner {
            engines,
            queues: queue::Tools {
                clock: clock.clone(),
                compute: compute.clone(),
                buffers: buffers.clone(),
                timer,
            },
            limits: Limits::default(),
            queue_max: config.queue_max,
            response_cache: ResponseCache::new(config.response_cache_bytes),
            metrics: Metrics::register(&registry, compute.cores()),
            tools: Tools {
                clock,
                compute,
                cache: config.cache_dir.as_deref().map(Cache::new),
                quiet: RwLock::new(()),
            },
            tasks,
            loading: watch::Sender::new(0),
            buffers,
            snapshot: ArcSwap::from_pointee(loader::first_snapshot(&found)),
        });
        loader::load_all(&inner, found).map_err(Error::Threads)?;
        Ok(Self(inner))
    }

    /// Resolves when every model found at start is ready or unavailable.
    pub async fn loaded(&self) {
        let mut loading = self.0.loading.subscribe();
        // The sender lives in self, so this ends by the count reaching zero.
        let _closed = loading.wait_for(|threads| *threads == 0).await;
    }

    /// Whether a model of this name is in the repository, ready or not.
    pub fn has(&self, model: &str) -> bool {
        self.0.snapshot.load().models.contains_key(model)
    }

    /// Whether the model (this version, or any) answers now; unknown models are an error.
    pub fn model_ready(&self, model: &str, version: Option<&str>) -> Result<bool, ApiError> {
        let snapshot = self.0.snapshot.load();
        let (_, version) = snapshot.version(model, version)?;
        Ok(version.state() == ModelState::Ready)
    }

    /// Whether every model that should be loaded is.
    pub fn ready(&self) -> bool {
        let snapshot = self.0.snapshot.load();
        let mut versions = snapshot.models.values().flat_map(BTreeMap::values);
        versions.all(|version| version.state() == ModelState::Ready)
    }

    pub fn metadata(&self, model: &str, version: Option<&str>) -> Result<ModelMetadata, ApiError> {
        let snapshot = self.0.snapshot.load();
        let found = snapshot.model(model, version)?;
        let ready = |(number, version): (&u64, &Version)| {
            version.model().is_some().then(|| number.to_string())
        };
        let config = &found.config;
        let platform = Some(&config.platform).filter(|platform| !platform.is_empty());
        let outputs = &found.interface.outputs;
        Ok(ModelMetadata {
            name: found.name.clone(),
            versions: snapshot.versions(model)?.iter().filter_map(ready).collect(),
            platform: platform.unwrap_or(&config.backend).clone(),
            inputs: found.inputs.clone(),
            outputs: outputs.iter().map(|port| port.spec.clone()).collect(),
        })
    }

    /// The merged configuration.
    pub fn config(&self, model: &str, version: Option<&str>) -> Result<ModelConfig, ApiError> {
        Ok(self.model(model, version)?.config.clone())
    }

    /// Every version known, ready or not, by name and version.
    pub fn index(&self) -> Vec<IndexEntry> {
        let snapshot = self.0.snapshot.load();
        let mut index = Vec::new();
        for (name, versions) in &snapshot.models {
            for (number, version) in versions {
                index.push(IndexEntry {
                    name: name.clone(),
                    version: number.to_string(),
                    state: version.state(),
                    reason: version.reason().to_owned(),
                });
            }
        }
        index
    }

    /// Counters since start; one entry per ready version, or only those of `model`.
    pub fn statistics(
        &self,
        model: Option<&str>,
        version: Option<&str>,
    ) -> Result<Vec<ModelStatistics>, ApiError> {
        let snapshot = self.0.snapshot.load();
        let count = |model: &Arc<Model>| model.statistics.snapshot(&model.name, &model.version);
        let ready = |versions: &BTreeMap<u64, Version>| -> Vec<ModelStatistics> {
            versions
                .values()
                .filter_map(Version::model)
                .map(count)
                .collect()
        };
        match (model, version.filter(|version| !version.is_empty())) {
            (None, _) => Ok(snapshot.models.values().flat_map(ready).collect()),
            (Some(model), None) => Ok(ready(snapshot.versions(model)?)),
            (Some(model), version) => Ok(vec![count(snapshot.model(model, version)?)]),
        }
    }

    /// Runs one inference.
    pub async fn infer(
        &self,
        request: InferRequest,
        deadline: Deadline,
    ) -> Result<(InferResponse, Timing), ApiError> {
        let model = self.model(&request.model, request.version.as_deref())?;
        Ok(infer::infer(&model, self.place(deadline), request).await?)
    }

    /// One call, any number of answers: exactly one unless the model is decoupled.
    pub async fn stream(
        &self,
        request: InferRequest,
        deadline: Deadline,
    ) -> Result<Responses, ApiError> {
        let model = self.model(&request.model, request.version.as_deref())?;
        Ok(stream::stream(&model, self.place(deadline), request).await?)
    }

    /// Loads a model, or loads it anew; what served before serves until the new one is ready.
    pub async fn load(&self, request: LoadRequest) -> Result<(), ApiError> {
        let _model = self.model(&request.model, None)?;
        Err(ApiError::new(
            ErrorKind::Unsupported,
            "models cannot be loaded at run time",
        ))
    }

    /// Takes a model out of service; requests in flight are answered.
    pub async fn unload(&self, model: &str, _dependents: bool) -> Result<(), ApiError> {
        let _model = self.model(model, None)?;
        Err(ApiError::new(
            ErrorKind::Unsupported,
            "models cannot be unloaded at run time",
        ))
    }

    /// Whether the model takes text.
    pub fn embeds(&self, model: &str) -> bool {
        self.model(model, None)
            .is_ok_and(|model| model.text().is_some())
    }

    /// Turns text into vectors.
    pub async fn embed(
        &self,
        request: EmbedRequest,
        deadline: Deadline,
    ) -> Result<(Embeddings, Timing), ApiError> {
        let model = self.model(&request.model, None)?;
        Ok(embed::embed(&model, self.place(deadline), request).await?)
    }

    /// Engine choices and their figures, for operators.
    pub fn describe(&self) -> Vec<ModelDescription> {
        let snapshot = self.0.snapshot.load();
        let mut descriptions = Vec::new();
        for (name, versions) in &snapshot.models {
            for (number, version) in versions {
                descriptions.push(describe(name, *number, version));
            }
        }
        descriptions
    }

    pub(crate) fn model(&self, name: &str, version: Option<&str>) -> Result<Arc<Model>, Error> {
        self.0.snapshot.load().model(name, version).map(Arc::clone)
    }

    #[cfg(test)]
    pub(crate) fn publish(&self, name: &str, versions: BTreeMap<u64, Version>) {
        self.0.publish(name, versions);
    }

    fn place(&self, deadline: Deadline) -> Place<'_> {
        Place {
            runtime: &self.0,
            clock: &self.0.tools.clock,
            compute: &self.0.tools.compute,
            buffers: &self.0.buffers,
            deadline,
        }
    }
}

fn describe(name: &str, number: u64, version: &Version) -> ModelDescription {
    let mut description = ModelDescription {
        name: name.to_owned(),
        version: number.to_string(),
        state: version.state(),
        reason: version.reason().to_owned(),
        engine: String::new(),
        engine_version: String::new(),
        candidates: Vec::new(),
        lanes: 0,
        load_ms: 0.0,
        text: false,
    };
    if let Some(model) = version.model() {
        description.load_ms = model.load_ms;
        description.text = model.text().is_some();
        if let Some(engine) = model.by_engine() {
            engine.engine.clone_into(&mut description.engine);
            description
                .engine_version
                .clone_from(&engine.engine_version);
            description.candidates.clone_from(&engine.candidates);
            description.lanes = engine.lanes;
        } else {
            "ensemble".clone_into(&mut description.engine);
        }
    }
    description
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("engines", &self.engines)
            .field("queue_max", &self.queue_max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
