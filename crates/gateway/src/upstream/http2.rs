//! HTTP/2 to an upstream: a few connections, each shared by many requests.

use std::fmt;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use base::{TaskKind, Tasks};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, Reason, SendStream};
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version, request};
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use protocol::ApiError;
use tokio::time::{sleep, timeout};

use super::body::{Broken, RequestBody, Streamed};
use super::connection::{ConnectError, ReceiveError, SendError, Stream as Receiving};
use super::http1::Stream;
use super::pool::SWEEP_EVERY;

/// What an upstream may send of one answer before its client has taken any: two of the gateway's parts.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;

/// Sweeps that find a connection unused before it is closed: a minute.
const QUIET_SWEEPS: u32 = 20;
const _A_MINUTE: () = assert!(SWEEP_EVERY.as_secs() * QUIET_SWEEPS as u64 == 60);

/// How often a connection with requests in flight is asked whether it is still there: a peer whose machine went away says
/// nothing, and every request on it would wait until its own limit.
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// Large enough for any head that is not an attack.
const HEADERS_BYTES_MAX: u32 = 64 << 10;

/// The HTTP/2 connections to one address, the fullest first: with less load the last ones fall silent and are closed.
#[derive(Debug)]
pub(crate) struct Http2Pool {
    streams_max: usize,
    connections: Mutex<Vec<Arc<Shared>>>,
    /// Held by who opens a connection: those who come meanwhile share it instead of opening theirs.
    pub(super) opening: tokio::sync::Mutex<()>,
}

/// One connection. Its driver ends when this and every stream are gone.
struct Shared {
    sender: SendRequest<Bytes>,
    scheme: Scheme,
    authority: Authority,
    books: Arc<Books>,
}

/// What driver, pool and streams know of a connection.
#[derive(Debug, Default)]
struct Books {
    streams: AtomicUsize,
    /// Set when it takes no more requests.
    over: AtomicBool,
    /// Sweeps since a request was last seen on it.
    quiet: AtomicU32,
}

/// A request's place on a connection.
pub(crate) struct Http2 {
    shared: Arc<Shared>,
    sender: SendRequest<Bytes>,
    upload: Option<Upload>,
    broken: Option<Broken>,
    /// None before the answer's head.
    receiving: Option<Receiving>,
}

/// A body on its way, moved by [`Http2::upload`].
struct Upload {
    stream: SendStream<Bytes>,
    body: Streamed,
    /// Arrived and not sent.
    ahead: Bytes,
}

impl Http2Pool {
    pub(crate) fn new(streams_max: usize) -> Self {
        Self {
            streams_max,
            connections: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    /// A place on the first connection that has one.
    pub(crate) fn take(&self) -> Option<Http2> {
        let mut connections = self.connections.lock();
        connections.retain(|shared| !shared.books.over.load(Ordering::Acquire));
        connections
            .iter()
            .find_map(|shared| Http2::enter(shared, self.streams_max))
    }

    /// Greets the upstream and keeps the connection for others; the first place on it.
    pub(super) async fn open(
        &self,
        stream: Stream,
        (scheme, authority): (Scheme, Authority),
        tasks: &Tasks,
    ) -> Result<Http2, ConnectError> {
        let window = usize::try_from(STREAM_WINDOW_BYTES).unwrap_or(usize::MAX);
        let all = window.saturating_mul(self.streams_max);
        let (sender, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW_BYTES)
            // One window for each stream, so that no slow client holds up another's answer. HTTP/2's own limit is 2³¹ - 1.
            .initial_connection_window_size(
                u32::try_from(all.min(i32::MAX as usize)).unwrap_or(u32::MAX),
            )
            .max_header_list_size(HEADERS_BYTES_MAX)
            .handshake::<_, Bytes>(stream)
            .await?;
        let books = Arc::new(Books::default());
        let name = format!("HTTP/2 to {authority}");
        let shared = Arc::new(Shared {
            sender,
            scheme,
            authority,
            books: Arc::clone(&books),
        });
        tasks.spawn(TaskKind::UpstreamConnection, name, async move {
            drive(connection, &books).await;
            // Errors have been handed to every stream.
            books.over.store(true, Ordering::Release);
            Ok(())
        });
        let first = Http2::enter(&shared, self.streams_max);
        self.connections.lock().push(shared);
        first.ok_or_else(|| {
            let message = "the upstream takes no streams";
            ConnectError::Io(std::io::Error::other(message))
        })
    }

    /// Closes what nobody has used for a minute: without a request nobody else looks.
    pub(crate) fn sweep(&self) {
        self.connections.lock().retain(|shared| {
            let books = &shared.books;
            if books.streams.load(Ordering::Acquire) > 0 {
                books.quiet.store(0, Ordering::Relaxed);
                return !books.over.load(Ordering::Acquire);
            }
            let quiet = books.quiet.fetch_add(1, Ordering::Relaxed);
            quiet < QUIET_SWEEPS && !books.over.load(Ordering::Acquire)
        });
    }

    /// Takes no more requests on these connections; those in flight go on.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.connections.lock());
        drop(all);
    }

    /// Connections that no request is on.
    pub(crate) fn idle(&self) -> usize {
        let connections = self.connections.lock();
        let idle = |shared: &&Arc<Shared>| shared.books.streams.load(Ordering::Acquire) == 0;
        connections.iter().filter(idle).count()
    }
}

/// Moves all streams of a connection until it is over, or until its peer is gone.
async fn drive(mut connection: h2::client::Connection<Stream, Bytes>, books: &Books) {
    let mut pings = connection.ping_pong();
    loop {
        tokio::select! {
            _over = &mut connection => return,
            // Cancel-safe: a timer.
            () = sleep(PING_EVERY) => {}
        }
        let Some(pings) = &mut pings else { continue };
        if books.streams.load(Ordering::Acquire) == 0 {
            continue;
        }
        tokio::select! {
            _over = &mut connection => return,
            // Dropped only together with the connection.
            pong = timeout(PONG_WITHIN, pings.ping(Ping::opaque())) => {
                if !matches!(pong, Ok(Ok(_))) {
                    return;
                }
            }
        }
    }
}

impl Http2 {
    fn enter(shared: &Arc<Shared>, streams_max: usize) -> Option<Self> {
        let streams_max = streams_max.min(shared.sender.current_max_send_streams());
        let entered =
            shared
                .books
                .streams
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |streams| {
                    (streams < streams_max).then_some(streams + 1)
                });
        entered.ok()?;
        shared.books.quiet.store(0, Ordering::Relaxed);
        Some(Self {
            sender: shared.sender.clone(),
            shared: Arc::clone(shared),
            upload: None,
            broken: None,
            receiving: None,
        })
    }

