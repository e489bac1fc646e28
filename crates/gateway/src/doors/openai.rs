mod embed;
mod list;
mod passing;

use std::sync::Arc;

use base::ErrorKind;
use bytes::Bytes;
use http::request::Parts;
use http::{Method, StatusCode};
use protocol::ApiError;
use protocol::anthropic::{self, Page};
use protocol::openai::{self, FormScan, ModelEntry, ScanError};
use protocol::resource::Scope;

use super::path::{self, OpenAi};
use super::refuse_packed;
use super::visit::Visit;
use super::visit::kept::{makes_something, no_model, nobody};
use crate::headers::ANTHROPIC_VERSION;
use crate::operation::Operation;
use crate::relay::{Outgoing, relay};
use crate::reply::{Failure, Reply};
use crate::snapshot::Target;
use crate::upload::Upload;
use crate::upstream::{RequestBody, Upstream, Via};

pub(super) async fn answer(
    mut visit: Visit<'_>,
    call: OpenAi,
    head: Box<Parts>,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    match call {
        OpenAi::List => {
            let entries: Vec<ModelEntry> = Box::pin(list::entries(&mut visit))
                .await
                .into_values()
                .collect();
            if !head.headers.contains_key(&ANTHROPIC_VERSION) {
                return Ok(Reply::json(openai::models(&entries)));
            }
            let page = Page::of(path::parameters(head.uri.query()))?;
            Ok(Reply::json(anthropic::models(&entries, &page)))
        }
        OpenAi::Get(id) => Box::pin(one_model(visit, &id, head)).await,
        OpenAi::Delete(id) => Box::pin(delete_model(visit, &id, head)).await,
        OpenAi::Post(operation) => {
            let unnamed = match operation {
                Operation::Responses | Operation::OpenAiOther => Unnamed::GoesByPath,
                _ => Unnamed::IsRefused,
            };
            post(visit, (operation, unnamed), head, body).await
        }
        OpenAi::Stored(_) => Box::pin(stored(visit, head, body)).await,
        OpenAi::Other => Box::pin(other(visit, head, body)).await,
    }
}

/// What becomes of a call for a model that does not say which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unnamed {
    /// Its API says that it must.
    IsRefused,
    GoesByPath,
}

impl Unnamed {
    fn refuse(self, error: ScanError) -> Result<(), ApiError> {
        match self {
            Self::IsRefused => Err(error.into()),
            Self::GoesByPath => Ok(()),
        }
    }
}

/// Each way in a box of its own: together with what leads here they would be more than the allocator keeps at hand.
async fn post(
    visit: Visit<'_>,
    asked: (Operation, Unnamed),
    head: Box<Parts>,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    refuse_packed(&head)?;
    match passing::form(&head)? {
        Some(scan) => Box::pin(form(visit, asked, (head, body), scan)).await,
        None => Box::pin(document(visit, asked, head, body)).await,
    }
}

async fn document(
    mut visit: Visit<'_>,
    (operation, unnamed): (Operation, Unnamed),
    mut head: Box<Parts>,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    let shape = path::shape(head.uri.path());
    let body = visit.whole_body(body, shape).await?;
    let facts = match openai::scan(&body) {
        Ok(facts) => facts,
        Err(error @ ScanError::NoModel) => {
            unnamed.refuse(error)?;
            return Box::pin(by_path(visit, head, RequestBody::Whole(body))).await;
        }
        Err(error) => return Err(ApiError::from(error).into()),
    };
    visit.exchange.generation.stream = facts.stream;
    if operation == Operation::Responses {
        visit.goes_on(&facts.model, &body);
    }
    visit
        .admit(&facts.model, Some((&body, Some(&facts))))
        .await?;
    let target = visit.choose_for(&facts.model, Some(&facts)).await?;
    match target {
        Target::Upstream(upstream) if !upstream.speaks(operation.wire()) => {
            Box::pin(embed::answer(
                visit,
                &body,
                Some((&upstream, &head.headers)),
            ))
            .await
        }
        Target::Upstream(upstream) => {
            if facts.store {
                visit.makes(&mut head);
            }
            let body = visit.ask_usage(&mut head, body);
            pass_on(visit, &upstream, head, RequestBody::Whole(body)).await
        }
        Target::Local if operation == Operation::Embeddings => {
            Box::pin(embed::answer(visit, &body, None)).await
        }
        Target::Local => Err(not_for_local(operation)),
    }
}

/// A form, perhaps with a file in it.
async fn form(
    mut visit: Visit<'_>,
    (operation, unnamed): (Operation, Unnamed),
    (head, body): (Box<Parts>, &mut Upload),
    scan: FormScan,
) -> Result<Reply, Failure> {
    let (model, body) = passing::model_of_form(&mut visit, &head, body, scan).await?;
    let Some(model) = model else {
        unnamed.refuse(ScanError::NoModel)?;
        return Box::pin(by_path(visit, head, body)).await;
    };
    visit.admit(&model, None).await?;
    match visit.choose(&model).await? {
        Target::Upstream(upstream) => pass_on(visit, &upstream, head, body).await,
        Target::Local => Err(not_for_local(operation)),
    }
}

