mod spoken;
mod streams;
mod watched;

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use base::{PerCore, Seat, TaskKind};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use crate::activity::Activity;
use crate::config::Config;
use crate::gate::Gate;
use crate::gateway::Gateway;
use crate::{Error, doors};

use spoken::{Builders, Spoken};
use streams::Streams;
use watched::{Outgoing, Watched};

/// What a port offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Everything a client calls: OpenAI, OIP REST and gRPC, health, metrics.
    Public,
    /// The admin API, health, metrics.
    Admin,
    /// Triton's gRPC port: gRPC only.
    Grpc,
    /// Triton's metrics port: metrics and health.
    Metrics,
}

impl Door {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Admin => "admin",
            Self::Grpc => "grpc",
            Self::Metrics => "metrics",
        }
    }
}

/// A port that is open and not served yet.
#[derive(Debug)]
pub struct Listener(TcpListener);

/// Connections that the kernel holds for us while we are busy; it cuts this to `net.core.somaxconn` (4096).
const BACKLOG: u32 = 4096;

/// After accept fails for want of descriptors or memory: long enough not to spin, short beside any client's patience.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Listener {
    pub(crate) fn bind(addr: SocketAddr) -> Result<(Self, SocketAddr), Error> {
        let open = || -> io::Result<_> {
            let socket = if addr.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            // A restart must not wait for the old connections' TIME_WAIT.
            socket.set_reuseaddr(true)?;
            socket.bind(addr)?;
            let listener = socket.listen(BACKLOG)?;
            let bound = listener.local_addr()?;
            Ok((Self(listener), bound))
        };
        open().map_err(|source| Error::Bind { addr, source })
    }

    /// A port that another process has opened. Must be called within a runtime.
    pub fn adopt(socket: OwnedFd) -> io::Result<(Self, SocketAddr)> {
        let listener = std::net::TcpListener::from(socket);
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        Ok((Self(TcpListener::from_std(listener)?), bound))
    }

    /// The port, for another process: it stays open as long as anybody holds it.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }
}

/// All client connections: how they are served, counted and closed.
#[derive(Debug)]
pub(crate) struct Connections {
    builders: Builders,
    head_timeout: Duration,
    send_timeout: Duration,
    per_listener: u32,
    /// One per listener; a connection holds a permit while it is open.
    permits: Mutex<Vec<Arc<Semaphore>>>,
    stop: watch::Sender<bool>,
    /// Accept loops that run.
    accepting: watch::Sender<usize>,
}

impl Connections {
    pub(crate) fn new(config: &Config) -> Self {
        let mut builder = auto::Builder::new(Streams);
        // No timer here, so hyper's own limit on a head is off: `Activity` watches that.
        builder.http1().keep_alive(true);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(config.streams_max)
            // Tensors are large: with hyper's 64 KiB per stream a 5 MB image waits for eighty round trips.
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .max_frame_size(1 << 20)
            // A peer that vanished without a word would hold its connection for ever.
            .keep_alive_interval(Duration::from_secs(60))
            .keep_alive_timeout(Duration::from_secs(20));
        Self {
            builders: Builders::new(builder),
            head_timeout: config.head_timeout,
            send_timeout: config.send_timeout,
            per_listener: u32::try_from(config.connections_max).unwrap_or(u32::MAX >> 4),
            permits: Mutex::new(Vec::new()),
            stop: watch::Sender::new(false),
            accepting: watch::Sender::new(0),
        }
    }

    pub(crate) fn accept(&self, gateway: Gateway, listener: Listener, door: Door) {
        let permits = Arc::new(Semaphore::new(self.per_listener as usize));
        self.permits.lock().push(Arc::clone(&permits));
        let tasks = gateway.shared().tasks.clone();
        let name = format!("listener {}", door.name());
        let accepting = Accepting::enter(&gateway);
        tasks.spawn(TaskKind::Listener, name, async move {
            accept_loop(&gateway, listener.0, door, permits).await;
            drop(accepting);
            Ok(())
        });
    }

    /// Whether the node takes no more work.
    pub(crate) fn draining(&self) -> bool {
        *self.stop.borrow()
    }

    /// Turns true when the node takes no more work.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Now and then: is the connection of any use still?
    fn next_look(&self, activity: &Activity, now: Instant, closing: &mut Closing) -> Look {
        let stalled = activity.stalled(now).unwrap_or_default();
        if stalled >= self.send_timeout {
            tracing::debug!("client takes nothing of its answer, connection cut");
            return Look::End;
        }
        let patience = self.send_timeout - stalled;
        let left = self.head_timeout.saturating_sub(activity.idle(now));
        if let Closing::Waiting(_) = *closing {
            *closing = Closing::Drain;
            return Look::Close(left.min(patience));
        }
        if !left.is_zero() {
            return Look::Again(left.min(patience));
        }
        if *closing == Closing::Idle {
            return Look::End;
        }
        *closing = Closing::Idle;
        Look::Close(GOODBYE)
    }

