use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request};
use http_body::Body as _;
use protocol::ApiError;

use super::attempt::{Place, attempt, bad_upstream, no_answer_in};
use super::silence;
use telemetry::Stage;
use tokio::time::timeout;

use crate::exchange::Exchange;
use crate::headers::REQUEST_ID;
use crate::reply::Failure;
use crate::upstream::{RequestBody, Upstream, Via};

/// A small document of an upstream's, for ourselves.
pub(crate) async fn fetch(
    exchange: &mut Exchange,
    upstream: &Arc<Upstream>,
    path: &'static str,
    bytes_max: usize,
) -> Result<Bytes, Failure> {
    let request = request(exchange, upstream, path)
        .map_err(|error| ApiError::new(base::ErrorKind::Internal, error.to_string()))?;
    exchange.doing = Stage::Upstream;
    let place = Place::enter(&exchange.gateway, upstream, (exchange.caller, None));
    let wait = silence(exchange, upstream).min(exchange.time_left());
    let Ok(ended) = timeout(wait, attempt(place, (request, Via::Http))).await else {
        return Err(no_answer_in(upstream, wait).into());
    };
    let answered = ended.map_err(|fault| fault.error)?;
    exchange.mark_attempt(Some(answered.connected_at));
    let (mut connection, response) = (answered.connection, answered.response);
    let _place = answered.place;
    let name = &upstream.name;
    let status = response.status();
    if !status.is_success() {
        return Err(bad_upstream(format!("upstream `{name}` answered {status} to {path}")).into());
    }
    let mut incoming = response.into_body();
    let mut whole = BytesMut::new();
    loop {
        // Cancel-safe: the connection is dropped with us, and what was read of it with it.
        let frame = poll_fn(|cx| match Pin::new(&mut incoming).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame),
            Poll::Pending => {
                connection.drive(cx);
                Pin::new(&mut incoming).poll_frame(cx)
            }
        })
        .await;
        match frame {
            None => break,
            Some(Err(_)) => {
                return Err(bad_upstream(format!("upstream `{name}` cut its answer")).into());
            }
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                if whole.len() + data.len() > bytes_max {
                    let message = format!("upstream `{name}` sent more than {bytes_max} bytes");
                    return Err(bad_upstream(message).into());
                }
                whole.extend_from_slice(&data);
            }
        }
    }
    let now = exchange.gateway.shared().clock.now();
    let mut read = Some(connection);
    poll_fn(|cx| {
        if let Some(connection) = read.take() {
            connection.release(&upstream.live, now, cx);
        }
        Poll::Ready(())
    })
    .await;
    Ok(whole.freeze())
}

fn request(
    exchange: &Exchange,
    upstream: &Upstream,
    path: &'static str,
) -> Result<Request<RequestBody>, http::Error> {
    let target = upstream
        .address
        .target(Some(&PathAndQuery::from_static(path)))?;
    let mut request = Request::get(target).body(RequestBody::empty())?;
    let headers = request.headers_mut();
    headers.insert(HOST, upstream.address.authority.clone());
    headers.insert(REQUEST_ID, HeaderValue::from_str(exchange.id.as_str())?);
    upstream.authorize(headers);
    Ok(request)
}
