//! A small blocking HTTP/1.1 client that hides nothing: raw bytes can be sent, and answers are read as they come.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::kapok::fail;
use crate::wait::PATIENCE;

/// One connection per request, unless [`Client::open`] is used.
#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    headers: Vec<(String, String)>,
}

impl Client {
    pub fn to(address: SocketAddr) -> Self {
        Self {
            address,
            headers: Vec::new(),
        }
    }

    /// Sent with every request.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn bearer(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, b"")
    }

    pub fn try_get(&self, path: &str) -> io::Result<Response> {
        self.open()?.exchange(&self.head("GET", path, 0))
    }

    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Response {
        self.request("POST", path, body.as_ref())
    }

    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Response {
        let mut message = self.head(method, path, body.len());
        message.extend_from_slice(body);
        self.raw(&message)
    }

    /// Sends exactly these bytes and reads one answer.
    pub fn raw(&self, message: &[u8]) -> Response {
        self.open()
            .and_then(|mut connection| connection.exchange(message))
            .unwrap_or_else(|error| fail(&format!("no answer: {error}")))
    }

    pub fn open(&self) -> io::Result<Connection> {
        self.open_within(PATIENCE)
    }

    /// Waits so long for each thing, and no longer.
    pub fn open_within(&self, patience: Duration) -> io::Result<Connection> {
        let socket = TcpStream::connect_timeout(&self.address, patience)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        socket.set_nodelay(true)?;
        Ok(Connection {
            reader: BufReader::new(socket.try_clone()?),
            socket,
        })
    }

    /// The head of a request with a body of this length; bodies are JSON unless a header says otherwise.
    pub fn head(&self, method: &str, path: &str, length: usize) -> Vec<u8> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        let given = |name: &str| self.headers.iter().any(|(have, _)| have == name);
        if method != "GET" && !given("content-length") {
            head.push_str(&format!("content-length: {length}\r\n"));
        }
        if length > 0 && !given("content-type") {
            head.push_str("content-type: application/json\r\n");
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// From here on.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(patience))
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// One request, one whole answer. A server that refuses early may close before all is sent; its answer counts.
    pub fn exchange(&mut self, message: &[u8]) -> io::Result<Response> {
        let sent = self.send(message);
        match self.receive() {
            Ok(response) => Ok(response),
            Err(error) => Err(sent.err().unwrap_or(error)),
        }
    }

    pub fn receive(&mut self) -> io::Result<Response> {
        let mut response = self.receive_head()?;
        loop {
            match self.receive_part(&mut response)? {
                Some(part) => response.body.extend_from_slice(&part),
                None => return Ok(response),
            }
        }
    }

    /// Status and headers; the body is left to [`Connection::receive_part`].
    pub fn receive_head(&mut self) -> io::Result<Response> {
        let status_line = self.line()?;
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| broken(format!("not a status line: {status_line:?}")))?;
        let mut response = Response {
            status,
            ..Response::default()
        };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| broken(line.clone()))?;
            let header = (name.to_ascii_lowercase(), value.trim().to_owned());
            response.headers.push(header);
        }
        response.left = response.body_kind();
        Ok(response)
    }

    /// The next part of the body as it arrived: a chunk's payload, or what is there of a plain body. None is its proper
    /// end; a body that is cut is an error of kind `UnexpectedEof`.
    pub fn receive_part(&mut self, response: &mut Response) -> io::Result<Option<Vec<u8>>> {
        match response.left {
            Left::Nothing => Ok(None),
            Left::Chunks => self.chunk(response),
            Left::Bytes(left) => {
                let mut part = vec![0; left.min(1 << 16)];
                let got = self.reader.read(&mut part)?;
                if got == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                part.truncate(got);
                response.left = match left - got {
                    0 => Left::Nothing,
                    more => Left::Bytes(more),
                };
                Ok(Some(part))
            }
        }
    }

    fn chunk(&mut self, response: &mut Response) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let size = usize::from_str_radix(&line, 16).map_err(|_| broken(line))?;
        let mut part = vec![0; size + 2];
        self.reader.read_exact(&mut part)?;
        if part.split_off(size) != b"\r\n" {
            return Err(broken("a chunk without its end".to_owned()));
        }
        if size == 0 {
            response.left = Left::Nothing;
            return Ok(None);
        }
        Ok(Some(part))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Everything until the other side closes.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

fn broken(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What is still to come of a body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Left {
    #[default]
    Nothing,
    Bytes(usize),
    Chunks,
}

/// Header names are in lower case.
#[derive(Debug, Clone, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    left: Left,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(have, _)| have == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            fail(&format!(
                "not JSON ({error}): {} {:?}",
                self.status,
                self.text()
            ))
        })
    }

    /// The stages of `Server-Timing` in milliseconds, `total` included.
    pub fn server_timing(&self) -> Vec<(String, f64)> {
        let value = self.header("server-timing").unwrap_or_default();
        value
            .split(", ")
            .filter_map(|stage| {
                let (name, duration) = stage.split_once(";dur=")?;
                Some((name.to_owned(), duration.parse().ok()?))
            })
            .collect()
    }

    fn body_kind(&self) -> Left {
        let chunked = self
            .header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        if chunked {
            return Left::Chunks;
        }
        match self.header("content-length").map(str::parse) {
            Some(Ok(length)) if length > 0 => Left::Bytes(length),
            _ => Left::Nothing,
        }
    }
}
