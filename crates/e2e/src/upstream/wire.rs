//! HTTP/1.1 requests, byte by byte.

use std::io::{self, Read as _};
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use super::{Received, State};

/// What one look at the socket may bring.
const READ_BYTES: usize = 64 << 10;

/// What has come over a connection and belongs to no request yet.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    bytes: Vec<u8>,
    scratch: Vec<u8>,
}

impl Incoming {
    /// The next request; none when the client is gone or the test is over.
    pub(super) fn request(
        &mut self,
        socket: &mut TcpStream,
        state: &State,
    ) -> io::Result<Option<Received>> {
        let head_end = loop {
            if let Some(at) = find(&self.bytes, b"\r\n\r\n") {
                break at + 4;
            }
            if self.read_more(socket, state)?.is_none() {
                return Ok(None);
            }
        };
        let rest = self.bytes.split_off(head_end);
        let mut request = parse_head(&String::from_utf8_lossy(&self.bytes));
        self.bytes = rest;
        request.body = self.body(socket, &request, state)?;
        Ok(Some(request))
    }

    fn body(
        &mut self,
        socket: &mut TcpStream,
        request: &Received,
        state: &State,
    ) -> io::Result<Vec<u8>> {
        let chunked = request.header("transfer-encoding").is_some();
        let length = request
            .header("content-length")
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        loop {
            if chunked {
                if let Some((body, used)) = unchunk(&self.bytes) {
                    self.bytes.drain(..used);
                    return Ok(body);
                }
            } else if self.bytes.len() >= length {
                let rest = self.bytes.split_off(length);
                return Ok(std::mem::replace(&mut self.bytes, rest));
            }
            if self.read_more(socket, state)?.is_none() {
                return Ok(std::mem::take(&mut self.bytes));
            }
        }
    }

    fn read_more(&mut self, socket: &mut TcpStream, state: &State) -> io::Result<Option<()>> {
        self.scratch.resize(READ_BYTES, 0);
        loop {
            if state.stopping.load(Ordering::SeqCst) {
                return Ok(None);
            }
            match socket.read(&mut self.scratch) {
                Ok(0) => return Ok(None),
                Ok(got) => {
                    self.bytes.extend_from_slice(&self.scratch[..got]);
                    return Ok(Some(()));
                }
                Err(error) if would_wait(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|part| part == what)
}

pub(super) fn would_wait(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
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
        ..Received::default()
    }
}

/// The payload of a complete chunked body and its length on the wire.
fn unchunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let line_end = at + find(bytes.get(at..)?, b"\r\n")?;
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
