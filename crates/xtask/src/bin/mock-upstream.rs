//! An OpenAI-compatible upstream that costs next to nothing: the fixed end of `cargo xtask bench gateway`.
//!
//! One thread per connection, the standard library only, so that the bench can compile this file by itself with
//! optimisation and not wait for an optimised build of everything else.
//!
//! ```text
//! mock-upstream PORT
//! ```

#![expect(
    clippy::disallowed_methods,
    reason = "threads and the real clock are all that this program is"
)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::IntoRawFd as _;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

/// Longest header line and body taken; the bench sends a few hundred bytes.
const LINE_BYTES_MAX: u64 = 16 << 10;
const BODY_BYTES_MAX: u64 = 1 << 20;

const CHAT: &str = r#"{"id":"chatcmpl-mock-0000000000000000","object":"chat.completion","created":1750000000,"model":"mock-model","choices":[{"index":0,"message":{"role":"assistant","content":"The kapok tree opens its red flowers in spring, before its leaves, and bees come from far away to visit them."},"finish_reason":"stop","logprobs":null}],"usage":{"prompt_tokens":24,"completion_tokens":26,"total_tokens":50},"system_fingerprint":"fp_mock"}"#;
const MODELS: &str = r#"{"object":"list","data":[{"id":"mock-model","object":"model","created":1750000000,"owned_by":"mock"}]}"#;

/// Of a streamed answer: a token every 10 ms is a fast language model.
const EVENTS: u32 = 50;
const INTERVAL: Duration = Duration::from_millis(10);

fn main() -> ExitCode {
    let port = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let Some(listener) = port.and_then(|port: u16| TcpListener::bind(("127.0.0.1", port)).ok())
    else {
        return ExitCode::FAILURE;
    };
    for connection in listener.incoming().flatten() {
        std::thread::spawn(move || {
            // A client that goes away ends its connection, nothing else.
            if let Ok(End::Held) = serve(&connection) {
                // Without a thread: there may be ten thousand.
                let _until_the_process_ends = connection.into_raw_fd();
            }
        });
    }
    ExitCode::SUCCESS
}

/// What becomes of a connection.
enum End {
    Closed,
    /// It has begun an answer that never goes on.
    Held,
}

fn serve(connection: &TcpStream) -> io::Result<End> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection);
    let mut writer = connection;
    let mut line = Vec::new();
    let mut body = Vec::new();
    loop {
        let Some(first) = read_line(&mut reader, &mut line)? else {
            return Ok(End::Closed);
        };
        let answer = if first.starts_with(b"GET /v1/models") {
            MODELS
        } else if first.starts_with(b"GET ") {
            "{}"
        } else {
            CHAT
        };
        let length = read_headers(&mut reader, &mut line)?;
        body.clear();
        let taken = (&mut reader).take(length).read_to_end(&mut body)?;
        if (taken as u64) < length {
            return Ok(End::Closed);
        }
        if contains(&body, STREAMED) {
            begin(writer)?;
            if contains(&body, HELD) {
                event(writer)?;
                return Ok(End::Held);
            }
            stream(writer)?;
            continue;
        }
        // In one write: `write!` would make one of each of its parts, and a gateway would read them one by one.
        let whole = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        );
        writer.write_all(whole.as_bytes())?;
    }
}

const STREAMED: &[u8] = br#""stream":true"#;
const HELD: &[u8] = br#""hold":true"#;

fn contains(body: &[u8], field: &[u8]) -> bool {
    body.windows(field.len()).any(|part| part == field)
}

fn begin(mut writer: &TcpStream) -> io::Result<()> {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    writer.write_all(head.as_bytes())
}

fn stream(mut writer: &TcpStream) -> io::Result<()> {
    let start = Instant::now();
    for number in 0..EVENTS {
        let due = start + INTERVAL * number;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        event(writer)?;
    }
    chunk(writer, "data: [DONE]")?;
    writer.write_all(b"0\r\n\r\n")
}

/// It holds when it was written, in microseconds since 1970: `sse-load` reads it on the same machine's clock.
fn event(writer: &TcpStream) -> io::Result<()> {
    let micros = SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_micros());
    let event = format!(
        r#"data: {{"id":"chatcmpl-mock-0000000000000000","object":"chat.completion.chunk","created":1750000000,"model":"mock-model","choices":[{{"index":0,"delta":{{"content":"at {micros} "}},"finish_reason":null}}]}}"#
    );
    chunk(writer, &event)
}

fn chunk(mut writer: &TcpStream, event: &str) -> io::Result<()> {
    let bytes = format!("{:x}\r\n{event}\n\n\r\n", event.len() + 2);
    writer.write_all(bytes.as_bytes())
}

/// The line without its end; none at the end of the connection.
fn read_line<'a>(reader: &mut impl BufRead, line: &'a mut Vec<u8>) -> io::Result<Option<&'a [u8]>> {
    line.clear();
    reader.take(LINE_BYTES_MAX).read_until(b'\n', line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if !line.ends_with(b"\n") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Some(line.trim_ascii_end()))
}

/// Reads up to the empty line; answers the length of the body.
fn read_headers(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    let mut length = 0;
    while let Some(header) = read_line(reader, line)? {
        if header.is_empty() {
            break;
        }
        let mut parts = header.splitn(2, |byte| *byte == b':');
        let (name, value) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        if name.eq_ignore_ascii_case(b"content-length") {
            length = std::str::from_utf8(value.trim_ascii())
                .ok()
                .and_then(|text| text.parse().ok())
                .filter(|length| *length <= BODY_BYTES_MAX)
                .ok_or(io::ErrorKind::InvalidData)?;
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // Every gateway under test sends a length.
            return Err(io::ErrorKind::Unsupported.into());
        }
    }
    Ok(length)
}
