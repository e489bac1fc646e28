mod bridged;
mod health;
mod infer;
mod open;
mod reflect;
mod region;
mod remote;
mod stream;

use base::ErrorKind;
use http::request::Parts;
use http::{HeaderMap, Version};
use prost::Message;
use protocol::ApiError;
use protocol::oip::grpc::{model_metadata, repository_index, server_metadata};
use protocol::oip::proto;
use telemetry::Stage;

use super::health::is_ready;
use super::oip::index;
use super::path::{Device, RegionVerb};
use super::visit::Visit;
use super::{control, settings};
use crate::coding::Coding;
use crate::exchange::Exchange;
use crate::grpc::{Received, answer as answer_message, coding, only_message, packed, packing};
use crate::operation::Operation;
use crate::read::Pieces;
use crate::reply::{Failure, Reply, Shape};
use crate::upload::Upload;
use remote::Place;

const INFERENCE: &str = "inference.GRPCInferenceService";
const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
/// What older clients ask, with the same messages.
const REFLECTION_ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

/// What is answered here.
const SERVICES: [&str; 4] = [INFERENCE, HEALTH, REFLECTION, REFLECTION_ALPHA];

/// The calls that are answered here.
#[derive(Debug, Clone, Copy)]
enum Method {
    StreamInfer,
    Reflect,
    WatchHealth,
    Unary(Unary),
}

/// Those of one message.
#[derive(Debug, Clone, Copy)]
enum Unary {
    ServerLive,
    ServerReady,
    HealthCheck,
    Region(Device, RegionVerb),
    Of(Operation),
}

pub(super) async fn answer(
    exchange: &mut Exchange,
    head: &mut Parts,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    exchange.operation = Operation::GrpcUnknown;
    if head.version != Version::HTTP_2 {
        return Err(ApiError::invalid("gRPC needs HTTP/2").into());
    }
    let method = method(head.uri.path())?;
    exchange.operation = operation(method);
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
    // Ten thousand calls may wait for their models at a time. What only some calls need, or only for a moment, is not part
    // of what waits.
    let call = match method {
        Method::StreamInfer => return Box::pin(stream::answer(visit, head, body)).await,
        Method::Reflect => return reflect::answer(visit, &head.headers, body),
        Method::WatchHealth => return health::watch(visit, &head.headers, body),
        Method::Unary(call) => call,
    };
    let coding = coding(&head.headers)?;
    let packing = packing(&head.headers, coding);
    let received = Box::pin(read(&mut visit, body, coding)).await?;
    let place = Box::pin(remote::place(&mut visit, call, &received.message)).await?;
    let reply = match place {
        Place::Upstream(upstream) if upstream.grpc.is_some() => {
            return Box::pin(remote::answer(visit, &upstream, head, received)).await;
        }
        Place::Upstream(upstream) => {
            Box::pin(bridged::answer(visit, &upstream, head, received)).await?
        }
        Place::Nowhere => answer_message(&proto::ModelReadyResponse { ready: false }),
        Place::Here => {
            // Nobody reads them again.
            head.headers = HeaderMap::new();
            Box::pin(answer_one(visit, call, received.message)).await?
        }
    };
    if packing.is_none() {
        return Ok(reply);
    }
    Ok(Box::pin(packed(reply, packing)).await)
}

async fn answer_one(visit: Visit<'_>, call: Unary, message: Pieces) -> Result<Reply, Failure> {
    match call {
        Unary::ServerLive => Ok(answer_message(&proto::ServerLiveResponse { live: true })),
        Unary::ServerReady => {
            let ready = is_ready(&visit.exchange.gateway, visit.snapshot);
            Ok(answer_message(&proto::ServerReadyResponse { ready }))
        }
        Unary::HealthCheck => health::check(&visit, message),
        Unary::Region(device, verb) => region::answer(&visit, (device, verb), message),
        Unary::Of(Operation::GrpcInfer) => infer::answer(visit, message).await,
        Unary::Of(Operation::GrpcRepositoryLoad) => {
            Box::pin(control::load_over_grpc(visit, decode(message)?)).await
        }
        Unary::Of(Operation::GrpcRepositoryUnload) => {
            Box::pin(control::unload_over_grpc(visit, decode(message)?)).await
        }
        Unary::Of(Operation::GrpcTraceSettings) => {
            settings::trace_over_grpc(&visit, decode(message)?)
        }
        Unary::Of(Operation::GrpcLogSettings) => settings::log_over_grpc(&visit, decode(message)?),
        Unary::Of(operation) => Box::pin(about(visit, operation, message)).await,
    }
}

fn operation(method: Method) -> Operation {
    match method {
        Method::StreamInfer => Operation::GrpcStreamInfer,
        Method::Reflect => Operation::GrpcReflection,
        Method::WatchHealth
        | Method::Unary(Unary::ServerLive | Unary::ServerReady | Unary::HealthCheck) => {
            Operation::GrpcHealth
        }
        Method::Unary(Unary::Region(..)) => Operation::GrpcSharedMemory,
        Method::Unary(Unary::Of(operation)) => operation,
    }
}

