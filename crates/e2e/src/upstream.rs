//! A server that behaves exactly as badly as a test wants, and remembers every byte it was sent.

mod answer;
mod wire;

use std::fmt;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base::{Clock, Deadline};
use parking_lot::Mutex;
use socket2::SockRef;

use crate::wait;

use answer::Step;
pub use answer::{Answer, Gate};
use wire::{Incoming, would_wait};

/// More connections than any test opens; one more is refused.
const CONNECTIONS_MAX: usize = 256;

/// How often a waiting connection looks whether the test is over. Streams are paced by it too, so it is short.
const PACE: Duration = Duration::from_millis(5);

/// One request as it came.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// Since the upstream's start.
    pub at: Duration,
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(have, _)| have == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Decides what to answer, once the whole request is there.
type Responder = Arc<dyn Fn(&Received) -> Answer + Send + Sync>;

struct State {
    clock: Clock,
    started: Instant,
    answers: Mutex<Vec<(String, Responder)>>,
    received: Mutex<Vec<Received>>,
    /// Off where a test sends more than it could look at.
    remembers: AtomicBool,
    connections: AtomicUsize,
    /// Clients that left before their answer's end.
    left_early: AtomicUsize,
    stopping: AtomicBool,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

/// Listens on loopback until dropped.
#[derive(Debug)]
pub struct FakeUpstream {
    address: SocketAddr,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

impl FakeUpstream {
    /// Answers every path with this.
    ///
    /// # Panics
    /// When no port is free.
    pub fn start(answer: Answer) -> Self {
        Self::answering(move |_| answer.clone())
    }

    /// Answers each request as this says.
    ///
    /// # Panics
    /// When no port is free.
    pub fn answering(respond: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let clock = Clock::real();
        let state = Arc::new(State {
            started: clock.now(),
            clock,
            answers: Mutex::new(vec![(String::new(), Arc::new(respond))]),
            received: Mutex::default(),
            remembers: AtomicBool::new(true),
            connections: AtomicUsize::default(),
            left_early: AtomicUsize::default(),
            stopping: AtomicBool::default(),
        });
        let shared = Arc::clone(&state);
        let acceptor = std::thread::spawn(move || accept(&listener, &shared));
        Self {
            address,
            state,
            acceptor: Some(acceptor),
        }
    }

    /// Answers paths that start with this in its own way.
    #[must_use]
    pub fn route(self, path: &str, answer: Answer) -> Self {
        self.state
            .answers
            .lock()
            .insert(0, (path.to_owned(), Arc::new(move |_| answer.clone())));
        self
    }

    /// Keeps no requests: [`FakeUpstream::received`] stays empty.
    #[must_use]
    pub fn forgetful(self) -> Self {
        self.state.remembers.store(false, Ordering::SeqCst);
        self
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far, health checks not counted.
    pub fn received(&self) -> Vec<Received> {
        let requests = self.state.received.lock();
        let asked = |request: &&Received| request.method != "GET";
        requests.iter().filter(asked).cloned().collect()
    }

    pub fn wait_for_requests(&self, count: usize) -> Vec<Received> {
        wait::until("a request at the upstream", || {
            let received = self.received();
            (received.len() >= count).then_some(received)
        })
    }

    /// Until a client has left before the end of its answer.
    pub fn wait_for_disconnect(&self) {
        wait::until("the gateway to leave the upstream", || {
            (self.state.left_early.load(Ordering::SeqCst) > 0).then_some(())
        });
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

impl Drop for FakeUpstream {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        let _refused = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(acceptor) = self.acceptor.take() {
            let _panicked = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    let mut workers = Vec::new();
    for socket in listener.incoming() {
        if state.stopping.load(Ordering::SeqCst) {
            break;
        }
        let Ok(socket) = socket else { continue };
        workers.retain(|worker: &JoinHandle<()>| !worker.is_finished());
        if workers.len() >= CONNECTIONS_MAX {
            continue;
        }
        state.connections.fetch_add(1, Ordering::SeqCst);
        let state = Arc::clone(state);
        workers.push(std::thread::spawn(move || {
            let _client_gone = converse(socket, &state);
        }));
    }
    for worker in workers {
        let _panicked = worker.join();
    }
}

/// Requests on one connection, one after the other, until an answer ends it.
fn converse(mut socket: TcpStream, state: &State) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PACE))?;
    let mut incoming = Incoming::default();
    loop {
        let Some(mut request) = incoming.request(&mut socket, state)? else {
            return Ok(());
        };
        request.at = state.clock.now().saturating_duration_since(state.started);
        let answer = answer_for(state, &request);
        if state.remembers.load(Ordering::SeqCst) {
            state.received.lock().push(request);
        }
        if !perform(&mut socket, &answer, state)? {
            return Ok(());
        }
    }
}

fn answer_for(state: &State, request: &Received) -> Answer {
    let respond = {
        let answers = state.answers.lock();
        let found = answers
            .iter()
            .find(|(prefix, _)| request.path.starts_with(prefix.as_str()));
        found.map(|(_, respond)| Arc::clone(respond))
    };
    respond.map(|respond| respond(request)).unwrap_or_default()
}

/// Plays the answer; false when the connection is over.
fn perform(socket: &mut TcpStream, answer: &Answer, state: &State) -> io::Result<bool> {
    for step in &answer.0 {
        let present = match step {
            Step::Write(bytes) => socket.write_all(bytes).is_ok(),
            Step::Wait(gate) => stays(socket, state, || gate.is_open()),
            Step::Pause(time) => {
                let until = Deadline::after(state.clock.now(), *time);
                stays(socket, state, || until.passed(state.clock.now()))
            }
            Step::Silence => stays(socket, state, || false),
            Step::Cut => return Ok(false),
            Step::Reset => {
                // Closing a socket that lingers for no time sends a reset.
                SockRef::from(&*socket).set_linger(Some(Duration::ZERO))?;
                return Ok(false);
            }
        };
        if !present {
            if !state.stopping.load(Ordering::SeqCst) {
                state.left_early.fetch_add(1, Ordering::SeqCst);
            }
            return Ok(false);
        }
    }
    Ok(true)
}

/// Waits, and tells whether the client was still there when the waiting ended.
fn stays(socket: &TcpStream, state: &State, over: impl Fn() -> bool) -> bool {
    let mut byte = [0];
    loop {
        if over() {
            return true;
        }
        if state.stopping.load(Ordering::SeqCst) {
            return false;
        }
        match socket.peek(&mut byte) {
            // The read timeout of the socket paces this loop.
            Err(error) if would_wait(&error) => {}
            Ok(0) | Err(_) => return false,
            Ok(_) => wait::pause(),
        }
    }
}

#[cfg(test)]
mod tests;
