mod infer;
mod region;
mod stream;

use base::ErrorKind;
use http::Version;
use http::request::Parts;
use prost::Message;
use protocol::ApiError;
use protocol::oip::grpc::{model_metadata, repository_index, server_metadata};
use protocol::oip::proto::{self, health};
use telemetry::Stage;

use super::health::is_ready;
use super::oip::index;
use super::path::{Device, RegionVerb};
use super::visit::Visit;
use super::{control, settings};
use crate::coding::Coding;
use crate::exchange::Exchange;
use crate::grpc::{answer as answer_message, coding, only_message};
use crate::operation::Operation;
use crate::read::Pieces;
use crate::reply::{Failure, Reply, Shape};
use crate::snapshot::Target;
use crate::upload::Upload;

const INFERENCE: &str = "inference.GRPCInferenceService";
const HEALTH: &str = "grpc.health.v1.Health";

/// The calls that are answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    ServerLive,
    ServerReady,
    HealthCheck,
    Region(Device, RegionVerb),
    Of(Operation),
}

pub(super) async fn answer(
    exchange: &mut Exchange,
    head: &Parts,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    exchange.operation = Operation::GrpcUnknown;
    if head.version != Version::HTTP_2 {
        return Err(ApiError::invalid("gRPC needs HTTP/2").into());
    }
    let method = method(head.uri.path())?;
    exchange.operation = match method {
        Method::ServerLive | Method::ServerReady | Method::HealthCheck => Operation::GrpcHealth,
        Method::Region(..) => Operation::GrpcSharedMemory,
        Method::Of(operation) => operation,
    };
    let snapshot = exchange.gateway.snapshot();
    let probe = exchange.operation == Operation::GrpcHealth;
    // Probes need no key: whoever restarts us has none.
    let mut visit = if probe {
        Visit {
            exchange,
            snapshot: &snapshot,
            key: None,
        }
    } else {
        Visit::enter(exchange, &snapshot, &head.headers)?
    };
    if method == Method::Of(Operation::GrpcStreamInfer) {
        return stream::answer(visit, &head.headers, body);
    }
    let coding = coding(&head.headers)?;
    let message = read(&mut visit, body, coding).await?;
    match method {
        Method::ServerLive => Ok(answer_message(&proto::ServerLiveResponse { live: true })),
        Method::ServerReady => {
            let ready = is_ready(visit.exchange, &snapshot);
            Ok(answer_message(&proto::ServerReadyResponse { ready }))
        }
        Method::HealthCheck => check(&visit, message),
        Method::Region(device, verb) => region::answer(&visit, (device, verb), message),
        Method::Of(Operation::GrpcInfer) => infer::answer(visit, message).await,
        Method::Of(Operation::GrpcRepositoryLoad) => {
            control::load_over_grpc(visit, decode(message)?).await
        }
        Method::Of(Operation::GrpcRepositoryUnload) => {
            control::unload_over_grpc(visit, decode(message)?).await
        }
        Method::Of(Operation::GrpcTraceSettings) => {
            settings::trace_over_grpc(&visit, decode(message)?)
        }
        Method::Of(Operation::GrpcLogSettings) => settings::log_over_grpc(&visit, decode(message)?),
        Method::Of(operation) => about(visit, operation, message),
    }
}

fn method(path: &str) -> Result<Method, ApiError> {
    let mut parts = path.splitn(3, '/').skip(1);
    let (service, name) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    Ok(match (service, name) {
        (INFERENCE, "ServerLive") => Method::ServerLive,
        (INFERENCE, "ServerReady") => Method::ServerReady,
        (HEALTH, "Check") => Method::HealthCheck,
        (INFERENCE, "ServerMetadata") => Method::Of(Operation::GrpcServerMetadata),
        (INFERENCE, "ModelReady") => Method::Of(Operation::GrpcModelReady),
        (INFERENCE, "ModelMetadata") => Method::Of(Operation::GrpcModelMetadata),
        (INFERENCE, "ModelConfig") => Method::Of(Operation::GrpcModelConfig),
        (INFERENCE, "ModelStatistics") => Method::Of(Operation::GrpcModelStatistics),
        (INFERENCE, "RepositoryIndex") => Method::Of(Operation::GrpcRepositoryIndex),
        (INFERENCE, "RepositoryModelLoad") => Method::Of(Operation::GrpcRepositoryLoad),
        (INFERENCE, "RepositoryModelUnload") => Method::Of(Operation::GrpcRepositoryUnload),
        (INFERENCE, "TraceSetting") => Method::Of(Operation::GrpcTraceSettings),
        (INFERENCE, "LogSettings") => Method::Of(Operation::GrpcLogSettings),
        (INFERENCE, "SystemSharedMemoryStatus") => {
            Method::Region(Device::System, RegionVerb::Status)
        }
        (INFERENCE, "SystemSharedMemoryRegister") => {
            Method::Region(Device::System, RegionVerb::Register)
        }
        (INFERENCE, "SystemSharedMemoryUnregister") => {
            Method::Region(Device::System, RegionVerb::Unregister)
        }
        (INFERENCE, "CudaSharedMemoryStatus") => Method::Region(Device::Cuda, RegionVerb::Status),
        (INFERENCE, "CudaSharedMemoryRegister") => {
            Method::Region(Device::Cuda, RegionVerb::Register)
        }
        (INFERENCE, "CudaSharedMemoryUnregister") => {
            Method::Region(Device::Cuda, RegionVerb::Unregister)
        }
        (INFERENCE, "ModelStreamInfer") => Method::Of(Operation::GrpcStreamInfer),
        (INFERENCE, "ModelInfer") => Method::Of(Operation::GrpcInfer),
        _ => {
            let message = format!("`{service}/{name}` is not supported by this server");
            return Err(ApiError::new(ErrorKind::Unsupported, message));
        }
    })
}

