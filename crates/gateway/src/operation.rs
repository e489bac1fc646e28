use protocol::resource::Scope;

use crate::metrics::Task;
use crate::upstream::Wire;

/// What a request asks for: a closed set, so that it can be a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Operation {
    Unknown,
    Health,
    Metrics,
    OpenApi,
    Admin,
    Jobs,
    ChatCompletions,
    Completions,
    Embeddings,
    OpenAiModels,
    Responses,
    /// Any other POST below `/v1` that names a model.
    OpenAiOther,
    /// What an upstream keeps (files, batches, earlier responses): the path says where it is.
    OpenAiStored,
    Messages,
    CountTokens,
    AnthropicStored,
    ServerMetadata,
    ModelMetadata,
    ModelReady,
    ModelConfig,
    ModelStatistics,
    RepositoryIndex,
    RepositoryLoad,
    RepositoryUnload,
    TraceSettings,
    LogSettings,
    SharedMemory,
    Infer,
    Generate,
    GenerateStream,
    GrpcUnknown,
    GrpcHealth,
    GrpcServerMetadata,
    GrpcModelMetadata,
    GrpcModelReady,
    GrpcModelConfig,
    GrpcModelStatistics,
    GrpcRepositoryIndex,
    GrpcRepositoryLoad,
    GrpcRepositoryUnload,
    GrpcTraceSettings,
    GrpcLogSettings,
    GrpcSharedMemory,
    GrpcInfer,
    GrpcStreamInfer,
    GrpcReflection,
}

impl Operation {
    pub(crate) const COUNT: usize = Self::GrpcReflection as usize + 1;

