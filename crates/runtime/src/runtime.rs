//! The handle that others hold: everything a door asks about models in this process.

mod describe;
mod outline;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{Clock, Deadline, ErrorKind, Tasks};
use parking_lot::RwLock;
use protocol::oip::proto::{ModelConfig, ModelStatistics};
use protocol::resource::ModelControl;
use protocol::{
    ApiError, BufferPool, EmbedRequest, Embeddings, IndexEntry, InferRequest, InferResponse,
    LoadRequest, ModelDescription, ModelMetadata, ModelTraits, Timing,
};
use telemetry::metrics::Registry;
use tokio::sync::watch;

use crate::cache::ResponseCache;
use crate::call::Place;
use crate::catalogue::{Catalogue, Entry, Version};
use crate::choose::{Cache, Tools};
use crate::compute::ComputePool;
use crate::definition::Terms;
use crate::embed;
use crate::engine::EngineError;
use crate::engines::Engines;
use crate::error::Error;
use crate::infer;
use crate::lifecycle::{self, Ended, Jobs, Residency, Retired, Settings};
use crate::limit::Limits;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::queue;
use crate::repository;
use crate::stream::{self, Responses};
use crate::timer::Timer;

/// Where the files of overridden models go when there is no cache folder: memory, and cleared at the next boot. Everybody
/// may write beside it, so it is this user's and is looked at before it is used.
fn scratch() -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    PathBuf::from(format!("/dev/shm/kapok-{user}"))
}

/// What the runtime is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folders in Triton's layout: `<repository>/<model>/<version>/model.onnx`.
    pub repositories: Vec<PathBuf>,
    /// Calls waiting for a lane, per model; one more is refused.
    pub queue_max: usize,
    /// Answers kept for models that say `response_cache { enable: true }`; 0 keeps none.
    pub response_cache_bytes: usize,
    /// What there is of the resources that configurations name; none leaves models unlimited.
    pub rate_limit: Option<BTreeMap<String, u32>>,
    /// Compute threads: the machine's core budget.
    pub cores: usize,
    /// Where engine choices are kept between starts; none keeps nothing.
    pub cache_dir: Option<PathBuf>,
    pub control: ModelControl,
    /// With [`ModelControl::Explicit`]: loaded at start; `*` is all.
    pub load_models: Vec<String>,
    /// Bytes that models may take together; with a budget they are loaded on first use.
    pub memory_budget: Option<u64>,
    /// A change on disk is acted upon when the folder has been still for so long.
    pub settle: Duration,
    /// How often folders are looked at whose changes the system does not tell.
    pub poll: Duration,
    /// A minisign key: only models whose manifest is signed by it are loaded.
    pub public_key: Option<String>,
    /// The devices that `instance_group` may name: those whose compute capability is at least 6.0.
    pub gpus: Vec<i32>,
    /// Whether configurations are completed from their models; if not, each must be whole.
    pub complete_configs: bool,
    /// `max_batch_size` of a model that batches and does not say how much.
    pub default_max_batch_size: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            repositories: Vec::new(),
            queue_max: 1024,
            cores: 1,
            cache_dir: None,
            response_cache_bytes: 0,
            rate_limit: None,
            control: ModelControl::Auto,
            load_models: Vec::new(),
            memory_budget: None,
            // Longer than the pauses of a copying tool, shorter than a person waits.
            settle: Duration::from_millis(300),
            poll: Duration::from_secs(15),
            public_key: None,
            gpus: Vec::new(),
            complete_configs: true,
            default_max_batch_size: protocol::config::DEFAULT_MAX_BATCH_SIZE,
        }
    }
}

/// What the runtime is given.
#[derive(Debug)]
pub struct Parts {
    pub config: Config,
    pub engines: Engines,
    pub clock: Clock,
    pub tasks: Tasks,
    pub registry: Registry,
    pub buffers: BufferPool,
    /// Gives freed memory back to the system; called on loader threads.
    pub give_back: fn(),
}

/// Models in this process. Cheap to clone; dropping a future of its methods cancels the call.
#[derive(Debug, Clone)]
pub struct Runtime(Arc<Inner>);

/// What a request found, held until it is answered.
struct Found {
    model: Arc<Model>,
    /// Of an ensemble, where they could be evicted.
    members: Vec<Arc<Model>>,
}

