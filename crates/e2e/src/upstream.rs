//! A server that behaves exactly as badly as a test wants, and remembers every byte it was sent.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::wait;

/// More connections than any test opens; one more is refused.
const CONNECTIONS_MAX: usize = 64;

/// A condition that a test opens when it has seen what it waited for.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn open(&self) {
        *self.0.0.lock() = true;
        self.0.1.notify_all();
    }

    fn is_open(&self) -> bool {
        *self.0.0.lock()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<u8>),
    Wait(Gate),
    /// Says nothing more until the client leaves or the test ends.
    Silence,
    /// Closes although the answer is not complete.
    Cut,
    /// Closes with a TCP reset.
    Reset,
}

/// What happens on the wire, step by step, from the answer's first byte.
#[derive(Debug, Clone, Default)]
pub struct Answer(Vec<Step>);

impl Answer {
    pub fn new() -> Self {
        Self::default()
    }

    /// A plain JSON answer with status 200.
    pub fn json(body: &str) -> Self {
        Self::status(200, body)
    }

    pub fn status(status: u16, body: &str) -> Self {
        let head = format!(
            "HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Self::new().write(head).write(body)
    }

    /// The head of an event stream; [`Answer::event`] and [`Answer::done`] follow.
    pub fn events() -> Self {
        Self::new().write(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        )
    }

    pub fn silent() -> Self {
        Self(vec![Step::Silence])
    }

    pub fn reset() -> Self {
        Self(vec![Step::Reset])
    }

    /// Bytes as they are.
    #[must_use]
    pub fn write(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.push(Step::Write(bytes.as_ref().to_vec()));
        self
    }

    /// One chunk of a chunked body; it need not be one event.
    #[must_use]
    pub fn chunk(self, payload: impl AsRef<[u8]>) -> Self {
        let payload = payload.as_ref();
        let mut chunk = format!("{:x}\r\n", payload.len()).into_bytes();
        chunk.extend_from_slice(payload);
        chunk.extend_from_slice(b"\r\n");
        self.write(chunk)
    }

    /// `data: …` as one chunk.
    #[must_use]
    pub fn event(self, data: &str) -> Self {
        self.chunk(format!("data: {data}\n\n"))
    }

    /// The stream's proper end.
    #[must_use]
    pub fn done(self) -> Self {
        self.event("[DONE]").chunk("")
    }

    #[must_use]
    pub fn wait(mut self, gate: &Gate) -> Self {
        self.0.push(Step::Wait(gate.clone()));
        self
    }

    #[must_use]
    pub fn then_silence(mut self) -> Self {
        self.0.push(Step::Silence);
        self
    }

    #[must_use]
    pub fn cut(mut self) -> Self {
        self.0.push(Step::Cut);
        self
    }
}

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

/// Reads up to so much more; none when the client is gone or the test is over.
fn read_more(
    socket: &mut TcpStream,
    buffer: &mut Vec<u8>,
    bytes_max: usize,
    state: &State,
) -> io::Result<Option<()>> {
    let mut part = vec![0; bytes_max];
    loop {
        if state.stopping.load(Ordering::SeqCst) {
            return Ok(None);
        }
        match socket.read(&mut part) {
            Ok(0) => return Ok(None),
            Ok(got) => {
                buffer.extend_from_slice(&part[..got]);
                return Ok(Some(()));
            }
            Err(error) if would_wait(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn would_wait(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

fn read_head(
    socket: &mut TcpStream,
    buffer: &mut Vec<u8>,
    state: &State,
) -> io::Result<Option<usize>> {
    loop {
        if buffer.ends_with(b"\r\n\r\n") {
            return Ok(Some(buffer.len()));
        }
        // Byte by byte: what follows the head must stay in the kernel for a reset.
        if read_more(socket, buffer, 1, state)?.is_none() {
            return Ok(None);
        }
    }
}

fn parse_head(head: &str) -> Received {
    let mut lines = head.lines();
    let mut request_line = lines.next().unwrap_or_default().split(' ');
    let mut next = || request_line.next().unwrap_or_default().to_owned();
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Received {
        method: next(),
        path: next(),
        headers: lines.filter_map(header).collect(),
        body: Vec::new(),
    }
}

/// The body, and what came after it.
fn read_body(
    socket: &mut TcpStream,
    mut bytes: Vec<u8>,
    request: &Received,
    state: &State,
) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let chunked = request.header("transfer-encoding").is_some();
    let length = request
        .header("content-length")
        .and_then(|n| n.parse().ok());
    loop {
        if chunked {
            if let Some((body, used)) = unchunk(&bytes) {
                return Ok((body, bytes.split_off(used)));
            }
        } else if bytes.len() >= length.unwrap_or(0) {
            let rest = bytes.split_off(length.unwrap_or(0));
            return Ok((bytes, rest));
        }
        if read_more(socket, &mut bytes, 1 << 16, state)?.is_none() {
            return Ok((bytes, Vec::new()));
        }
    }
}

/// The payload of a complete chunked body and its length on the wire.
fn unchunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let line_end = at + bytes.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..line_end]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        let from = line_end + 2;
        body.extend_from_slice(bytes.get(from..from + size)?);
        bytes.get(from + size..from + size + 2)?;
        at = from + size + 2;
        if size == 0 {
            return Some((body, at));
        }
    }
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
mod tests {
    use super::*;
    use crate::Client;

    fn client(fake: &FakeUpstream) -> Client {
        Client::to(fake.address)
    }

    #[test]
    fn it_answers_as_told_and_remembers_what_it_was_sent() {
        let fake = FakeUpstream::start(Answer::json("{\"a\":1}"))
            .route("/events", Answer::events().event("one").done());
        assert_eq!(client(&fake).post("/x", "sent").text(), "{\"a\":1}");
        let events = client(&fake).post("/events", "");
        assert_eq!(events.text(), "data: one\n\ndata: [DONE]\n\n");
        let head = "POST /y HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunks = "2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n";
        assert_eq!(
            client(&fake)
                .raw(format!("{head}{chunks}").as_bytes())
                .status,
            200
        );
        let bodies: Vec<_> = fake.received().iter().map(Received::text).collect();
        assert_eq!(bodies, ["sent", "", "abcde"]);
    }

    #[test]
    fn it_cuts_resets_and_falls_silent() {
        let fake = FakeUpstream::start(Answer::events().event("one").cut())
            .route("/reset", Answer::reset())
            .route("/silent", Answer::silent());
        let ask = |path: &str| {
            let client = client(&fake);
            let head = client.head("POST", path, 4);
            client
                .open()?
                .exchange(&[head.as_slice(), b"body"].concat())
        };
        let kind = |path: &str| ask(path).map(|_| ()).map_err(|error| error.kind());
        assert_eq!(kind("/cut"), Err(io::ErrorKind::UnexpectedEof));
        assert_eq!(kind("/reset"), Err(io::ErrorKind::ConnectionReset));
        let silent = client(&fake).open().and_then(|mut connection| {
            connection
                .send(b"POST /silent HTTP/1.1\r\n\r\n")
                .map(|()| connection)
        });
        fake.wait_for_requests(2);
        drop(silent);
        fake.wait_for_disconnect();
    }

    #[test]
    fn a_gate_holds_the_rest_back() {
        let gate = Gate::new();
        let fake = FakeUpstream::start(Answer::events().event("one").wait(&gate).done());
        let mut connection = client(&fake).open().expect("it listens");
        connection.send(b"POST / HTTP/1.1\r\n\r\n").expect("open");
        let mut head = connection.receive_head().expect("an answer");
        let first = connection.receive_part(&mut head).expect("an event");
        assert_eq!(first.as_deref(), Some(b"data: one\n\n".as_slice()));
        gate.open();
        while connection
            .receive_part(&mut head)
            .expect("a proper end")
            .is_some()
        {}
    }
}