    pub(super) fn broken(&self) -> Option<ApiError> {
        self.broken.as_ref().map(|Broken(why)| why.clone())
    }

    fn upload(&mut self, cx: &mut Context<'_>) {
        if let Some(upload) = &mut self.upload
            && let Poll::Ready(outcome) = upload.poll(cx)
        {
            self.upload = None;
            self.broken = outcome.err();
        }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        self.upload(cx);
        match &mut self.receiving {
            Some(receiving) => receiving.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let receiving = self.receiving.as_ref();
        receiving.is_some_and(Receiving::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let receiving = self.receiving.as_ref();
        receiving.map_or_else(SizeHint::default, Receiving::size_hint)
    }

    pub(super) async fn send(
        &mut self,
        request: Box<Request<RequestBody>>,
    ) -> Result<Response<()>, SendError> {
        if poll_fn(|cx| self.sender.poll_ready(cx)).await.is_err() {
            self.shared.books.over.store(true, Ordering::Release);
            return Err(SendError::Unsent(request));
        }
        let (head, body) = request.into_parts();
        let head = self.shared.head(head);
        let sent = self.sender.send_request(head, body.is_end_stream());
        let (mut response, stream) = sent.map_err(|error| {
            self.shared.books.over.store(true, Ordering::Release);
            refused_or_failed(error)
        })?;
        self.start(stream, body);
        let answered = poll_fn(|cx| {
            self.upload(cx);
            Pin::new(&mut response).poll(cx)
        })
        .await;
        let (head, receive) = match answered {
            Ok(response) => response.into_parts(),
            Err(error) => {
                let broken = self.broken().map(SendError::Body);
                return Err(broken.unwrap_or_else(|| refused_or_failed(error)));
            }
        };
        self.receiving = Some(Receiving::new(receive, &head.headers));
        Ok(Response::from_parts(head, ()))
    }

    /// What is in memory is handed over at once; it waits there for its window like anywhere else. A stream that has been
    /// reset takes nothing: whoever waits for the answer is told why.
    fn start(&mut self, mut stream: SendStream<Bytes>, body: RequestBody) {
        match body {
            RequestBody::Whole(bytes) if bytes.is_empty() => {}
            RequestBody::Whole(bytes) => {
                let _reset = stream.send_data(bytes, true);
            }
            RequestBody::Parts(mut parts) => {
                while let Some(part) = parts.pop_front() {
                    let _reset = stream.send_data(part, parts.is_empty());
                }
            }
            RequestBody::Streamed(body) => {
                self.upload = Some(Upload {
                    stream,
                    body,
                    ahead: Bytes::new(),
                });
            }
        }
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.shared.books.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Http2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2")
            .field("shared", &self.shared)
            .field("uploading", &self.upload.is_some())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("authority", &self.authority)
            .field("books", &self.books)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// The head as HTTP/2 has it: whom it is for is in the URI.
    fn head(&self, mut head: request::Parts) -> Request<()> {
        head.headers.remove(HOST);
        let mut target = head.uri.into_parts();
        target.scheme = Some(self.scheme.clone());
        target.authority = Some(self.authority.clone());
        let path = target.path_and_query.take();
        target.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        head.uri = Uri::from_parts(target).unwrap_or_default();
        head.version = Version::HTTP_2;
        Request::from_parts(head, ())
    }
}

fn refused_or_failed(error: h2::Error) -> SendError {
    if error.is_reset() && error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM) {
        return SendError::Refused;
    }
    SendError::Failed(ReceiveError::Http2(error))
}

impl Upload {
    /// Ready when nothing is left to send, or nobody takes it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            if self.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            while !self.ahead.is_empty() {
                self.stream.reserve_capacity(self.ahead.len());
                let mut room = self.stream.capacity();
                while room == 0 {
                    let Some(Ok(more)) = std::task::ready!(self.stream.poll_capacity(cx)) else {
                        return Poll::Ready(Ok(()));
                    };
                    room = more;
                }
                let part = self.ahead.split_to(room.min(self.ahead.len()));
                if self.stream.send_data(part, false).is_err() {
                    return Poll::Ready(Ok(()));
                }
            }
            match std::task::ready!(self.body.poll_frame(cx)) {
                // Trailers of a request say nothing that an upstream of ours reads.
                Some(Ok(frame)) => self.ahead = frame.into_data().unwrap_or_default(),
                Some(Err(broken)) => {
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(broken));
                }
                None => {
                    let _reset = self.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}
