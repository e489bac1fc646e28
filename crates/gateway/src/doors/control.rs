//! Orders to the running server: who may give them, and what they do.

use base::ErrorKind;
use protocol::ApiError;
use protocol::model::LoadRequest;
use protocol::resource::ModelControl;

use super::visit::Visit;
use crate::reply::Failure;

/// Whether this caller may load and unload models: a load brings files and configuration into the process.
pub(super) fn may_change_models(visit: &Visit<'_>) -> Result<(), Failure> {
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
    if let Some(key) = visit.key {
        key.may_administer()?;
    }
    Ok(())
}

/// Orders are taken from this machine, or from whoever has a key for everything.
fn may_give_orders(visit: &Visit<'_>, unless: &str) -> Result<(), Failure> {
    let config = &visit.exchange.gateway.shared().config;
    if config.loopback || visit.snapshot.keys.required() {
        return Ok(());
    }
    let message = format!(
        "the public port is not loopback, and no `Key` guards it; add a `Key`, or set `{unless}` in the Node"
    );
    Err(ApiError::new(ErrorKind::Denied, message).into())
}

pub(super) async fn load(visit: &mut Visit<'_>, request: LoadRequest) -> Result<(), Failure> {
    request.model.clone_into(&mut visit.exchange.model);
    let gateway = visit.exchange.gateway.clone();
    visit.wait(gateway.shared().models.load(request)).await
}

pub(super) async fn unload(
    visit: &mut Visit<'_>,
    model: &str,
    dependents: bool,
) -> Result<(), Failure> {
    model.clone_into(&mut visit.exchange.model);
    let gateway = visit.exchange.gateway.clone();
    visit
        .wait(gateway.shared().models.unload(model, dependents))
        .await
}
