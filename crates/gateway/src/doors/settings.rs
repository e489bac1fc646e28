//! What is logged and traced, read and changed while the node runs.

use base::ErrorKind;
use http::Method;
use http::request::Parts;
use protocol::ApiError;
use protocol::oip::proto::{LogSettingsRequest, TraceSettingRequest};
use protocol::oip::settings::{LogChange, TraceChange, TraceSettings};
use protocol::resource::SettingsControl;

use super::control::{may_give_orders, refuse_pages};
use super::visit::Visit;
use crate::grpc::answer;
use crate::reply::{Failure, Reply, Shape};
use crate::upload::Upload;

pub(super) async fn trace_over_rest(
    mut visit: Visit<'_>,
    model: Option<String>,
    head: &Parts,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    let model = model.as_deref();
    known(&visit, model)?;
    let settings = if head.method == Method::POST {
        may_change(&visit)?;
        let body = visit.whole_body(body, Shape::Oip).await?;
        change_trace(&visit, model, TraceChange::from_json(&body)?)?
    } else {
        visit.exchange.gateway.shared().tracer.settings(model)
    };
    Ok(Reply::json(settings.to_json()))
}

pub(super) fn trace_over_grpc(
    visit: &Visit<'_>,
    message: TraceSettingRequest,
) -> Result<Reply, Failure> {
    let model = message.model_name.clone();
    let model = (!model.is_empty()).then_some(model.as_str());
    known(visit, model)?;
    let settings = if message.settings.is_empty() {
        visit.exchange.gateway.shared().tracer.settings(model)
    } else {
        may_change(visit)?;
        change_trace(visit, model, TraceChange::from_grpc(message)?)?
    };
    Ok(answer(&settings.to_grpc()))
}

pub(super) async fn log_over_rest(
    mut visit: Visit<'_>,
    head: &Parts,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    let logs = visit.exchange.gateway.shared().logs.clone();
    let settings = if head.method == Method::POST {
        may_change(&visit)?;
        let body = visit.whole_body(body, Shape::Oip).await?;
        logs.change(&LogChange::from_json(&body)?)
    } else {
        logs.settings()
    };
    Ok(Reply::json(settings.to_json()))
}

pub(super) fn log_over_grpc(
    visit: &Visit<'_>,
    message: LogSettingsRequest,
) -> Result<Reply, Failure> {
    let logs = &visit.exchange.gateway.shared().logs;
    let settings = if message.settings.is_empty() {
        logs.settings()
    } else {
        may_change(visit)?;
        logs.change(&LogChange::from_grpc(message)?)
    };
    Ok(answer(&settings.to_grpc()))
}

fn may_change(visit: &Visit<'_>) -> Result<(), Failure> {
    refuse_pages(visit)?;
    match visit.exchange.gateway.shared().config.settings_control {
        SettingsControl::Auto => may_give_orders(visit, "settingsControl: on"),
        SettingsControl::On => Ok(()),
        SettingsControl::Off => {
            let message = "changing settings is switched off by `settingsControl` of the Node";
            Err(ApiError::new(ErrorKind::Denied, message).into())
        }
    }
}

/// Triton's words, over REST and gRPC alike.
fn known(visit: &Visit<'_>, model: Option<&str>) -> Result<(), ApiError> {
    let Some(model) = model else { return Ok(()) };
    if visit.exchange.gateway.shared().models.has(model) {
        return Ok(());
    }
    let model = protocol::shown::name(model);
    Err(ApiError::invalid(format!("Request for unknown model : {model}")).with_param("model"))
}

fn change_trace(
    visit: &Visit<'_>,
    model: Option<&str>,
    change: TraceChange,
) -> Result<TraceSettings, ApiError> {
    let tracer = &visit.exchange.gateway.shared().tracer;
    tracer
        .change(model, change)
        .map_err(|unusable| ApiError::invalid(unusable.to_string()))
}