async fn read(
    visit: &mut Visit<'_>,
    body: &mut Upload,
    coding: Option<Coding>,
) -> Result<Pieces, Failure> {
    let bytes_max = visit.exchange.gateway.shared().config.body_bytes_max;
    let mut reader = visit.reader(body, Shape::Grpc)?;
    let reading = only_message(&mut reader, bytes_max, coding);
    let read = tokio::time::timeout(visit.exchange.time_left(), reading).await;
    let message = read.unwrap_or_else(|_elapsed| {
        let message = "the deadline passed before the request had arrived";
        Err(ApiError::new(ErrorKind::Timeout, message).into())
    })?;
    visit.exchange.mark(Stage::Read);
    visit.exchange.doing = Stage::Parse;
    Ok(message)
}

fn decode<M: Message + Default>(message: Pieces) -> Result<M, ApiError> {
    M::decode(message).map_err(|error| ApiError::invalid(format!("malformed message: {error}")))
}

fn none_if_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn check(visit: &Visit<'_>, message: Pieces) -> Result<Reply, Failure> {
    use health::health_check_response::ServingStatus;
    let request: health::HealthCheckRequest = decode(message)?;
    if !matches!(request.service.as_str(), "" | INFERENCE | HEALTH) {
        let message = format!("service `{}` is not known here", request.service);
        return Err(ApiError::new(ErrorKind::NotFound, message).into());
    }
    let status = if is_ready(visit.exchange, visit.snapshot) {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    Ok(answer_message(&health::HealthCheckResponse {
        status: status.into(),
    }))
}

/// Only this process answers over gRPC; a model on an upstream is reached over REST until the bridges come.
fn choose_local(visit: &mut Visit<'_>, model: &str) -> Result<(), Failure> {
    match visit.choose(model)? {
        Target::Local => Ok(()),
        Target::Upstream(upstream) => {
            let name = &upstream.name;
            let message = format!(
                "model `{model}` is on upstream `{name}`, which this server reaches over REST only; \
                 call `/v2/models/{model}/infer`"
            );
            Err(ApiError::new(ErrorKind::Unsupported, message).into())
        }
    }
}

fn about(mut visit: Visit<'_>, operation: Operation, message: Pieces) -> Result<Reply, Failure> {
    let gateway = visit.exchange.gateway.clone();
    let models = &gateway.shared().models;
    Ok(match operation {
        Operation::GrpcServerMetadata => answer_message(&server_metadata(gateway.shared().version)),
        Operation::GrpcRepositoryIndex => {
            let request: proto::RepositoryIndexRequest = decode(message)?;
            answer_message(&repository_index(index(&visit, request.ready)))
        }
        Operation::GrpcModelReady => {
            let request: proto::ModelReadyRequest = decode(message)?;
            let ready = choose_local(&mut visit, &request.name).and_then(|()| {
                Ok(models.model_ready(&request.name, none_if_empty(&request.version))?)
            });
            let ready = match ready {
                // Triton's answer here; over REST it is an error.
                Err(failure) if failure.error.kind == ErrorKind::NotFound => false,
                ready => ready?,
            };
            answer_message(&proto::ModelReadyResponse { ready })
        }
        Operation::GrpcModelMetadata => {
            let request: proto::ModelMetadataRequest = decode(message)?;
            choose_local(&mut visit, &request.name)?;
            let metadata = models.metadata(&request.name, none_if_empty(&request.version))?;
            answer_message(&model_metadata(metadata))
        }
        Operation::GrpcModelConfig => {
            let request: proto::ModelConfigRequest = decode(message)?;
            choose_local(&mut visit, &request.name)?;
            let config = models.config(&request.name, none_if_empty(&request.version))?;
            answer_message(&proto::ModelConfigResponse {
                config: Some(config),
            })
        }
        _ => {
            let request: proto::ModelStatisticsRequest = decode(message)?;
            let name = none_if_empty(&request.name);
            if let Some(name) = name {
                choose_local(&mut visit, name)?;
            }
            let mut statistics = models.statistics(name, none_if_empty(&request.version))?;
            statistics.retain(|model| visit.key.is_none_or(|key| key.sees(&model.name)));
            answer_message(&proto::ModelStatisticsResponse {
                model_stats: statistics,
            })
        }
    })
}
