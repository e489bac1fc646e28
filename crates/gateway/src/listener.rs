use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base::TaskKind;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use crate::activity::Activity;
use crate::config::Config;
use crate::gate::Gate;
use crate::gateway::Gateway;
use crate::{Error, doors};

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
}

/// All client connections: how they are served, counted and closed.
#[derive(Debug)]
pub(crate) struct Connections {
    builder: auto::Builder<TokioExecutor>,
    head_timeout: Duration,
    per_listener: u32,
    /// One per listener; a connection holds a permit while it is open.
    permits: Mutex<Vec<Arc<Semaphore>>>,
    stop: watch::Sender<bool>,
}

impl Connections {
    pub(crate) fn new(config: &Config) -> Self {
        // h2 streams are the connection's own work, cancelled with it: hyper starts them through this executor, and the
        // supervised task is the connection.
        let mut builder = auto::Builder::new(TokioExecutor::new());
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
            builder,
            head_timeout: config.head_timeout,
            per_listener: u32::try_from(config.connections_max).unwrap_or(u32::MAX >> 4),
            permits: Mutex::new(Vec::new()),
            stop: watch::Sender::new(false),
        }
    }

    pub(crate) fn accept(&self, gateway: Gateway, listener: Listener, door: Door) {
        let permits = Arc::new(Semaphore::new(self.per_listener as usize));
        self.permits.lock().push(Arc::clone(&permits));
        let tasks = gateway.shared().tasks.clone();
        let name = format!("listener {}", door.name());
        tasks.spawn(TaskKind::Listener, name, async move {
            accept_loop(gateway, listener.0, door, permits).await;
            Ok(())
        });
    }

    /// True if every connection is closed before the time is up.
    pub(crate) async fn drain(&self, limit: Duration) -> bool {
        self.stop.send_replace(true);
        let all = self.permits.lock().clone();
        let closed = async {
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

async fn accept_loop(gateway: Gateway, listener: TcpListener, door: Door, permits: Arc<Semaphore>) {
    let shared = gateway.shared();
    let open = shared.metrics.connections(door.name());
    let mut stop = shared.connections.stop.subscribe();
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (listener.accept().await, permit)
        };
        // Cancel-safe: a permit is returned when dropped, accept loses no connection, and the other two only read a flag.
        let (accepted, permit) = tokio::select! {
            next = next => next,
            _ = stop.wait_for(|stop| *stop) => return,
            () = shared.tasks.stopped() => {
                shared.connections.stop.send_replace(true);
                return;
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
        open.inc();
        let open = Open {
            gauge: open.clone(),
            _permit: permit,
        };
        let served = serve(gateway.clone(), stream, door);
        let name = format!("connection {peer}");
        shared.tasks.spawn(TaskKind::Connection, name, async move {
            served.await;
            drop(open);
            Ok(())
        });
    }
}

/// An open connection's place in the counts.
struct Open {
    gauge: telemetry::metrics::Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

async fn serve(gateway: Gateway, stream: TcpStream, door: Door) {
    // Without it the last part of an answer waits 40 ms for the peer's delayed acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return; // the peer is gone already
    }
    let connections = &gateway.shared().connections;
    let clock = &gateway.shared().clock;
    let activity = Activity::new(clock.now());
    let service =
        service_fn(|request| doors::handle(gateway.clone(), activity.clone(), request, door));
    let mut connection = pin!(
        connections
            .builder
            .serve_connection(TokioIo::new(stream), service)
    );
    let gate = Gate::new();
    let mut look = pin!(sleep(connections.head_timeout));
    let mut stop = connections.stop.subscribe();
    let mut closing = Closing::No;
    loop {
        // Cancel-safe: all three are polled again where they were; nothing is taken out of them.
        tokio::select! {
            biased;
            ended = poll_fn(|cx| gate.poll(cx, |cx| connection.as_mut().poll(cx))) => {
                if let Err(error) = ended {
                    tracing::debug!(error = base::chain(error.as_ref()), "connection ended early");
                }
                return;
            }
            _ = stop.wait_for(|stop| *stop), if closing == Closing::No => {
                closing = Closing::Drain;
                connection.as_mut().graceful_shutdown();
            }
            () = look.as_mut() => {
                let idle = activity.idle(clock.now());
                let left = connections.head_timeout.saturating_sub(idle);
                if left.is_zero() && closing == Closing::Idle {
                    return;
                }
                let wait = if left.is_zero() {
                    closing = Closing::Idle;
                    connection.as_mut().graceful_shutdown();
                    GOODBYE
                } else {
                    left
                };
                look.set(sleep(wait));
            }
        }
    }
}

/// Why a connection takes no more requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    /// The node stops: what runs may finish.
    Drain,
    /// Nobody has asked anything for too long.
    Idle,
}

/// For an idle h2 client to take note of GOAWAY, and for half a head to be given up.
const GOODBYE: Duration = Duration::from_secs(1);
