use base::Deadline;
use gateway::server::{Answer, ModelServer, ModelStream};
use protocol::embed::{EmbedRequest, Embeddings};
use protocol::model::{IndexEntry, LoadRequest, ModelDescription, ModelMetadata, ModelTraits};
use protocol::oip::proto::{ModelConfig, ModelStatistics};
use protocol::{ApiError, InferRequest, InferResponse, StreamedResponse, Timing};
use runtime::{Responses, Runtime};

use super::gpus::Gpus;

/// The models in this process, as the gateway wants them: the two rooms do not know each other.
#[derive(Debug)]
pub(super) struct LocalModels {
    pub(super) models: Runtime,
    pub(super) gpus: Gpus,
}

impl ModelServer for LocalModels {
    fn has(&self, model: &str) -> bool {
        self.models.has(model)
    }

    fn model_ready(&self, model: &str, version: Option<&str>) -> Result<bool, ApiError> {
        self.models.model_ready(model, version)
    }

    fn ready(&self) -> bool {
        self.models.ready() && self.gpus.ready()
    }

    fn wake<'a>(&'a self, model: &'a str, version: Option<&'a str>) -> Answer<'a, ()> {
        Box::pin(self.models.wake(model, version))
    }

    fn metadata(&self, model: &str, version: Option<&str>) -> Result<ModelMetadata, ApiError> {
        self.models.metadata(model, version)
    }

    fn traits(&self, model: &str, version: Option<&str>) -> Result<ModelTraits, ApiError> {
        self.models.traits(model, version)
    }

    fn config(&self, model: &str, version: Option<&str>) -> Result<ModelConfig, ApiError> {
        self.models.config(model, version)
    }

    fn index(&self) -> Vec<IndexEntry> {
        self.models.index()
    }

    fn statistics(
        &self,
        model: Option<&str>,
        version: Option<&str>,
    ) -> Result<Vec<ModelStatistics>, ApiError> {
        self.models.statistics(model, version)
    }

    fn infer(
        &self,
        request: InferRequest,
        deadline: Deadline,
    ) -> Answer<'_, (InferResponse, Timing)> {
        Box::pin(self.models.infer(request, deadline))
    }

    fn stream(
        &self,
        request: InferRequest,
        deadline: Deadline,
    ) -> Answer<'_, Box<dyn ModelStream>> {
        Box::pin(async move {
            let stream = self.models.stream(request, deadline).await?;
            Ok(Box::new(LocalStream(stream)) as Box<dyn ModelStream>)
        })
    }

    fn load(&self, request: LoadRequest) -> Answer<'_, ()> {
        Box::pin(self.models.load(request))
    }

    fn unload(&self, model: &str, dependents: bool) -> Answer<'_, ()> {
        let model = model.to_owned();
        Box::pin(async move { self.models.unload(&model, dependents).await })
    }

    fn roll_back(&self, model: &str) -> Answer<'_, ()> {
        let model = model.to_owned();
        Box::pin(async move { self.models.roll_back(&model).await })
    }

    fn embeds(&self, model: &str) -> bool {
        self.models.embeds(model)
    }

    fn embed(&self, request: EmbedRequest, deadline: Deadline) -> Answer<'_, (Embeddings, Timing)> {
        Box::pin(self.models.embed(request, deadline))
    }

    fn describe(&self) -> Vec<ModelDescription> {
        self.models.describe()
    }
}

struct LocalStream(Responses);

impl ModelStream for LocalStream {
    fn next(&mut self) -> Answer<'_, Option<StreamedResponse>> {
        Box::pin(self.0.next())
    }
}
