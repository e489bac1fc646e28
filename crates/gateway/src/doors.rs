//! From a request's head to whoever answers it.

mod admin;
mod caught;
mod control;
mod grpc;
mod health;
mod jobs;
mod linger;
mod oip;
mod openai;
mod path;
mod settings;
mod visit;

use std::convert::Infallible;

use base::ErrorKind;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use protocol::ApiError;
use telemetry::Stage;

use crate::activity::Activity;
use crate::body::Body;
use crate::exchange::Exchange;
use crate::gateway::Gateway;
use crate::headers::ANTHROPIC_VERSION;
use crate::listener::Door;
use crate::reply::{Failure, Reply, Shape};
use crate::upload::Upload;

use visit::Visit;

/// Answers one request. Never fails: what goes wrong is an answer too.
///
/// Not an `async fn`, which would keep what it is given twice: ten thousand of these may wait.
pub(crate) fn handle(
    gateway: &Gateway,
    connection: Activity,
    request: Request<Incoming>,
    door: Door,
) -> impl Future<Output = Result<Response<Body>, Infallible>> + use<> {
    let (head, body) = request.into_parts();
    // From hand to hand it goes as a pointer: moved by value it would lie in every future on its way.
    let mut head = Box::new(head);
    let mut body = Upload::new(body, &head.headers);
    let mut exchange = Exchange::begin(gateway, connection, &head);
    let (method, version) = (head.method.clone(), head.version);
    let sending = linger::Sending::of(&head);
    let grpc = crate::grpc::asked(&head.headers);
    let shape = if grpc {
        Shape::Grpc
    } else {
        match path::shape(head.uri.path()) {
            Shape::OpenAi if head.headers.contains_key(&ANTHROPIC_VERSION) => Shape::Anthropic,
            shape => shape,
        }
    };
    async move {
        let answered = if grpc && matches!(door, Door::Public | Door::Grpc) {
            caught::caught(Box::pin(grpc::answer(&mut exchange, &mut head, &mut body))).await
        } else {
            // hyper keeps room for this future as long as the connection is open; what it took to find the answer would
            // lie there, 6 KB, while a stream goes on for minutes.
            caught::caught(Box::pin(answer(&mut exchange, door, head, &mut body))).await
        };
        let reply = match answered {
            Ok(reply) => reply,
            Err(failure) => {
                let refused = refused(&mut exchange, failure, shape, (sending, &mut body));
                Box::pin(refused).await
            }
        };
        let draining = exchange.gateway.shared().connections.draining();
        let mut sealed = reply.seal(exchange, &method);
        if version < Version::HTTP_2 && draining {
            // Said before the connection closes, so that nobody sends another request into it.
            let close = HeaderValue::from_static("close");
            sealed.headers_mut().insert(header::CONNECTION, close);
        }
        Ok(sealed)
    }
}

async fn refused(
    exchange: &mut Exchange,
    failure: Failure,
    shape: Shape,
    (sending, body): (linger::Sending, &mut Upload),
) -> Reply {
    exchange.mark(exchange.doing);
    if sending.loses_refusals(exchange.body_asked_for) {
        exchange.doing = Stage::Read;
        let bytes_max = exchange.gateway.shared().config.body_bytes_max;
        linger::linger(body, bytes_max).await;
        exchange.mark(Stage::Read);
    }
    if failure.error.kind == ErrorKind::Internal {
        tracing::error!(
            request_id = exchange.id.as_str(),
            error = failure.error.message,
            "request failed"
        );
    }
    let reply = Reply::refusal(&failure, shape, exchange.id.as_str());
    exchange.error = Some(failure.error.message);
    reply
}

async fn answer(
    exchange: &mut Exchange,
    door: Door,
    head: Box<Parts>,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    let call = path::call(door, &head.method, head.uri.path())?;
    exchange.operation = call.operation();
    let snapshot = exchange.gateway.snapshot();
    // Probes need no key: whoever restarts us has none.
    if let path::Call::Live | path::Call::Oip(path::Oip::Live) = call {
        return Ok(health::live(&call));
    }
    if let path::Call::Ready(shape) = call {
        return health::ready(exchange, &snapshot, shape, (door, &head.headers));
    }
    let visit = Visit::enter(exchange, &snapshot, &head.headers)?;
    match call {
        path::Call::OpenAi(call) => openai::answer(visit, call, head, body).await,
        path::Call::Oip(call) => Box::pin(oip::answer(visit, call, head, body)).await,
        path::Call::Job(call) => Box::pin(jobs::answer(visit, call, head, body)).await,
        path::Call::OpenApi => {
            let version = visit.exchange.gateway.shared().version;
            Ok(Reply::json(crate::openapi::document(version)))
        }
        path::Call::Metrics => Ok(health::metrics(visit.exchange)),
        call => admin::answer(visit, call, head.uri.query()).await,
    }
}

/// A packed body comes unpacked from here on.
fn unpack(visit: &Visit<'_>, headers: &HeaderMap, body: &mut Upload) -> Result<(), Failure> {
    let bytes_max = visit.exchange.gateway.shared().config.body_bytes_max;
    body.unpack(headers, bytes_max)
        .map_err(|coding| unknown_coding(&coding, "use gzip, deflate or none"))
}

/// A relayed body is looked into without being unpacked, so it must not be packed.
fn refuse_packed(head: &Parts) -> Result<(), Failure> {
    let Some(coding) = head.headers.get(header::CONTENT_ENCODING) else {
        return Ok(());
    };
    if head.method == Method::GET || coding.as_bytes().eq_ignore_ascii_case(b"identity") {
        return Ok(());
    }
    let coding = String::from_utf8_lossy(coding.as_bytes());
    Err(unknown_coding(&coding, "send the body as it is"))
}

fn unknown_coding(coding: &str, instead: &str) -> Failure {
    let coding = protocol::shown::name(coding);
    let message = format!("content-encoding `{coding}` is not supported; {instead}");
    Failure::with_status(
        ApiError::invalid(message).with_code("unsupported_content_encoding"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
    )
}

/// What the public port takes this for.
#[cfg(test)]
pub(crate) fn operation_of(method: &Method, path: &str) -> Option<crate::operation::Operation> {
    let call = path::call(Door::Public, method, path).ok()?;
    Some(call.operation())
}
