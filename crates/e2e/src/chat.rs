//! A chat request, and what a careful caller makes of the answer: whole, an error, or neither.

use std::io;
use std::time::Duration;

use base::{Clock, Deadline};
use serde_json::{Value, json};

use crate::client::{Client, Connection, Response};

/// How an answer ended, as its caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// By every sign of its protocol. Whether the text is whole is another question.
    Complete,
    /// Told in words: a status, or an event in the stream.
    Error {
        status: u16,
        message: String,
        code: Option<String>,
    },
    /// The connection broke.
    Broken(String),
    /// Nothing decided within the caller's patience.
    Hang,
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Told {
    pub end: End,
    pub text: String,
    pub model: Option<String>,
    pub usage: Option<Value>,
    /// Events that are no JSON.
    pub garbled: usize,
    pub done_seen: bool,
    pub took: Duration,
    /// Until the first piece of text.
    pub first_text: Option<Duration>,
    pub headers: Vec<(String, String)>,
}

/// A request to `/v1/chat/completions`.
#[derive(Debug, Clone)]
pub struct Chat {
    body: Value,
    patience: Duration,
}

impl Chat {
    /// Streamed, and asking for the usage, as most programs do.
    pub fn streaming(model: &str, prompt: &str) -> Self {
        Self {
            body: json!({
                "model": model,
                "messages": [{"role": "user", "content": prompt}],
                "stream": true,
                "stream_options": {"include_usage": true},
            }),
            patience: Duration::from_secs(60),
        }
    }

    pub fn whole(model: &str, prompt: &str) -> Self {
        Self {
            body: json!({"model": model, "messages": [{"role": "user", "content": prompt}]}),
            patience: Duration::from_secs(60),
        }
    }

    /// Sets a field of the body.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.body[field] = value;
        self
    }

    /// After this it is a hang.
    #[must_use]
    pub fn within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub fn body(&self) -> String {
        self.body.to_string()
    }

    pub fn ask(&self, client: &Client) -> Told {
        self.ask_watching(client, |_| {})
    }

    /// Calls `watch` after each piece of text with all of it so far.
    pub fn ask_watching(&self, client: &Client, mut watch: impl FnMut(&str)) -> Told {
        let mut reader = Reader::new(self.patience, &mut watch);
        let end = match reader.read(client, self.body().as_bytes()) {
            Ok(end) => end,
            Err(error) if reader.late() || is_timeout(&error) => End::Hang,
            Err(error) => End::Broken(error.to_string()),
        };
        reader.told.end = end;
        reader.told.took = reader.elapsed();
        reader.told
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

struct Reader<'w> {
    watch: &'w mut dyn FnMut(&str),
    clock: Clock,
    started: std::time::Instant,
    deadline: Deadline,
    told: Told,
}

impl<'w> Reader<'w> {
    fn new(patience: Duration, watch: &'w mut dyn FnMut(&str)) -> Self {
        let clock = Clock::real();
        let started = clock.now();
        Self {
            watch,
            deadline: Deadline::after(started, patience),
            clock,
            started,
            told: Told {
                end: End::Hang,
                text: String::new(),
                model: None,
                usage: None,
                garbled: 0,
                done_seen: false,
                took: Duration::ZERO,
                first_text: None,
                headers: Vec::new(),
            },
        }
    }

    fn elapsed(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.started)
    }

    fn late(&self) -> bool {
        self.deadline.passed(self.clock.now())
    }

    /// An error once the time is up.
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.left(self.clock.now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(left)
    }

    fn read(&mut self, client: &Client, body: &[u8]) -> io::Result<End> {
        let mut connection = client.open_within(self.left()?)?;
        let mut message = client.head("POST", "/v1/chat/completions", body.len());
        message.extend_from_slice(body);
        connection.send(&message)?;
        let mut head = connection.receive_head()?;
        self.told.headers.clone_from(&head.headers);
        let streams = head
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/event-stream"));
        if streams && head.status == 200 {
            return self.read_events(&mut connection, &mut head);
        }
        while let Some(part) = self.part(&mut connection, &mut head)? {
            head.body.extend_from_slice(&part);
        }
        Ok(self.read_whole(&head))
    }

    fn part(
        &self,
        connection: &mut Connection,
        head: &mut Response,
    ) -> io::Result<Option<Vec<u8>>> {
        connection.set_patience(self.left()?)?;
        connection.receive_part(head)
    }

    fn read_whole(&mut self, response: &Response) -> End {
        let body = serde_json::from_slice::<Value>(&response.body).unwrap_or_default();
        if response.status != 200 || body.get("error").is_some() {
            let error = body.get("error").unwrap_or(&Value::Null);
            return told_error(response.status, error, &response.text());
        }
        match body.pointer("/choices/0/message") {
            Some(message) => {
                self.told.text = text_of(message);
                self.note(&body);
                End::Complete
            }
            None => {
                self.told.garbled += 1;
                End::Broken(format!("200 without an answer: {}", response.text()))
            }
        }
    }

    fn read_events(&mut self, connection: &mut Connection, head: &mut Response) -> io::Result<End> {
        let mut unread = Vec::new();
        loop {
            let Some(part) = self.part(connection, head)? else {
                // openai-python takes this for the end, with or without its sign.
                return Ok(End::Complete);
            };
            unread.extend_from_slice(&part);
            while let Some(end) = unread.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = unread.drain(..=end).collect();
                if let Some(end) = self.line(String::from_utf8_lossy(&line).trim()) {
                    return Ok(end);
                }
            }
        }
    }

    fn line(&mut self, line: &str) -> Option<End> {
        let data = line.strip_prefix("data:")?.trim();
        if data == "[DONE]" {
            self.told.done_seen = true;
            return Some(End::Complete);
        }
        let Ok(event) = serde_json::from_str::<Value>(data) else {
            self.told.garbled += 1;
            return None;
        };
        if let Some(error) = event.get("error").filter(|error| !error.is_null()) {
            return Some(told_error(200, error, data));
        }
        if let Some(delta) = event.pointer("/choices/0/delta") {
            let text = text_of(delta);
            if !text.is_empty() && self.told.first_text.is_none() {
                self.told.first_text = Some(self.elapsed());
            }
            self.told.text.push_str(&text);
            if !text.is_empty() {
                (self.watch)(&self.told.text);
            }
        }
        self.note(&event);
        None
    }

    fn note(&mut self, said: &Value) {
        if let Some(model) = said["model"].as_str() {
            self.told.model = Some(model.to_owned());
        }
        if said["usage"].is_object() {
            self.told.usage = Some(said["usage"].clone());
        }
    }
}

fn text_of(message: &Value) -> String {
    message["content"].as_str().unwrap_or_default().to_owned()
}

fn told_error(status: u16, error: &Value, text: &str) -> End {
    End::Error {
        status,
        message: error["message"].as_str().unwrap_or(text).to_owned(),
        code: error["code"].as_str().map(str::to_owned),
    }
}
