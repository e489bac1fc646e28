//! A server that does exactly what a test tells it to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::Tasks;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::beside;
use super::client::find;

/// What to do about a request.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Send(Vec<u8>),
    /// Waits until the test calls [`FakeUpstream::proceed`].
    Wait,
    /// Waits for the gateway to go away, and notes that it did.
    UntilGone,
    Close,
}

#[derive(Clone)]
pub(super) struct FakeUpstream(Arc<Shared>);

struct Shared {
    addr: SocketAddr,
    /// One script per request, in order; the last is used again and again.
    scripts: Vec<Vec<Step>>,
    requests: Mutex<Vec<Vec<u8>>>,
    connections: AtomicUsize,
    gone: AtomicUsize,
    proceed: Semaphore,
}

impl FakeUpstream {
    pub(super) async fn start(tasks: &Tasks, scripts: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let upstream = Self(Arc::new(Shared {
            addr: listener.local_addr().expect("an address"),
            scripts,
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
            proceed: Semaphore::new(0),
        }));
        let (accepting, tasks_of_connections) = (upstream.clone(), tasks.clone());
        beside(tasks, async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.0.connections.fetch_add(1, Ordering::SeqCst);
                let serving = accepting.clone();
                beside(&tasks_of_connections, async move {
                    // A gateway that went away is what some tests are about.
                    let _gone = serving.serve(stream).await;
                });
            }
        });
        upstream
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.0.addr)
    }

    /// Every request so far, head and body as they came.
    pub(super) fn requests(&self) -> Vec<String> {
        let requests = self.0.requests.lock();
        requests
            .iter()
            .map(|request| String::from_utf8_lossy(request).into_owned())
            .collect()
    }

    /// [`FakeUpstream::requests`] that are no text.
    pub(super) fn raw_requests(&self) -> Vec<Vec<u8>> {
        self.0.requests.lock().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.0.connections.load(Ordering::SeqCst)
    }

    /// How often [`Step::UntilGone`] came to its end.
    pub(super) fn gone(&self) -> usize {
        self.0.gone.load(Ordering::SeqCst)
    }

    pub(super) fn proceed(&self) {
        self.0.proceed.add_permits(1);
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        loop {
            let Some(request) = read_request(&mut stream).await? else {
                return Ok(());
            };
            let number = {
                let mut requests = self.0.requests.lock();
                requests.push(request);
                requests.len() - 1
            };
            let last = self.0.scripts.len() - 1;
            for step in &self.0.scripts[number.min(last)] {
                match step {
                    Step::Send(bytes) => stream.write_all(bytes).await?,
                    Step::Wait => self.0.proceed.acquire().await.expect("open").forget(),
                    Step::UntilGone => {
                        let mut buffer = [0; 64];
                        // An answer nobody takes ends in a reset, a closed socket in a zero.
                        while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                        self.0.gone.fetch_add(1, Ordering::SeqCst);
                        return Ok(());
                    }
                    Step::Close => return stream.shutdown().await,
                }
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut request = Vec::new();
    let mut wanted = usize::MAX;
    while request.len() < wanted {
        let mut buffer = vec![0; 65536];
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(None);
        }
        request.extend(&buffer[..read]);
        if wanted == usize::MAX
            && let Some(end) = find(&request, b"\r\n\r\n")
        {
            let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().expect("a length"));
            wanted = end + 4 + length;
        }
    }
    Ok(Some(request))
}

/// A JSON answer with its length.
pub(super) fn json(body: &str) -> Step {
    let length = body.len();
    Step::Send(
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes(),
    )
}

pub(super) fn send(text: &str) -> Step {
    Step::Send(text.as_bytes().to_vec())
}

/// The head of an event stream.
pub(super) fn stream_head() -> Step {
    send(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\
         server-timing: theirs;dur=1\r\n\r\n",
    )
}

pub(super) fn chunk(text: &str) -> Step {
    send(&format!("{:x}\r\n{text}\r\n", text.len()))
}

/// Longer than a test that works, so that nothing but the step under test ends a wait.
pub(super) const IDLE_MS: u64 = 60_000;
