//! Bodies that are passed on as they arrive: files, and forms with files in them.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base::ErrorKind;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};
use protocol::ApiError;
use protocol::openai::{FormScan, Seen};

use crate::doors::path;
use crate::doors::visit::Visit;
use crate::read::{Held, ReadError};
use crate::reply::Failure;
use crate::upload::Upload;
use crate::upstream::{Broken, RequestBody};

/// A body that announces no more than this is held, so that it can be sent again; a file is not.
const HELD_BYTES_MAX: u64 = 1 << 20;

/// A body on its way through.
#[derive(Debug)]
struct Passing {
    /// Read already, to see whom it is for.
    first: Bytes,
    /// The share of the memory for bodies that `first` takes.
    held: Option<Arc<Held>>,
    upload: Upload,
    /// Bytes that may still come.
    left: u64,
}

impl Passing {
    fn too_large(&self) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        Poll::Ready(Some(Err(Broken(too_large()))))
    }
}

fn too_large() -> ApiError {
    let message = "the request body is larger than uploadBytesMax of the Node allows";
    let mut error = ApiError::invalid(message).with_code("request_too_large");
    error.http = Some(StatusCode::PAYLOAD_TOO_LARGE.as_u16());
    error
}

impl Body for Passing {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let first = std::mem::take(&mut this.first);
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        this.held = None;
        match std::task::ready!(Pin::new(&mut this.upload).poll_frame(cx)) {
            None => Poll::Ready(None),
            Some(Err(error)) => {
                let why = format!(
                    "the request body could not be read: {}",
                    base::chain(&error)
                );
                let error = ApiError::new(ErrorKind::Cancelled, why);
                Poll::Ready(Some(Err(Broken(error))))
            }
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                let Some(left) = this.left.checked_sub(bytes) else {
                    return this.too_large();
                };
                this.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.upload.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.upload.size_hint();
        let first = self.first.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + first);
        }
        hint.set_lower(hint.lower() + first);
        hint
    }
}

/// The body behind what was read of it.
pub(super) fn passed_on(
    visit: &mut Visit<'_>,
    body: &mut Upload,
    first: Bytes,
) -> Result<RequestBody, Failure> {
    if body.is_end_stream() {
        return Ok(RequestBody::Whole(first));
    }
    visit.exchange.body_asked_for = true;
    let left = visit.exchange.gateway.shared().config.upload_bytes_max as u64;
    let left = left.saturating_sub(first.len() as u64);
    if body.size_hint().lower() > left {
        return Err(too_large().into());
    }
    Ok(RequestBody::streamed(Passing {
        first,
        held: visit.exchange.body_held.take(),
        upload: body.take(),
        left,
    }))
}

/// The body of a request that names no model, if it is short.
pub(super) async fn short(
    visit: &mut Visit<'_>,
    head: &Parts,
    body: &mut Upload,
) -> Result<Option<Bytes>, Failure> {
    let announced = body.size_hint().exact();
    if announced.is_none_or(|bytes| bytes > HELD_BYTES_MAX) {
        return Ok(None);
    }
    let shape = path::shape(head.uri.path());
    visit.whole_body(body, shape).await.map(Some)
}

/// Whether the body is a form, and how to look for the model in it.
pub(super) fn form(head: &Parts) -> Result<Option<FormScan>, ApiError> {
    let kind = head.headers.get(CONTENT_TYPE);
    let form = kind.and_then(|kind| FormScan::of(kind.as_bytes()));
    form.transpose()
}

/// What arrives next of a body that is held as far as it was read.
async fn part(
    body: &mut Upload,
    held: &Held,
    (room, bytes_max): (usize, usize),
) -> Result<Option<Bytes>, ReadError> {
    let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await else {
        return Ok(None);
    };
    let frame = frame.map_err(|error| ReadError::Broken(base::chain(&error)))?;
    // Trailers say nothing that we need.
    let data = frame.into_data().unwrap_or_default();
    if data.len() > room {
        return Err(ReadError::TooLarge { bytes_max });
    }
    held.add(data.len())?;
    Ok(Some(data))
}

/// The model that a form names, if it names one, and the form. Up to the model it is held in memory, like any other body.
pub(super) async fn model_of_form(
    visit: &mut Visit<'_>,
    head: &Parts,
    body: &mut Upload,
    mut scan: FormScan,
) -> Result<(Option<String>, RequestBody), Failure> {
    let shape = path::shape(head.uri.path());
    let shared = visit.exchange.gateway.shared();
    let bytes_max = shared.config.body_bytes_max;
    let held = Held::nothing(&shared.body_bytes);
    visit.exchange.body_held = Some(Arc::clone(&held));
    visit.exchange.body_asked_for = true;
    let mut form = BytesMut::new();
    let model = loop {
        match scan.look(&form)? {
            Seen::Model(model) => break Some(model),
            Seen::Nothing => break None,
            Seen::More => {}
        }
        let room = bytes_max - form.len();
        match visit
            .read(shape, part(body, &held, (room, bytes_max)))
            .await?
        {
            Some(part) => form.extend_from_slice(&part),
            None => break None,
        }
    };
    visit.exchange.mark(telemetry::Stage::Read);
    let body = passed_on(visit, body, form.freeze())?;
    Ok((model, body))
}
