mod embed;
mod list;
mod passing;

use std::sync::Arc;

use base::ErrorKind;
use http::StatusCode;
use http::request::Parts;
use protocol::ApiError;
use protocol::openai::{self, ModelEntry};
use protocol::resource::Scope;

use super::path::{self, OpenAi};
use super::refuse_packed;
use super::visit::Visit;
use crate::operation::Operation;
use crate::relay::{Outgoing, relay};
use crate::reply::{Failure, Reply};
use crate::snapshot::Target;
use crate::upload::Upload;
use crate::upstream::{RequestBody, Upstream, Via};

pub(super) async fn answer(
    mut visit: Visit<'_>,
    call: OpenAi,
    head: Parts,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    match call {
        OpenAi::List => {
            let entries: Vec<ModelEntry> = list::entries(&mut visit).await.into_values().collect();
            Ok(Reply::json(openai::models(&entries)))
        }
        OpenAi::Get(id) => {
            let entry = list::entries(&mut visit).await.remove(&id).ok_or_else(|| {
                let message = format!("the model `{id}` does not exist here");
                ApiError::new(ErrorKind::NotFound, message)
                    .with_code("model_not_found")
                    .with_param("model")
            })?;
            Ok(Reply::json(openai::model(&entry)))
        }
        OpenAi::Post(operation) => post(visit, operation, head, body).await,
        OpenAi::Stored(_) => stored(visit, head, body).await,
    }
}

async fn post(
    mut visit: Visit<'_>,
    operation: Operation,
    mut head: Parts,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    refuse_packed(&head)?;
    if let Some(key) = visit.key
        && operation == Operation::OpenAiOther
        && !path::asks_a_model(head.uri.path())
    {
        // It is relayed with our credentials, and may load, unload or list what an upstream has.
        key.opens(Scope::Orders)?;
    }
    if let Some(scan) = passing::form(&head)? {
        let (model, body) = passing::model_of_form(&mut visit, &head, body, scan).await?;
        visit.admit(&model, None).await?;
        return match visit.choose(&model).await? {
            Target::Upstream(upstream) => pass_on(visit, &upstream, head, body).await,
            Target::Local => Err(not_for_local(operation)),
        };
    }
    let shape = path::shape(head.uri.path());
    let body = visit.whole_body(body, shape).await?;
    let facts = openai::scan(&body).map_err(ApiError::from)?;
    visit.admit(&facts.model, Some((&body, &facts))).await?;
    match visit.choose_for(&facts.model, Some(&facts)).await? {
        Target::Upstream(upstream) if !upstream.speaks(operation.wire()) => {
            embed::answer(visit, &body, Some((&upstream, &head.headers))).await
        }
        Target::Upstream(upstream) => {
            let body = visit.ask_usage(&mut head, body);
            pass_on(visit, &upstream, head, RequestBody::Whole(body)).await
        }
        Target::Local if operation == Operation::Embeddings => {
            embed::answer(visit, &body, None).await
        }
        Target::Local => Err(not_for_local(operation)),
    }
}

fn not_for_local(operation: Operation) -> Failure {
    let asked = operation.name();
    let message = format!("models in this process do not take requests of `{asked}`");
    let error = ApiError::invalid(message).with_param("model");
    Failure::with_status(error, StatusCode::NOT_FOUND)
}

/// What an upstream keeps is asked for by its path, and routed by it as if it were a model's name.
async fn stored(mut visit: Visit<'_>, head: Parts, body: &mut Upload) -> Result<Reply, Failure> {
    let place = head.uri.path().trim_end_matches('/').to_owned();
    let Target::Upstream(upstream) = visit.choose(&place).await? else {
        return Err(Failure::no_such_path(&place));
    };
    let body = passing::unseen(&mut visit, &head, body).await?;
    pass_on(visit, &upstream, head, body).await
}

async fn pass_on(
    mut visit: Visit<'_>,
    upstream: &Arc<Upstream>,
    head: Parts,
    body: RequestBody,
) -> Result<Reply, Failure> {
    let outgoing = Outgoing {
        ours_authorized: visit.ours_authorized(),
        head,
        body,
        via: Via::Http,
    };
    let reply = relay(visit.exchange, visit.snapshot, upstream, outgoing).await?;
    visit.watch_usage(&reply);
    Ok(reply)
}
