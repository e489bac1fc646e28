//! A server that behaves exactly as badly as a test wants, and remembers every byte it was sent.

mod answer;
mod wire;

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::wait;

use answer::Step;
pub use answer::{Answer, Gate};
use wire::{parse_head, read_body, read_head, would_wait};

/// More connections than any test opens; one more is refused.
const CONNECTIONS_MAX: usize = 64;

/// One request as it came.
#[derive(Debug, Clone, Default)]
pub struct Received {
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

#[derive(Debug, Default)]
struct State {
    answers: Mutex<Vec<(String, Answer)>>,
    received: Mutex<Vec<Received>>,
    connections: AtomicUsize,
    /// Clients that left before their answer's end.
    left_early: AtomicUsize,
    stopping: AtomicBool,
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
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State::default());
        state.answers.lock().push((String::new(), answer));
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
            .insert(0, (path.to_owned(), answer));
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
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut buffer = Vec::new();
    loop {
        let Some(head_end) = read_head(&mut socket, &mut buffer, state)? else {
            return Ok(());
        };
        let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
        let mut request = parse_head(&head);
        let answer = answer_for(state, &request.path);
        if matches!(answer.0.first(), Some(Step::Reset)) {
            // Closing with unread bytes makes Linux send a reset; so one more byte must be there.
            let mut byte = [0];
            wait::within(Duration::from_secs(5), || socket.peek(&mut byte).ok());
            state.received.lock().push(request);
            return Ok(());
        }
        let body = read_body(&mut socket, buffer.split_off(head_end), &request, state)?;
        (request.body, buffer) = body;
        state.received.lock().push(request);
        if !perform(&mut socket, &answer, state)? {
            return Ok(());
        }
    }
}

fn answer_for(state: &State, path: &str) -> Answer {
    let answers = state.answers.lock();
    let found = answers
        .iter()
        .find(|(prefix, _)| path.starts_with(prefix.as_str()));
    found.map(|(_, answer)| answer.clone()).unwrap_or_default()
}

/// Plays the answer; false when the connection is over.
fn perform(socket: &mut TcpStream, answer: &Answer, state: &State) -> io::Result<bool> {
    for step in &answer.0 {
        let present = match step {
            Step::Write(bytes) => socket.write_all(bytes).is_ok(),
            Step::Wait(gate) => stays(socket, state, || gate.is_open()),
            Step::Silence => stays(socket, state, || false),
            Step::Cut | Step::Reset => return Ok(false),
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
