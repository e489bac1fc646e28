//! An OpenAI-compatible upstream that costs next to nothing: the fixed end of `cargo xtask bench relay`.
//!
//! One thread per connection, the standard library only, so that the bench can compile this file by itself with
//! optimisation and not wait for an optimised build of everything else.
//!
//! ```text
//! mock-upstream PORT
//! ```

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

/// Longest header line and body taken; the bench sends a few hundred bytes.
const LINE_BYTES_MAX: u64 = 16 << 10;
const BODY_BYTES_MAX: u64 = 1 << 20;

const CHAT: &str = r#"{"id":"chatcmpl-mock-0000000000000000","object":"chat.completion","created":1750000000,"model":"mock-model","choices":[{"index":0,"message":{"role":"assistant","content":"The kapok tree opens its red flowers in spring, before its leaves, and bees come from far away to visit them."},"finish_reason":"stop","logprobs":null}],"usage":{"prompt_tokens":24,"completion_tokens":26,"total_tokens":50},"system_fingerprint":"fp_mock"}"#;
const MODELS: &str = r#"{"object":"list","data":[{"id":"mock-model","object":"model","created":1750000000,"owned_by":"mock"}]}"#;

fn main() -> ExitCode {
    let port = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let Some(listener) = port.and_then(|port: u16| TcpListener::bind(("127.0.0.1", port)).ok())
    else {
        return ExitCode::FAILURE;
    };
    for connection in listener.incoming().flatten() {
        std::thread::spawn(move || {
            // A client that goes away ends its connection, nothing else.
            let _ended = serve(&connection);
        });
    }
    ExitCode::SUCCESS
}

fn serve(connection: &TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection);
    let mut writer = connection;
    let mut line = Vec::new();
    let mut body = Vec::new();
    loop {
        let Some(first) = read_line(&mut reader, &mut line)? else {
            return Ok(());
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
            return Ok(());
        }
        write!(
            writer,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        )?;
    }
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
