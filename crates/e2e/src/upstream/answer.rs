use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

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

    pub(super) fn is_open(&self) -> bool {
        *self.0.0.lock()
    }
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Write(Vec<u8>),
    Wait(Gate),
    Pause(Duration),
    /// Says nothing more until the client leaves or the test ends.
    Silence,
    /// Closes although the answer is not complete.
    Cut,
    /// Closes with a TCP reset.
    Reset,
}

/// What happens on the wire, step by step, from the answer's first byte.
#[derive(Debug, Clone, Default)]
pub struct Answer(pub(super) Vec<Step>);

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

    /// This, then that.
    #[must_use]
    pub fn append(mut self, then: Self) -> Self {
        self.0.extend(then.0);
        self
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

    /// Says nothing for so long.
    #[must_use]
    pub fn pause(mut self, time: Duration) -> Self {
        self.0.push(Step::Pause(time));
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

    #[must_use]
    pub fn then_reset(mut self) -> Self {
        self.0.push(Step::Reset);
        self
    }
}