    /// True if every connection is closed before the time is up.
    pub(crate) async fn drain(&self, limit: Duration) -> bool {
        self.stop.send_replace(true);
        let mut accepting = self.accepting.subscribe();
        let all = self.permits.lock().clone();
        let closed = async {
            // First the backlogs: they need permits, and who waits for all of them holds the free ones back.
            if accepting.wait_for(|running| *running == 0).await.is_err() {
                return false;
            }
            for permits in &all {
                // All permits back means no connection left.
                if permits.acquire_many(self.per_listener).await.is_err() {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(limit, closed).await.unwrap_or(false)
    }
}

/// An accept loop that runs.
struct Accepting(Gateway);

impl Accepting {
    fn enter(gateway: &Gateway) -> Self {
        let accepting = &gateway.shared().connections.accepting;
        accepting.send_modify(|running| *running += 1);
        Self(gateway.clone())
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        let accepting = &self.0.shared().connections.accepting;
        accepting.send_modify(|running| *running -= 1);
    }
}

async fn accept_loop(
    gateway: &Gateway,
    listener: TcpListener,
    door: Door,
    permits: Arc<Semaphore>,
) {
    let shared = gateway.shared();
    let mut stop = shared.connections.stop.subscribe();
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (listener.accept().await, permit)
        };
        // Cancel-safe: a permit is returned when dropped, accept loses no connection, and the other two only read a flag.
        let (accepted, permit) = tokio::select! {
            next = next => next,
            _ = stop.wait_for(|stop| *stop) => break,
            () = shared.tasks.stopped() => {
                shared.connections.stop.send_replace(true);
                break;
            }
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(door = door.name(), %error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // The semaphore is never closed.
        let Ok(permit) = permit else { return };
        start(gateway, stream, peer, Open::new(gateway, door, permit));
    }
    // Closing the port would reset what the kernel has accepted for us. Without tokio, which only knows of connections
    // that its poller has seen.
    let Ok(listener) = listener.into_std() else {
        return;
    };
    while let Ok(permit) = Arc::clone(&permits).try_acquire_owned()
        && let Ok((stream, peer)) = listener.accept()
    {
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            start(gateway, stream, peer, Open::new(gateway, door, permit));
        }
    }
}

fn start(gateway: &Gateway, stream: TcpStream, peer: SocketAddr, open: Open) {
    let name = format!("connection {peer}");
    let shared = gateway.shared();
    let tasks = &shared.tasks;
    let cores = shared.per_core.as_ref();
    let seat = cores.filter(|_| open.door != Door::Admin).map(PerCore::sit);
    let gateway = gateway.clone();
    if let Some(seat) = seat
        && let Some(core) = seat.handle().cloned()
    {
        // Its events belong to the poller of the thread that serves it.
        let Ok(stream) = stream.into_std() else {
            return;
        };
        let all = Handle::current();
        tasks.spawn_on(&core, TaskKind::Connection, name, async move {
            on_core(gateway, TcpStream::from_std(stream)?, open, (seat, all)).await;
            Ok(())
        });
        return;
    }
    tasks.spawn(TaskKind::Connection, name, async move {
        let opened = gateway.shared().clock.now();
        if let Some(spoken) = hear(&gateway, &stream, opened).await {
            serve(gateway, (stream, spoken, opened), open.door).await;
        }
        drop(open);
        Ok(())
    });
}

/// Serves a connection on the core that it was given, or hands it to all threads where that is better: one of HTTP/2
/// carries the requests of many callers.
async fn on_core(gateway: Gateway, stream: TcpStream, open: Open, (seat, all): (Seat, Handle)) {
    let opened = gateway.shared().clock.now();
    let Some(spoken) = hear(&gateway, &stream, opened).await else {
        return;
    };
    if spoken == Spoken::Http1 {
        serve(gateway, (stream, spoken, opened), open.door).await;
        drop((open, seat));
        return;
    }
    drop(seat);
    let Ok(stream) = stream.into_std() else {
        return;
    };
    let tasks = gateway.shared().tasks.clone();
    let name = "connection of HTTP/2";
    tasks.spawn_on(&all, TaskKind::Connection, name, async move {
        let connection = (TcpStream::from_std(stream)?, spoken, opened);
        serve(gateway, connection, open.door).await;
        drop(open);
        Ok(())
    });
}

/// Waits for what a client speaks; none if it says nothing.
async fn hear(gateway: &Gateway, stream: &TcpStream, opened: Instant) -> Option<Spoken> {
    // Without it the last part of an answer waits 40 ms for the peer's delayed acknowledgement.
    stream.set_nodelay(true).ok()?;
    let shared = gateway.shared();
    spoken::heard(stream, &shared.connections, opened, &shared.clock).await
}

/// An open connection's place in the counts.
struct Open {
    door: Door,
    gauge: telemetry::metrics::Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(gateway: &Gateway, door: Door, permit: OwnedSemaphorePermit) -> Self {
        let gauge = gateway.shared().metrics.connections(door.name());
        gauge.inc();
        Self {
            door,
            gauge,
            _permit: permit,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

async fn serve(
    gateway: Gateway,
    (stream, spoken, opened): (TcpStream, Spoken, Instant),
    door: Door,
) {
    let connections = &gateway.shared().connections;
    let clock = &gateway.shared().clock;
    let activity = Activity::new(opened);
    let socket = Watched::new(stream, activity.clone(), clock.clone());
    let outgoing = (spoken == Spoken::Http2).then(|| socket.gather());
    let service = service_fn(|request| doors::handle(&gateway, activity.clone(), request, door));
    let mut connection = pin!(
        connections
            .builders
            .of(spoken)
            .serve_connection(TokioIo::new(socket), service)
    );
    let gate = Gate::new();
    let look_every = connections.head_timeout.min(connections.send_timeout);
    let mut look = pin!(sleep(look_every));
    let mut stop = connections.stop.subscribe();
    let mut closing = Closing::No;
    loop {
        let served = poll_fn(|cx| {
            let polled = gate.poll(cx, |cx| connection.as_mut().poll(cx));
            match flushed(outgoing.as_ref(), polled, cx) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending if closing.ends_with(&activity) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        // Cancel-safe: all three are polled again where they were; nothing is taken out of them.
        tokio::select! {
            biased;
            served = served => {
                let Some(ended) = served else {
                    closing = Closing::Drain;
                    connection.as_mut().graceful_shutdown();
                    continue;
                };
                if let Err(error) = ended {
                    tracing::debug!(error = base::chain(error.as_ref()), "connection ended early");
                }
                return;
            }
            _ = stop.wait_for(|stop| *stop), if closing == Closing::No => {
                let age = clock.now().saturating_duration_since(opened);
                if let Some((asked, left)) = last_head(&activity, age) {
                    closing = Closing::Waiting(asked);
                    look.set(sleep(left));
                } else {
                    closing = Closing::Drain;
                    connection.as_mut().graceful_shutdown();
                }
            }
            () = look.as_mut() => match connections.next_look(&activity, clock.now(), &mut closing) {
                Look::End => return,
                Look::Close(wait) => {
                    connection.as_mut().graceful_shutdown();
                    look.set(sleep(wait));
                }
                Look::Again(wait) => look.set(sleep(wait)),
            }
        }
    }
}

/// At the end of a turn: what was written in it leaves now.
fn flushed<E: From<io::Error>>(
    outgoing: Option<&Outgoing<TcpStream>>,
    polled: Poll<Result<(), E>>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), E>> {
    match outgoing.map(|outgoing| outgoing.poll_flush(cx)) {
        Some(Poll::Ready(Err(error))) if polled.is_pending() => Poll::Ready(Err(error.into())),
        _ => polled,
    }
}

/// The node stops: how long to wait for one more head, and behind how many. None where a request runs, or no head comes.
fn last_head(activity: &Activity, age: Duration) -> Option<(u64, Duration)> {
    let (asked, busy) = activity.asked();
    let left = if asked > 0 {
        LAST_HEAD
    } else {
        FIRST_HEAD.saturating_sub(age)
    };
    (!busy && !left.is_zero()).then_some((asked, left))
}

/// What is to be done about a connection that was looked at.
enum Look {
    Again(Duration),
    /// No more requests, and another look.
    Close(Duration),
    End,
}

/// Why a connection takes no more requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    /// The node stops, and a request may be on its way, the one after so many: hyper would close without reading it.
    Waiting(u64),
    /// The node stops: what runs may finish.
    Drain,
    /// Nobody has asked anything for too long.
    Idle,
}

impl Closing {
    /// Whether the request that was waited for has come.
    fn ends_with(self, activity: &Activity) -> bool {
        matches!(self, Self::Waiting(before) if activity.asked().0 > before)
    }
}

/// For an idle h2 client to take note of GOAWAY, and for half a head to be given up.
const GOODBYE: Duration = Duration::from_secs(1);

/// For the first head of a connection that was opened just before the node stops.
const FIRST_HEAD: Duration = Duration::from_secs(1);

/// For one more request of a client that keeps its connection and does not know yet that the node stops: the answer tells
/// it. Whoever asks less often than this will mostly find the connection closed before it asks.
const LAST_HEAD: Duration = Duration::from_secs(1);
