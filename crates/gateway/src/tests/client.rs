//! An HTTP/1.1 client that hides nothing: what it sends and gets are bytes.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

pub(super) struct Client {
    stream: TcpStream,
    /// Read and not yet used.
    ahead: Vec<u8>,
}

/// An answer, its body put together again.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Whether it ended as HTTP says it must.
    pub(super) whole: bool,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(have, _)| have.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub(super) fn request_id(&self) -> &str {
        self.header("x-request-id").expect("an id")
    }
}

impl Client {
    pub(super) async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("somebody listens");
        Self {
            stream,
            ahead: Vec::new(),
        }
    }

    pub(super) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> Answer {
        self.send(method, path, headers, body).await;
        within("an answer", self.answer()).await
    }

    pub(super) async fn send(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) {
        let length = if method == "POST" {
            format!("content-length: {}\r\n", body.len())
        } else {
            String::new()
        };
        let head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n{headers}{length}\r\n");
        self.write(&[head.as_bytes(), body].concat()).await;
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("a reader");
    }

    pub(super) async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let length = answer
            .header("content-length")
            .map(|text| text.parse().expect("a length"));
        if answer.header("transfer-encoding") == Some("chunked") {
            while answer.whole {
                match self.chunk().await {
                    Some(chunk) if chunk.is_empty() => break,
                    Some(chunk) => answer.body.extend(chunk),
                    None => answer.whole = false,
                }
            }
        } else {
            let length = length.unwrap_or(0);
            answer.whole = self.until(|ahead| ahead.len() >= length).await;
            let there = length.min(self.ahead.len());
            answer.body = self.ahead.drain(..there).collect();
        }
        answer
    }

    pub(super) async fn head(&mut self) -> Answer {
        let whole = self.until(|ahead| find(ahead, b"\r\n\r\n").is_some()).await;
        assert!(whole, "the connection was closed without an answer");
        let end = find(&self.ahead, b"\r\n\r\n").expect("just seen");
        let head: Vec<u8> = self.ahead.drain(..end + 4).collect();
        let head = String::from_utf8(head).expect("an ASCII head");
        let mut lines = head.lines();
        let status = lines.next().expect("a status line");
        Answer {
            status: status
                .split(' ')
                .nth(1)
                .and_then(|code| code.parse().ok())
                .expect("a status"),
            headers: lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: Vec::new(),
            whole: true,
        }
    }

    /// The next chunk; empty at the end, none if the connection ended before it.
    pub(super) async fn chunk(&mut self) -> Option<Vec<u8>> {
        if !self.until(|ahead| find(ahead, b"\r\n").is_some()).await {
            return None;
        }
        let line = find(&self.ahead, b"\r\n").expect("just seen");
        let length = std::str::from_utf8(&self.ahead[..line]).expect("a length");
        let length = usize::from_str_radix(length, 16).expect("a length");
        if !self.until(|ahead| ahead.len() >= line + 4 + length).await {
            return None;
        }
        let chunk = self.ahead[line + 2..line + 2 + length].to_vec();
        self.ahead.drain(..line + 4 + length);
        Some(chunk)
    }

    /// Whether the other side has closed; what it sent before is dropped.
    pub(super) async fn closed(&mut self) -> bool {
        within("the connection closes", self.until(|_| false)).await;
        true
    }

    async fn until(&mut self, enough: impl Fn(&[u8]) -> bool) -> bool {
        while !enough(&self.ahead) {
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return false,
                Ok(read) => self.ahead.extend(&buffer[..read]),
            }
        }
        true
    }
}

pub(super) fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
