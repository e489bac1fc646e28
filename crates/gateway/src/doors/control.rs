//! Orders to the running server: who may give them, and what they do.

use base::ErrorKind;
use protocol::ApiError;
use protocol::model::LoadRequest;
use protocol::oip::proto::{
    RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse,
};
use protocol::oip::repository;
use protocol::resource::{ModelControl, Scope, SharedMemory};

use super::path::Change;
use super::visit::Visit;
use crate::grpc::answer;
use crate::reply::{Failure, Reply, Shape};
use crate::upload::Upload;

/// Triton's body is empty; some clients read JSON wherever the status is good.
const DONE: &[u8] = b"{}";

/// Whether this caller may load and unload models: a load brings files and configuration into the process.
fn may_change_models(visit: &Visit<'_>) -> Result<(), Failure> {
    refuse_pages(visit)?;
    let config = &visit.exchange.gateway.shared().config;
    match config.model_control {
        ModelControl::None | ModelControl::Poll => {
            // Triton says this in both modes, and its clients' tests look for it.
            let message = "explicit model load / unload is not allowed if polling is enabled";
            return Err(ApiError::new(ErrorKind::Unavailable, message).into());
        }
        ModelControl::Explicit => {}
        ModelControl::Auto => may_give_orders(visit, "modelControl: explicit")?,
    }
    Ok(())
}

/// A web page that somebody on this machine visits can send requests here, too, and without a key nothing else tells them
/// apart: browsers say where a POST comes from.
pub(super) fn refuse_pages(visit: &Visit<'_>) -> Result<(), Failure> {
    if visit.exchange.from_page && !visit.snapshot.keys.required() {
        let message = "a web page (`Origin`) may not give orders to a server without a `Key`";
        return Err(ApiError::new(ErrorKind::Denied, message).into());
    }
    Ok(())
}

/// Orders are taken from this machine, or from whoever has a key for everything.
pub(super) fn may_give_orders(visit: &Visit<'_>, unless: &str) -> Result<(), Failure> {
    let config = &visit.exchange.gateway.shared().config;
    if config.loopback || visit.snapshot.keys.required() {
        return Ok(());
    }
    let message = format!(
        "the public port is not loopback, and no `Key` guards it; add a `Key`, or set `{unless}` in the Node"
    );
    Err(ApiError::new(ErrorKind::Denied, message).into())
}

pub(super) async fn load_over_rest(
    mut visit: Visit<'_>,
    change: Change,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    may_change_models(&visit)?;
    repository::refuse_repository(&change.repository)?;
    let body = visit.whole_body(body, Shape::Oip).await?;
    let request = repository::load_from_json(&change.model, &body)?;
    load(&mut visit, request).await?;
    Ok(Reply::json(DONE))
}

pub(super) async fn load_over_grpc(
    mut visit: Visit<'_>,
    message: RepositoryModelLoadRequest,
) -> Result<Reply, Failure> {
    may_change_models(&visit)?;
    let request = repository::load_from_grpc(message)?;
    load(&mut visit, request).await?;
    Ok(answer(&RepositoryModelLoadResponse {}))
}

pub(super) async fn unload_over_rest(
    mut visit: Visit<'_>,
    change: Change,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    may_change_models(&visit)?;
    repository::refuse_repository(&change.repository)?;
    let body = visit.whole_body(body, Shape::Oip).await?;
    let dependents = repository::unload_from_json(&body)?;
    unload(&mut visit, &change.model, dependents).await?;
    Ok(Reply::json(DONE))
}

pub(super) async fn unload_over_grpc(
    mut visit: Visit<'_>,
    message: RepositoryModelUnloadRequest,
) -> Result<Reply, Failure> {
    may_change_models(&visit)?;
    let (model, dependents) = repository::unload_from_grpc(message)?;
    unload(&mut visit, &model, dependents).await?;
    Ok(answer(&RepositoryModelUnloadResponse {}))
}

async fn load(visit: &mut Visit<'_>, request: LoadRequest) -> Result<(), Failure> {
    request.model.clone_into(&mut visit.exchange.model);
    let gateway = visit.exchange.gateway.clone();
    visit.wait(gateway.shared().models.load(request)).await
}

async fn unload(visit: &mut Visit<'_>, model: &str, dependents: bool) -> Result<(), Failure> {
    model.clone_into(&mut visit.exchange.model);
    let gateway = visit.exchange.gateway.clone();
    visit
        .wait(gateway.shared().models.unload(model, dependents))
        .await
}

/// An operator's order, on the operators' port: what decides about loads has no say.
pub(super) async fn roll_back(mut visit: Visit<'_>, model: &str) -> Result<Reply, Failure> {
    refuse_pages(&visit)?;
    if let Some(key) = visit.key {
        key.opens(Scope::Orders)?;
    }
    let config = &visit.exchange.gateway.shared().config;
    if !config.admin_loopback && !visit.snapshot.keys.required() {
        let message = "the admin port is not loopback, and no `Key` guards it; add a `Key`, or set `admin` in the Node";
        return Err(ApiError::new(ErrorKind::Denied, message).into());
    }
    model.clone_into(&mut visit.exchange.model);
    let gateway = visit.exchange.gateway.clone();
    visit.wait(gateway.shared().models.roll_back(model)).await?;
    Ok(Reply::json(DONE))
}

/// Whether this caller may name shared memory objects of this machine.
pub(super) fn may_share_memory(visit: &Visit<'_>) -> Result<(), Failure> {
    may_see_regions(visit)?;
    match visit.exchange.gateway.shared().config.shared_memory {
        SharedMemory::On => Ok(()),
        SharedMemory::Auto => may_give_orders(visit, "sharedMemory: on"),
        SharedMemory::Off => {
            let message = "shared memory is switched off here: `sharedMemory` of the Node is `off`";
            Err(ApiError::new(ErrorKind::Denied, message).into())
        }
    }
}

pub(super) fn may_see_regions(visit: &Visit<'_>) -> Result<(), Failure> {
    refuse_pages(visit)
}

/// What a Triton without a GPU says to a region that nobody could have registered.
pub(super) fn cuda_status(visit: &Visit<'_>, name: &str) -> Result<(), ApiError> {
    if name.is_empty() {
        return Ok(());
    }
    let shown = protocol::shown::name(name);
    let message = if visit.exchange.gateway.shared().regions.has(name) {
        format!(
            "The region named '{shown}' is registered as system shared memory, not CUDA shared memory"
        )
    } else {
        format!("Unable to find cuda shared memory region: '{shown}'")
    };
    Err(ApiError::new(ErrorKind::NotFound, message))
}

pub(super) fn no_cuda(name: &str) -> ApiError {
    let name = protocol::shown::name(name);
    let message =
        format!("failed to register CUDA shared memory region: '{name}', GPUs not supported");
    ApiError::invalid(message).with_param("name")
}
