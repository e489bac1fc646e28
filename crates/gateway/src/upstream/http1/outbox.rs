//! A request on its way to the socket: what is in memory goes out in as few writes as it can.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base::ErrorKind;
use bytes::{Buf as _, Bytes};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Method, Request};
use http_body::Body as _;
use protocol::ApiError;
use tokio::io::AsyncWrite;

use crate::upstream::body::{Broken, RequestBody, Streamed};

/// A body up to this is copied behind its head: one buffer costs the kernel less than two.
const COPIED_MAX: usize = 4 << 10;

/// Buffers in one call.
const SLICES_MAX: usize = 16;

/// Of a head besides its headers' names and values: the request line, the length of the body.
const HEAD_BYTES: usize = 96;

/// What is still to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: VecDeque<Bytes>,
    body: Option<Upload>,
    /// Whether anything was written since the request was put in.
    pub(super) begun: bool,
}

/// A body that is passed on as it arrives.
#[derive(Debug)]
struct Upload {
    body: Streamed,
    /// What was announced and has not come; none for a body in chunks.
    left: Option<u64>,
}

/// Why a request cannot be written to its end.
#[derive(Debug)]
pub(super) enum Stopped {
    Socket(io::Error),
    Body(Broken),
}

impl Outbox {
    /// Takes a request; the one before must be written.
    pub(super) fn put(&mut self, request: &Request<RequestBody>) {
        self.begun = false;
        let body = request.body();
        let length = body.size_hint().exact();
        let mut head = head(request, length);
        match body {
            RequestBody::Whole(bytes) if bytes.len() <= COPIED_MAX => {
                head.extend_from_slice(bytes);
                self.queue.push_back(head.into());
            }
            RequestBody::Whole(bytes) => self.queue.extend([head.into(), bytes.clone()]),
            RequestBody::Parts(parts) => {
                self.queue.push_back(head.into());
                self.queue.extend(parts.iter().cloned());
            }
            RequestBody::Streamed(_) => self.queue.push_back(head.into()),
        }
    }

    /// The body that cannot be in two places; for a request that was put in and begun.
    pub(super) fn follow(&mut self, body: RequestBody) {
        if let RequestBody::Streamed(body) = body {
            let left = body.length();
            self.body = Some(Upload { body, left });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.body.is_none()
    }

    /// Ready when everything there is has been written.
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<Result<(), Stopped>> {
        loop {
            while !self.queue.is_empty() {
                let written = ready!(self.poll_queue(cx, stream)).map_err(Stopped::Socket)?;
                self.advance(written);
                self.begun = true;
            }
            let Some(upload) = &mut self.body else {
                return Pin::new(stream).poll_flush(cx).map_err(Stopped::Socket);
            };
            match upload.poll(cx, &mut self.queue) {
                Poll::Pending => {
                    // What was written must not wait for what comes.
                    let _flushed = Pin::new(stream).poll_flush(cx).map_err(Stopped::Socket)?;
                    return Poll::Pending;
                }
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => self.body = None,
                Poll::Ready(Err(broken)) => return Poll::Ready(Err(Stopped::Body(broken))),
            }
        }
    }

    fn poll_queue<S: AsyncWrite + Unpin>(
        &self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(stream);
        let written = match (self.queue.len(), self.queue.front()) {
            (1, Some(only)) => ready!(stream.poll_write(cx, only))?,
            _ => {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let mut count = 0;
                for (slice, bytes) in slices.iter_mut().zip(&self.queue) {
                    *slice = IoSlice::new(bytes);
                    count += 1;
                }
                ready!(stream.poll_write_vectored(cx, &slices[..count]))?
            }
        };
        Poll::Ready(match written {
            0 => Err(io::ErrorKind::WriteZero.into()),
            written => Ok(written),
        })
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.queue.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.queue.pop_front();
        }
    }
}

impl Upload {
    /// Puts the next part in; false after the last one.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut VecDeque<Bytes>,
    ) -> Poll<Result<bool, Broken>> {
        let Some(frame) = ready!(self.body.poll_frame(cx)).transpose()? else {
            return Poll::Ready(match self.left {
                None => {
                    queue.push_back(Bytes::from_static(b"0\r\n\r\n"));
                    Ok(false)
                }
                Some(0) => Ok(false),
                Some(_) => Err(too_short()),
            });
        };
        // Trailers of a request say nothing that an upstream of ours reads.
        let mut data = frame.into_data().unwrap_or_default();
        match &mut self.left {
            None if data.is_empty() => {}
            None => {
                let size = format!("{:x}\r\n", data.len());
                queue.extend([size.into(), data, Bytes::from_static(b"\r\n")]);
            }
            Some(left) => {
                // More than was announced would be taken for the next request.
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data.len() as u64;
                if !data.is_empty() {
                    queue.push_back(data);
                }
            }
        }
        Poll::Ready(Ok(true))
    }
}

fn too_short() -> Broken {
    let message = "the request's body is shorter than it was said to be";
    Broken(ApiError::new(ErrorKind::Cancelled, message))
}

/// The head, in the order in which its headers came.
fn head(request: &Request<RequestBody>, length: Option<u64>) -> Vec<u8> {
    let headers = request.headers();
    let path = request.uri().path_and_query();
    let path = path.map_or("/", |path| path.as_str());
    let lines = headers.iter();
    let lines = lines.map(|(name, value)| name.as_str().len() + value.len() + 4);
    let copied = length.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let copied = if copied <= COPIED_MAX { copied } else { 0 };
    let mut head = Vec::with_capacity(HEAD_BYTES + path.len() + lines.sum::<usize>() + copied);
    for part in [request.method().as_str(), " ", path, " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    for (name, value) in headers {
        // Said below, of the body as it is sent.
        if *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING {
            continue;
        }
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    match length {
        // Where a body would be usual, its absence is said (RFC 9110 §8.6).
        Some(0)
            if !matches!(
                *request.method(),
                Method::POST | Method::PUT | Method::PATCH
            ) => {}
        Some(bytes) => {
            head.extend_from_slice(b"content-length: ");
            head.extend_from_slice(bytes.to_string().as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        None => head.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests;