    /// The door and the call.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Health => "health",
            Self::Metrics => "metrics",
            Self::OpenApi => "openapi",
            Self::Admin => "admin",
            Self::Jobs => "jobs",
            Self::ChatCompletions => "openai chat.completions",
            Self::Completions => "openai completions",
            Self::Embeddings => "openai embeddings",
            Self::OpenAiModels => "openai models",
            Self::Responses => "openai responses",
            Self::OpenAiOther => "openai other",
            Self::OpenAiStored => "openai stored",
            Self::Messages => "anthropic messages",
            Self::CountTokens => "anthropic count_tokens",
            Self::AnthropicStored => "anthropic stored",
            Self::ServerMetadata => "oip server.metadata",
            Self::ModelMetadata => "oip model.metadata",
            Self::ModelReady => "oip model.ready",
            Self::ModelConfig => "oip model.config",
            Self::ModelStatistics => "oip model.statistics",
            Self::RepositoryIndex => "oip repository.index",
            Self::RepositoryLoad => "oip repository.load",
            Self::RepositoryUnload => "oip repository.unload",
            Self::TraceSettings => "oip trace.settings",
            Self::LogSettings => "oip log.settings",
            Self::SharedMemory => "oip shared memory",
            Self::Infer => "oip infer",
            Self::Generate => "oip generate",
            Self::GenerateStream => "oip generate_stream",
            Self::GrpcUnknown => "grpc unknown",
            Self::GrpcHealth => "grpc health",
            Self::GrpcServerMetadata => "grpc server.metadata",
            Self::GrpcModelMetadata => "grpc model.metadata",
            Self::GrpcModelReady => "grpc model.ready",
            Self::GrpcModelConfig => "grpc model.config",
            Self::GrpcModelStatistics => "grpc model.statistics",
            Self::GrpcRepositoryIndex => "grpc repository.index",
            Self::GrpcRepositoryLoad => "grpc repository.load",
            Self::GrpcRepositoryUnload => "grpc repository.unload",
            Self::GrpcTraceSettings => "grpc trace.settings",
            Self::GrpcLogSettings => "grpc log.settings",
            Self::GrpcSharedMemory => "grpc shared memory",
            Self::GrpcInfer => "grpc infer",
            Self::GrpcStreamInfer => "grpc stream.infer",
            Self::GrpcReflection => "grpc reflection",
        }
    }

    /// What a generative model is asked to do; none if nobody asks one.
    pub(crate) fn task(self) -> Option<Task> {
        match self {
            Self::ChatCompletions | Self::Responses | Self::Messages => Some(Task::Chat),
            Self::Completions | Self::Generate | Self::GenerateStream => Some(Task::TextCompletion),
            Self::Embeddings => Some(Task::Embeddings),
            _ => None,
        }
    }

    /// The method that it usually comes with, and its path, names in the places of values. Empty where there are several.
    pub(crate) fn route(self) -> (&'static str, &'static str) {
        match self {
            Self::Metrics => ("GET", "/metrics"),
            Self::OpenApi => ("GET", "/openapi.json"),
            Self::ChatCompletions => ("POST", "/v1/chat/completions"),
            Self::Completions => ("POST", "/v1/completions"),
            Self::Embeddings => ("POST", "/v1/embeddings"),
            Self::Responses => ("POST", "/v1/responses"),
            Self::Messages => ("POST", "/v1/messages"),
            Self::CountTokens => ("POST", "/v1/messages/count_tokens"),
            Self::ServerMetadata => ("GET", "/v2"),
            Self::ModelMetadata => ("GET", "/v2/models/{model}"),
            Self::ModelReady => ("GET", "/v2/models/{model}/ready"),
            Self::ModelConfig => ("GET", "/v2/models/{model}/config"),
            Self::ModelStatistics => ("GET", "/v2/models/{model}/stats"),
            Self::RepositoryIndex => ("POST", "/v2/repository/index"),
            Self::RepositoryLoad => ("POST", "/v2/repository/models/{model}/load"),
            Self::RepositoryUnload => ("POST", "/v2/repository/models/{model}/unload"),
            Self::Infer => ("POST", "/v2/models/{model}/infer"),
            Self::Generate => ("POST", "/v2/models/{model}/generate"),
            Self::GenerateStream => ("POST", "/v2/models/{model}/generate_stream"),
            Self::GrpcHealth => ("POST", "/grpc.health.v1.Health/Check"),
            Self::GrpcServerMetadata => ("POST", "/inference.GRPCInferenceService/ServerMetadata"),
            Self::GrpcModelMetadata => ("POST", "/inference.GRPCInferenceService/ModelMetadata"),
            Self::GrpcModelReady => ("POST", "/inference.GRPCInferenceService/ModelReady"),
            Self::GrpcModelConfig => ("POST", "/inference.GRPCInferenceService/ModelConfig"),
            Self::GrpcModelStatistics => {
                ("POST", "/inference.GRPCInferenceService/ModelStatistics")
            }
            Self::GrpcInfer => ("POST", "/inference.GRPCInferenceService/ModelInfer"),
            Self::GrpcStreamInfer => ("POST", "/inference.GRPCInferenceService/ModelStreamInfer"),
            _ => ("", ""),
        }
    }

    /// Probes and scrapes are counted but not remembered: they would push out what `kapok explain` is asked about.
    pub(crate) fn remembered(self) -> bool {
        !matches!(
            self,
            Self::Health | Self::GrpcHealth | Self::Metrics | Self::Admin | Self::Jobs
        )
    }

    /// Whether a gRPC message asks about one model, by its first field.
    pub(crate) fn names_a_model(self) -> bool {
        matches!(
            self,
            Self::GrpcModelMetadata
                | Self::GrpcModelReady
                | Self::GrpcModelConfig
                | Self::GrpcModelStatistics
                | Self::GrpcInfer
                | Self::GrpcStreamInfer
        )
    }

    /// Whether it names no model, so that its path decides.
    pub(crate) fn is_stored(self) -> bool {
        matches!(self, Self::OpenAiStored | Self::AnthropicStored)
    }

    /// Whether it only computes: asked twice, nothing is there twice.
    pub(crate) fn is_inference(self) -> bool {
        matches!(
            self,
            Self::ChatCompletions
                | Self::Completions
                | Self::Embeddings
                | Self::Messages
                | Self::CountTokens
                | Self::Infer
                | Self::Generate
                | Self::GenerateStream
                | Self::GrpcInfer
        )
    }

    /// What a key must open for it. None is for any key.
    pub(crate) fn scope(self) -> Option<Scope> {
        Some(match self {
            Self::Unknown | Self::Health | Self::OpenApi | Self::GrpcUnknown | Self::GrpcHealth => {
                return None;
            }
            Self::Metrics => Scope::Metrics,
            Self::Admin => Scope::Admin,
            Self::Jobs => Scope::Jobs,
            Self::ChatCompletions
            | Self::Completions
            | Self::Embeddings
            | Self::Responses
            | Self::OpenAiOther
            | Self::OpenAiStored
            | Self::Messages
            | Self::CountTokens
            | Self::AnthropicStored
            | Self::Infer
            | Self::Generate
            | Self::GenerateStream
            | Self::GrpcInfer
            | Self::GrpcStreamInfer => Scope::Inference,
            Self::OpenAiModels
            | Self::ServerMetadata
            | Self::ModelMetadata
            | Self::ModelReady
            | Self::ModelConfig
            | Self::ModelStatistics
            | Self::RepositoryIndex
            | Self::GrpcServerMetadata
            | Self::GrpcModelMetadata
            | Self::GrpcModelReady
            | Self::GrpcModelConfig
            | Self::GrpcModelStatistics
            | Self::GrpcRepositoryIndex
            | Self::GrpcReflection => Scope::Models,
            Self::RepositoryLoad
            | Self::RepositoryUnload
            | Self::TraceSettings
            | Self::LogSettings
            | Self::SharedMemory
            | Self::GrpcRepositoryLoad
            | Self::GrpcRepositoryUnload
            | Self::GrpcTraceSettings
            | Self::GrpcLogSettings
            | Self::GrpcSharedMemory => Scope::Orders,
        })
    }

    /// The protocol whose upstreams can serve it.
    pub(crate) fn wire(self) -> Wire {
        match self {
            Self::ChatCompletions
            | Self::Completions
            | Self::Embeddings
            | Self::OpenAiModels
            | Self::Responses
            | Self::OpenAiOther
            | Self::OpenAiStored => Wire::OpenAi,
            Self::Messages | Self::CountTokens | Self::AnthropicStored => Wire::Anthropic,
            _ => Wire::Oip,
        }
    }
}
