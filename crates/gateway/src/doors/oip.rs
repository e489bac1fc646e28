mod bridged;
mod generate;
mod infer;
mod region;

use http::StatusCode;
use http::request::Parts;
use protocol::config;
use protocol::oip::repository;
use protocol::oip::rest;

use super::path::{Model, Oip};
use super::visit::Visit;
use super::{control, settings};
use crate::body::Payload;
use crate::operation::Operation;
use crate::relay::{Outgoing, relay};
use crate::reply::{Failure, JSON, Reply, Shape};
use crate::snapshot::Target;
use crate::upload::Upload;
use crate::upstream::{RequestBody, Via};

pub(super) async fn answer(
    mut visit: Visit<'_>,
    call: Oip,
    head: Box<Parts>,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    let shared = visit.exchange.gateway.shared();
    match call {
        Oip::Live => Ok(Reply::json(rest::live(true))),
        Oip::Server => Ok(Reply::json(rest::server_metadata(shared.version))),
        Oip::Index => {
            let body = visit.whole_body(body, Shape::Oip).await?;
            let ready_only = repository::index_ready(&body)?;
            Ok(Reply::json(rest::index(&index(&visit, ready_only))))
        }
        Oip::Load(change) => control::load_over_rest(visit, change, body).await,
        Oip::Unload(change) => control::unload_over_rest(visit, change, body).await,
        Oip::Trace(model) => settings::trace_over_rest(visit, model, &head, body).await,
        Oip::Logging => settings::log_over_rest(visit, &head, body).await,
        Oip::Statistics => {
            let mut statistics = shared.models.statistics(None, None)?;
            statistics.retain(|model| visit.key.is_none_or(|key| key.sees(&model.name)));
            Ok(Reply::json(rest::statistics(&statistics)))
        }
        Oip::Region(asked) => region::answer(visit, asked, body).await,
        Oip::Model(model) => {
            visit.admit(&model.name, None).await?;
            of_model(visit, &model, head, body).await
        }
    }
}

async fn of_model(
    mut visit: Visit<'_>,
    model: &Model,
    head: Box<Parts>,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    match visit.choose(&model.name).await? {
        Target::Local if model.operation == Operation::Infer => {
            infer::answer(visit, model, &head.headers, body).await
        }
        Target::Local
            if matches!(
                model.operation,
                Operation::Generate | Operation::GenerateStream
            ) =>
        {
            generate::answer(visit, model, &head.headers, body).await
        }
        Target::Local => about(visit, model).await,
        Target::Upstream(upstream) if !upstream.speaks_oip_rest() => {
            Box::pin(bridged::answer(
                visit,
                model,
                &head.headers,
                (body, &upstream),
            ))
            .await
        }
        Target::Upstream(upstream) => {
            let body = visit.whole_body(body, Shape::Oip).await?;
            let outgoing = Outgoing {
                ours_authorized: visit.ours_authorized(),
                head,
                body: RequestBody::Whole(body),
                via: Via::Http,
            };
            relay(visit.exchange, visit.snapshot, &upstream, outgoing).await
        }
    }
}

/// The repository index as this caller may see it.
pub(super) fn index(visit: &Visit<'_>, ready_only: bool) -> Vec<protocol::IndexEntry> {
    let mut index = visit.exchange.gateway.shared().models.index();
    index.retain(|entry| {
        (!ready_only || entry.state == protocol::ModelState::Ready)
            && visit.key.is_none_or(|key| key.sees(&entry.name))
    });
    index
}

async fn about(mut visit: Visit<'_>, model: &Model) -> Result<Reply, Failure> {
    let gateway = visit.exchange.gateway.clone();
    let models = &gateway.shared().models;
    let (name, version) = (model.name.as_str(), model.version.as_deref());
    let of_memory = [Operation::ModelReady, Operation::ModelStatistics];
    if !of_memory.contains(&model.operation) {
        visit.wait(models.wake(name, version)).await?;
    }
    Ok(match model.operation {
        Operation::ModelReady => {
            let ready = models.model_ready(name, version)?;
            // Triton's own code for a model that is known and not ready.
            let status = if ready {
                StatusCode::OK
            } else {
                StatusCode::BAD_REQUEST
            };
            let body = Payload::full(rest::model_ready(name, ready));
            Reply::new(status, JSON, body)
        }
        Operation::ModelConfig => Reply::json(config::to_json(&models.config(name, version)?)),
        Operation::ModelStatistics => {
            let statistics = models.statistics(Some(name), version)?;
            Reply::json(rest::statistics(&statistics))
        }
        _ => Reply::json(rest::metadata(&models.metadata(name, version)?)),
    })
}