fn method(path: &str) -> Result<Method, ApiError> {
    let mut parts = path.splitn(3, '/').skip(1);
    let (service, name) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    Ok(match (service, name) {
        (INFERENCE, "ModelStreamInfer") => Method::StreamInfer,
        (REFLECTION | REFLECTION_ALPHA, "ServerReflectionInfo") => Method::Reflect,
        (HEALTH, "Watch") => Method::WatchHealth,
        _ => Method::Unary(unary(service, name)?),
    })
}

fn unary(service: &str, name: &str) -> Result<Unary, ApiError> {
    Ok(match (service, name) {
        (INFERENCE, "ServerLive") => Unary::ServerLive,
        (INFERENCE, "ServerReady") => Unary::ServerReady,
        (HEALTH, "Check") => Unary::HealthCheck,
        (INFERENCE, "ServerMetadata") => Unary::Of(Operation::GrpcServerMetadata),
        (INFERENCE, "ModelReady") => Unary::Of(Operation::GrpcModelReady),
        (INFERENCE, "ModelMetadata") => Unary::Of(Operation::GrpcModelMetadata),
        (INFERENCE, "ModelConfig") => Unary::Of(Operation::GrpcModelConfig),
        (INFERENCE, "ModelStatistics") => Unary::Of(Operation::GrpcModelStatistics),
        (INFERENCE, "RepositoryIndex") => Unary::Of(Operation::GrpcRepositoryIndex),
        (INFERENCE, "RepositoryModelLoad") => Unary::Of(Operation::GrpcRepositoryLoad),
        (INFERENCE, "RepositoryModelUnload") => Unary::Of(Operation::GrpcRepositoryUnload),
        (INFERENCE, "TraceSetting") => Unary::Of(Operation::GrpcTraceSettings),
        (INFERENCE, "LogSettings") => Unary::Of(Operation::GrpcLogSettings),
        (INFERENCE, "SystemSharedMemoryStatus") => {
            Unary::Region(Device::System, RegionVerb::Status)
        }
        (INFERENCE, "SystemSharedMemoryRegister") => {
            Unary::Region(Device::System, RegionVerb::Register)
        }
        (INFERENCE, "SystemSharedMemoryUnregister") => {
            Unary::Region(Device::System, RegionVerb::Unregister)
        }
        (INFERENCE, "CudaSharedMemoryStatus") => Unary::Region(Device::Cuda, RegionVerb::Status),
        (INFERENCE, "CudaSharedMemoryRegister") => {
            Unary::Region(Device::Cuda, RegionVerb::Register)
        }
        (INFERENCE, "CudaSharedMemoryUnregister") => {
            Unary::Region(Device::Cuda, RegionVerb::Unregister)
        }
        (INFERENCE, "ModelInfer") => Unary::Of(Operation::GrpcInfer),
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
) -> Result<Received, Failure> {
    let bytes_max = visit.exchange.gateway.shared().config.body_bytes_max;
    let mut reader = visit.reader(body, Shape::Grpc)?;
    let reading = only_message(&mut reader, bytes_max, coding);
    let due = visit.exchange.deadline.instant();
    let read = visit.exchange.alarm.within(due, reading).await;
    let message = read.unwrap_or_else(|| {
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

async fn about(
    mut visit: Visit<'_>,
    operation: Operation,
    message: Pieces,
) -> Result<Reply, Failure> {
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
            let ready = models.model_ready(&request.name, none_if_empty(&request.version));
            let ready = match ready {
                // Triton's answer here; over REST it is an error.
                Err(error) if error.kind == ErrorKind::NotFound => false,
                ready => ready?,
            };
            answer_message(&proto::ModelReadyResponse { ready })
        }
        Operation::GrpcModelMetadata => {
            let request: proto::ModelMetadataRequest = decode(message)?;
            let version = none_if_empty(&request.version);
            visit.wait(models.wake(&request.name, version)).await?;
            let metadata = models.metadata(&request.name, version)?;
            answer_message(&model_metadata(metadata))
        }
        Operation::GrpcModelConfig => {
            let request: proto::ModelConfigRequest = decode(message)?;
            let version = none_if_empty(&request.version);
            visit.wait(models.wake(&request.name, version)).await?;
            let config = models.config(&request.name, version)?;
            answer_message(&proto::ModelConfigResponse {
                config: Some(config),
            })
        }
        _ => {
            let request: proto::ModelStatisticsRequest = decode(message)?;
            let name = none_if_empty(&request.name);
            let mut statistics = models.statistics(name, none_if_empty(&request.version))?;
            statistics.retain(|model| visit.key.is_none_or(|key| key.sees(&model.name)));
            answer_message(&proto::ModelStatisticsResponse {
                model_stats: statistics,
            })
        }
    })
}