pub(crate) struct Inner {
    pub(crate) engines: Engines,
    pub(crate) queue_max: usize,
    pub(crate) response_cache: Option<Arc<ResponseCache>>,
    /// What every model's queue works with.
    pub(crate) queues: queue::Tools,
    pub(crate) limits: Limits,
    pub(crate) tools: Tools,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Metrics,
    /// Loads that the start waits for.
    pub(crate) loading: watch::Sender<usize>,
    pub(crate) buffers: BufferPool,
    pub(crate) catalogue: Catalogue,
    pub(crate) settings: Settings,
    pub(crate) jobs: Jobs,
    pub(crate) retired: Retired,
    pub(crate) residency: Residency,
    pub(crate) give_back: fn(),
    started: Instant,
}

impl Inner {
    /// The model behind a step of an ensemble.
    pub(crate) fn member(&self, name: &str, version: Option<&str>) -> Result<Arc<Model>, Error> {
        let entry = self.catalogue.get(name)?;
        entry.model(version)?.ok_or_else(|| Error::NotReady {
            model: name.to_owned(),
            version: version.unwrap_or("1").to_owned(),
        })
    }

    /// Milliseconds of this runtime's life.
    pub(crate) fn age_ms(&self) -> u64 {
        let age = self
            .tools
            .clock
            .now()
            .saturating_duration_since(self.started);
        u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
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
            give_back,
        } = parts;
        let found = repository::scan(&config.repositories)?;
        let compute = ComputePool::start(config.cores).map_err(Error::Threads)?;
        let timer = Timer::start(clock.clone()).map_err(Error::Threads)?;
        let scratch = config.cache_dir.clone().unwrap_or_else(scratch);
        let inner = Arc::new(Inner {
            engines,
            queues: queue::Tools {
                clock: clock.clone(),
                compute: compute.clone(),
                buffers: buffers.clone(),
                timer,
            },
            limits: Limits::new(config.rate_limit.clone()),
            queue_max: config.queue_max,
            response_cache: ResponseCache::new(config.response_cache_bytes),
            metrics: Metrics::register(&registry, compute.cores()),
            started: clock.now(),
            settings: Settings {
                scratch: scratch.join("overrides"),
                repositories: config.repositories,
                control: config.control,
                load_models: config.load_models,
                settle: config.settle,
                poll: config.poll,
                public_key: config.public_key,
                terms: Terms {
                    gpus: config.gpus,
                    completes: config.complete_configs,
                    batch_max: config.default_max_batch_size,
                },
            },
            tools: Tools {
                clock,
                compute,
                cache: config.cache_dir.as_deref().map(Cache::new),
                quiet: RwLock::new(()),
            },
            tasks,
            loading: watch::Sender::new(0),
            buffers,
            catalogue: Catalogue::default(),
            jobs: Jobs::default(),
            retired: Retired::default(),
            residency: Residency::new(config.memory_budget),
            give_back,
        });
        // Before anything is loaded: a change that comes meanwhile is seen.
        crate::watch::start(&inner).map_err(Error::Threads)?;
        lifecycle::begin(&inner, found);
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
        self.0.catalogue.models().contains_key(model)
    }

    /// Whether the model (this version, or any) answers requests, if need be after loading; unknown models are an error.
    pub fn model_ready(&self, model: &str, version: Option<&str>) -> Result<bool, ApiError> {
        let entry = self.0.catalogue.get(model)?;
        let (_, version) = entry.version(&entry.versions(), version)?;
        Ok(version.answers())
    }

    /// Whether every model that should serve does, be it an older version of itself.
    pub fn ready(&self) -> bool {
        let models = self.0.catalogue.models();
        models.values().all(|entry| entry.versions().well())
    }

    pub fn metadata(&self, model: &str, version: Option<&str>) -> Result<ModelMetadata, ApiError> {
        let found = self.model(model, version)?;
        let entry = self.0.catalogue.get(model)?;
        let config = &found.config;
        let platform = Some(&config.platform).filter(|platform| !platform.is_empty());
        let outputs = &found.interface.outputs;
        Ok(ModelMetadata {
            name: found.name.clone(),
            versions: entry
                .versions()
                .ready()
                .map(|(number, _)| number.to_string())
                .collect(),
            platform: platform.unwrap_or(&config.backend).clone(),
            inputs: found.inputs.clone(),
            outputs: outputs.iter().map(|port| port.spec.clone()).collect(),
        })
    }

    /// How the model takes requests and answers them.
    pub fn traits(&self, model: &str, version: Option<&str>) -> Result<ModelTraits, ApiError> {
        let model = self.model(model, version)?;
        Ok(ModelTraits {
            batches: model.interface.batch_max.is_some(),
            decoupled: model.decoupled(),
        })
    }

    /// The merged configuration.
    pub fn config(&self, model: &str, version: Option<&str>) -> Result<ModelConfig, ApiError> {
        Ok(self.model(model, version)?.shown_config())
    }

    /// Every version known, ready or not, by name and version.
    pub fn index(&self) -> Vec<IndexEntry> {
        self.entries(|_version| true)
    }

    /// Of the index, what was to serve and could not be loaded. What nobody asked to load has not failed.
    pub fn failed(&self) -> Vec<IndexEntry> {
        self.entries(|version| matches!(version, Version::Unavailable(_)))
    }

    fn entries(&self, wanted: impl Fn(&Version) -> bool) -> Vec<IndexEntry> {
        let mut index = Vec::new();
        for (name, entry) in self.0.catalogue.models().iter() {
            let versions = entry.versions();
            for (number, version) in versions.states.iter().filter(|(_, state)| wanted(state)) {
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
        let count = |model: &Arc<Model>| model.statistics.snapshot(&model.name, &model.version);
        let ready = |entry: &Arc<Entry>| -> Vec<ModelStatistics> {
            let versions = entry.versions();
            versions
                .ready()
                .map(|(_, ready)| count(&ready.model))
                .collect()
        };
        match (model, version.filter(|version| !version.is_empty())) {
            (None, _) => Ok(self.0.catalogue.models().values().flat_map(ready).collect()),
            (Some(model), None) => Ok(ready(&self.0.catalogue.get(model)?)),
            (Some(model), version) => Ok(vec![count(&self.model(model, version)?)]),
        }
    }

    /// Brings a model into memory that is loaded on first use; at once for all others.
    pub async fn wake(&self, model: &str, version: Option<&str>) -> Result<(), ApiError> {
        match self.awake(model, version).await {
            Err(error @ Error::NoRoom { .. }) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Runs one inference. On a multi-threaded executor a short one may keep the thread that polls this, while another
    /// stands in for that: whatever else the same task does waits meanwhile.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` keeps what it is given twice, and ten thousand of these may wait"
    )]
    pub fn infer(
        &self,
        mut request: InferRequest,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(InferResponse, Timing), ApiError>> {
        async move {
            let found = self
                .find(&request.model, request.version.as_deref(), deadline)
                .await?;
            let mut place = Place {
                own_task: true,
                ..self.place(deadline)
            };
            self.run(&found, &mut request, &mut place).await
        }
    }

    async fn run(
        &self,
        Found { model, .. }: &Found,
        request: &mut InferRequest,
        place: &mut Place<'_>,
    ) -> Result<(InferResponse, Timing), ApiError> {
        let elder = elder(model, request);
        let model = elder.as_ref().unwrap_or(model);
        model.track.keep(request);
        let outcome = infer::infer(model, place, request).await;
        self.judge(model, outcome.as_ref().map(|(_, timing)| timing));
        Ok(outcome?)
    }

    /// One call, any number of answers: exactly one unless the model is decoupled.
    pub async fn stream(
        &self,
        mut request: InferRequest,
        deadline: Deadline,
    ) -> Result<Responses, ApiError> {
        let found = self
            .find(&request.model, request.version.as_deref(), deadline)
            .await?;
        if !found.model.decoupled() {
            let mut place = self.place(deadline);
            let (response, _) = self.run(&found, &mut request, &mut place).await?;
            return Ok(Responses::once(response));
        }
        found.model.track.keep(&request);
        let Found { model, members } = found;
        let model = elder(&model, &request).unwrap_or(model);
        Ok(stream::stream(&model, self.place(deadline), request, members).await?)
    }

    /// Loads a model, or loads it anew; what served before serves until the new one is ready.
    pub async fn load(&self, request: LoadRequest) -> Result<(), ApiError> {
        lifecycle::load(&self.0, request).await
    }

    /// Takes a model out of service; requests in flight are answered. With `dependents`, an ensemble's members go too, but
    /// for those that another ensemble needs.
    pub async fn unload(&self, model: &str, dependents: bool) -> Result<(), ApiError> {
        lifecycle::unload(&self.0, model, dependents).await
    }

    /// Lets what a model was before its last change serve again, at once.
    pub async fn roll_back(&self, model: &str) -> Result<(), ApiError> {
        lifecycle::roll_back(&self.0, model).await
    }

    /// Who decides what is loaded.
    pub fn control(&self) -> ModelControl {
        self.0.settings.control
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
        let Found { model, .. } = self.find(&request.model, None, deadline).await?;
        let outcome = embed::embed(&model, self.place(deadline), request).await;
        self.judge(&model, outcome.as_ref().map(|(_, timing)| timing));
        Ok(outcome?)
    }

    /// Engine choices and their figures, for operators.
    pub fn describe(&self) -> Vec<ModelDescription> {
        let mut descriptions = Vec::new();
        for (name, entry) in self.0.catalogue.models().iter() {
            for (number, version) in &entry.versions().states {
                descriptions.push(describe::describe(name, *number, version));
            }
        }
        descriptions
    }

    /// A version that answers now.
    pub(crate) fn model(&self, name: &str, version: Option<&str>) -> Result<Arc<Model>, Error> {
        self.0.member(name, version)
    }

    /// A version that answers, loaded if it is a model that is loaded on first use. Cancel-safe.
    pub(crate) async fn awake(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<Arc<Model>, Error> {
        loop {
            let entry = self.0.catalogue.get(name)?;
            // The model is held before it is seen to be in use, so it is never both evicted and answering.
            let found = entry.model(version)?;
            entry.touch(self.0.age_ms());
            match found {
                Some(model) => return Ok(model),
                None => lifecycle::wake(&self.0, &entry).await?,
            }
        }
    }

    /// As [`Self::awake`], and for an ensemble its members as well, at any depth. All are held, so none makes room for
    /// another.
    async fn with_members(&self, name: &str, version: Option<&str>) -> Result<Found, Error> {
        let model = self.awake(name, version).await?;
        let mut members: Vec<Arc<Model>> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut open = vec![Arc::clone(&model)];
        while let Some(next) = open.pop() {
            let steps = next
                .ensemble()
                .into_iter()
                .flat_map(|ensemble| ensemble.members());
            for (member, version) in steps {
                if seen.insert((member.to_owned(), version.map(str::to_owned))) {
                    let member = self.awake(member, version).await?;
                    open.push(Arc::clone(&member));
                    members.push(member);
                }
            }
        }
        Ok(Found { model, members })
    }

    /// As [`Self::awake`], until the deadline.
    async fn find(
        &self,
        name: &str,
        version: Option<&str>,
        deadline: Deadline,
    ) -> Result<Found, Error> {
        let entry = self.0.catalogue.get(name)?;
        if !self.0.residency.tracks()
            && let Some(model) = entry.model(version)?
        {
            let members = Vec::new();
            return Ok(Found { model, members });
        }
        let left = deadline.left(self.0.tools.clock.now());
        // Not part of what waits for every other model.
        let found = Box::pin(self.with_members(name, version));
        let found = tokio::time::timeout(left, found).await;
        found.unwrap_or_else(|_| {
            Err(Error::Timeout {
                model: name.to_owned(),
                place: "while it was loaded, in front",
            })
        })
    }

    /// Only what the model is to blame for.
    fn judge(&self, model: &Arc<Model>, outcome: Result<&Timing, &Error>) {
        let ended = match outcome {
            Ok(timing) => Ended::Answered(timing.infer),
            Err(Error::Failed { .. }) => Ended::Failed,
            Err(Error::Engine(error)) if error.kind() != ErrorKind::Invalid => match error {
                EngineError::Stopped => return,
                _ => Ended::Failed,
            },
            Err(_) => return,
        };
        lifecycle::judge(&self.0, model, ended);
    }

    #[cfg(test)]
    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.0
    }

    fn place(&self, deadline: Deadline) -> Place<'_> {
        Place {
            runtime: &self.0,
            clock: &self.0.tools.clock,
            compute: &self.0.tools.compute,
            buffers: &self.0.buffers,
            deadline,
            own_task: false,
        }
    }
}

/// The version that the request's sequence began with, where it is not the one that serves now.
fn elder(model: &Model, request: &InferRequest) -> Option<Arc<Model>> {
    model.by_engine()?.elder(&request.parameters)
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
