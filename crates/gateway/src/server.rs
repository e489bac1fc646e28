//! What the gateway needs from whoever runs models, and jobs, in this process. `kapok` adapts `runtime` to it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use base::Deadline;
use bytes::Bytes;
use protocol::embed::{EmbedRequest, Embeddings};
use protocol::model::{IndexEntry, LoadRequest, ModelDescription, ModelMetadata, ModelTraits};
use protocol::oip::proto::{ModelConfig, ModelStatistics};
use protocol::resource::{Job, JobState, Submission};
use protocol::{ApiError, InferRequest, InferResponse, StreamedResponse, Timing};

pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send + 'a>>;

/// The answers to one call. Dropping it cancels what is left of the call.
pub trait ModelStream: Send {
    /// The next answer; none at the end. An error ends the stream.
    fn next(&mut self) -> Answer<'_, Option<StreamedResponse>>;
}

/// Models in this process. Dropping a returned future cancels the call: its place in the queue and its lane are freed.
pub trait ModelServer: Send + Sync + fmt::Debug + 'static {
    /// Whether a model of this name is in the repository, ready or not.
    fn has(&self, model: &str) -> bool;

    /// Whether the model (this version, or any) answers requests, if need be after loading; unknown models are an error.
    fn model_ready(&self, model: &str, version: Option<&str>) -> Result<bool, ApiError>;

    /// Whether every model that should be loaded is.
    fn ready(&self) -> bool;

    /// Brings a model into memory that is loaded on first use, so that what is asked about it can be told; at once for all
    /// others. An error only where there is no room.
    fn wake<'a>(&'a self, model: &'a str, version: Option<&'a str>) -> Answer<'a, ()>;

    fn metadata(&self, model: &str, version: Option<&str>) -> Result<ModelMetadata, ApiError>;

    /// For every request; the configuration is for whoever asks for it.
    fn traits(&self, model: &str, version: Option<&str>) -> Result<ModelTraits, ApiError>;

    /// The merged configuration, as Triton's `ModelConfig`.
    fn config(&self, model: &str, version: Option<&str>) -> Result<ModelConfig, ApiError>;

    /// Every version known, ready or not, by name and version.
    fn index(&self) -> Vec<IndexEntry>;

    /// Counters since start; one entry per version, or only those of `model`.
    fn statistics(
        &self,
        model: Option<&str>,
        version: Option<&str>,
    ) -> Result<Vec<ModelStatistics>, ApiError>;

    fn infer(
        &self,
        request: InferRequest,
        deadline: Deadline,
    ) -> Answer<'_, (InferResponse, Timing)>;

    /// One call, any number of answers: exactly one unless the model is decoupled.
    fn stream(&self, request: InferRequest, deadline: Deadline)
    -> Answer<'_, Box<dyn ModelStream>>;

    /// Loads a model, or loads it anew; what served before serves until the new one is ready. Resolves when it is, or
    /// with the reason why not. A dropped future does not undo the load.
    fn load(&self, request: LoadRequest) -> Answer<'_, ()>;

    /// Takes a model out of service; requests in flight are answered. `dependents`: for an ensemble, the models that it
    /// is made of, too.
    fn unload(&self, model: &str, dependents: bool) -> Answer<'_, ()>;

    /// Back to the version that served before, which is warm while the node keeps it; a conflict if there is none.
    fn roll_back(&self, model: &str) -> Answer<'_, ()>;

    /// Whether the model takes text (`/v1/embeddings`).
    fn embeds(&self, model: &str) -> bool;

    fn embed(&self, request: EmbedRequest, deadline: Deadline) -> Answer<'_, (Embeddings, Timing)>;

    /// Engine choices and their figures, for operators.
    fn describe(&self) -> Vec<ModelDescription>;
}

/// Which jobs are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobQuery {
    pub state: Option<JobState>,
    pub tenant: Option<String>,
    pub limit: usize,
}

/// Jobs of this node.
pub trait JobServer: Send + Sync + fmt::Debug + 'static {
    fn submit(&self, submission: Submission) -> Answer<'_, Job>;

    /// What would become of it; nothing is submitted.
    fn check(&self, submission: Submission) -> Answer<'_, serde_json::Value>;

    /// Newest first.
    fn list(&self, query: JobQuery) -> Answer<'_, Vec<Job>>;

    /// At once, or when it has ended or `wait` is over.
    fn get<'a>(&'a self, id: &'a str, wait: Option<Duration>) -> Answer<'a, Job>;

    fn cancel<'a>(&'a self, id: &'a str) -> Answer<'a, Job>;

    fn explain<'a>(&'a self, id: &'a str) -> Answer<'a, serde_json::Value>;

    /// What it printed: the last `tail` lines of it, or all; with `follow` also what it prints from now on.
    fn logs<'a>(
        &'a self,
        id: &'a str,
        tail: Option<usize>,
        follow: bool,
    ) -> Answer<'a, Box<dyn JobLog>>;

    fn nodes(&self) -> Answer<'_, serde_json::Value>;
}

/// What a job prints. Dropping it stops it.
pub trait JobLog: Send {
    /// The next piece; none at the end.
    fn next(&mut self) -> Answer<'_, Option<Bytes>>;
}
