//! HTTP/1.1 requests, byte by byte.

use std::io::{self, Read as _};
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use super::{Received, State};

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

pub(super) fn would_wait(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

pub(super) fn read_head(
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

pub(super) fn parse_head(head: &str) -> Received {
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
pub(super) fn read_body(
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
