use base::Deadline;
use gateway::server::{Answer, ModelServer, ModelStream};
use protocol::embed::{EmbedRequest, Embeddings};
use protocol::model::{IndexEntry, LoadRequest, ModelDescription, ModelMetadata};
use protocol::oip::proto::{ModelConfig, ModelStatistics};
use protocol::{ApiError, InferRequest, InferResponse, StreamedResponse, Timing};
use runtime::{Responses, Runtime};

/// The models in this process, as the gateway wants them: the two rooms do not know each other.
#[derive(Debug)]
pub(super) struct LocalModels(pub(super) Runtime);

impl ModelServer for LocalModels {
    fn has(&self, model: &str) -> bool {
        self.0.has(model)
    }

    fn model_ready(&self, model: &str, version: Option<&str>) -> Result<bool, ApiError> {
        self.0.model_ready(model, version)
    }

    fn ready(&self) -> bool {
        self.0.ready()
    }

    fn metadata(&self, model: &str, version: Option<&str>) -> Result<ModelMetadata, ApiError> {
        self.0.metadata(model, version)
    }

    fn config(&self, model: &str, version: Option<&str>) -> Result<ModelConfig, ApiError> {
        self.0.config(model, version)
    }

    fn index(&self) -> Vec<IndexEntry> {
        self.0.index()
    }

    fn statistics(
        &self,
        model: Option<&str>,
        version: Option<&str>,
    ) -> Result<Vec<ModelStatistics>, ApiError> {
        self.0.statistics(model, version)
    }

    fn infer(
        &self,
        request: InferRequest,
        deadline: Deadline,
    ) -> Answer<'_, (InferResponse, Timing)> {
        Box::pin(self.0.infer(request, deadline))
    }

    fn stream(
        &self,
        request: InferRequest,
        deadline: Deadline,
    ) -> Answer<'_, Box<dyn ModelStream>> {
        Box::pin(async move {
            let stream = self.0.stream(request, deadline).await?;
            Ok(Box::new(LocalStream(stream)) as Box<dyn ModelStream>)
        })
    }

    fn load(&self, request: LoadRequest) -> Answer<'_, ()> {
        Box::pin(self.0.load(request))
    }

    fn unload(&self, model: &str, dependents: bool) -> Answer<'_, ()> {
        let model = model.to_owned();
        Box::pin(async move { self.0.unload(&model, dependents).await })
    }

    fn embeds(&self, model: &str) -> bool {
        self.0.embeds(model)
    }

    fn embed(&self, request: EmbedRequest, deadline: Deadline) -> Answer<'_, (Embeddings, Timing)> {
        Box::pin(self.0.embed(request, deadline))
    }

    fn describe(&self) -> Vec<ModelDescription> {
        self.0.describe()
    }
}

struct LocalStream(Responses);

impl ModelStream for LocalStream {
    fn next(&mut self) -> Answer<'_, Option<StreamedResponse>> {
        Box::pin(self.0.next())
    }
}