fn not_for_local(operation: Operation) -> Failure {
    let asked = operation.name();
    let message = format!("models in this process do not take requests of `{asked}`");
    let error = ApiError::invalid(message).with_param("model");
    Failure::with_status(error, StatusCode::NOT_FOUND)
}

/// A call for a model that does not say which.
async fn by_path(
    mut visit: Visit<'_>,
    head: Box<Parts>,
    body: RequestBody,
) -> Result<Reply, Failure> {
    let place = place(&head);
    let whole = match &body {
        RequestBody::Whole(body) => Some(body.clone()),
        RequestBody::Parts(_) | RequestBody::Streamed(_) => None,
    };
    visit.goes_by_path(&place, whole.as_deref().unwrap_or_default());
    visit
        .admit(&place, whole.as_ref().map(|body| (body, None)))
        .await?;
    match visit.choose(&place).await? {
        Target::Upstream(upstream) => pass_on(visit, &upstream, head, body).await,
        Target::Local => Err(no_model(&place).into()),
    }
}

/// What an upstream keeps is asked for by its path, and routed by it as if it were a model's name.
async fn stored(
    mut visit: Visit<'_>,
    head: Box<Parts>,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    let place = place(&head);
    let short = passing::short(&mut visit, &head, body).await?;
    visit.goes_by_path(&place, short.as_deref().unwrap_or_default());
    let Target::Upstream(upstream) = visit.choose(&place).await? else {
        return Err(Failure::no_such_path(&place));
    };
    let body = match short {
        Some(body) => RequestBody::Whole(body),
        None => passing::passed_on(&mut visit, body, Bytes::new())?,
    };
    pass_on(visit, &upstream, head, body).await
}

/// A call that we do not know is relayed with our credentials, and may load, unload or list what an upstream has: it needs
/// the scope for that, and a model or a Route of its own.
async fn other(visit: Visit<'_>, head: Box<Parts>, body: &mut Upload) -> Result<Reply, Failure> {
    if let Some(key) = visit.key {
        key.opens(Scope::Orders)?;
    }
    let place = place(&head);
    if visit.snapshot.route_of_path(&place).is_some() {
        stored(visit, head, body).await
    } else if head.method == Method::POST {
        let operation = visit.exchange.operation;
        post(visit, (operation, Unnamed::IsRefused), head, body).await
    } else {
        Err(nobody(&place).into())
    }
}

fn place(head: &Parts) -> String {
    head.uri.path().trim_end_matches('/').to_owned()
}

/// What is written of a model here is told by us; of any other, by the upstream that would be asked for it.
async fn one_model(mut visit: Visit<'_>, id: &str, head: Box<Parts>) -> Result<Reply, Failure> {
    let asks_anthropic = head.headers.contains_key(&ANTHROPIC_VERSION);
    if let Some(entry) = Box::pin(list::entries(&mut visit)).await.remove(id) {
        return Ok(Reply::json(if asks_anthropic {
            anthropic::model(&entry)
        } else {
            openai::model(&entry)
        }));
    }
    if asks_anthropic || visit.key.is_some_and(|key| !key.sees(id)) {
        return Err(no_such_model(id).into());
    }
    match visit.choose(id).await {
        Ok(Target::Upstream(upstream)) if visit.exchange.model_there.is_none() => {
            pass_on(visit, &upstream, head, RequestBody::empty()).await
        }
        // By another name, of which the path would know nothing.
        Ok(Target::Upstream(upstream)) => {
            let entry = list::entry(&visit, id.to_owned(), upstream.name.to_string());
            Ok(Reply::json(openai::model(&entry)))
        }
        Ok(Target::Local) => Err(no_such_model(id).into()),
        // What is no model's name, or one that nobody takes.
        Err(failure) if matches!(failure.error.kind, ErrorKind::NotFound | ErrorKind::Invalid) => {
            Err(no_such_model(id).into())
        }
        Err(failure) => Err(failure),
    }
}

fn no_such_model(id: &str) -> ApiError {
    let message = format!("the model `{id}` does not exist here");
    ApiError::new(ErrorKind::NotFound, message)
        .with_code("model_not_found")
        .with_param("model")
}

/// Upstreams delete what was trained there.
async fn delete_model(mut visit: Visit<'_>, id: &str, head: Box<Parts>) -> Result<Reply, Failure> {
    if let Some(key) = visit.key {
        key.opens(Scope::Orders)?;
    }
    if visit.exchange.gateway.shared().models.has(id) {
        let message = format!(
            "`{id}` is a model of this process; POST /v2/repository/models/{id}/unload unloads it"
        );
        return Err(ApiError::invalid(message).with_param("model").into());
    }
    match visit.choose(id).await? {
        Target::Upstream(upstream) if visit.exchange.model_there.is_none() => {
            pass_on(visit, &upstream, head, RequestBody::empty()).await
        }
        Target::Upstream(_) | Target::Local => {
            let message =
                format!("`{id}` is only what a Route calls it; name it as its upstream does");
            Err(ApiError::invalid(message).with_param("model").into())
        }
    }
}

async fn pass_on(
    mut visit: Visit<'_>,
    upstream: &Arc<Upstream>,
    mut head: Box<Parts>,
    body: RequestBody,
) -> Result<Reply, Failure> {
    if makes_something(visit.exchange.operation) {
        visit.makes(&mut head);
    }
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
