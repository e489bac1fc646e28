//! An OpenAI-compatible provider with one known answer, which it gives a token at a time, unless it is told to fail.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::upstream::{Answer, FakeUpstream, Received};

/// Sixty words, so that a part of it is never taken for the whole.
pub const ANSWER: &str = "The kapok tree stands high above the forest and flowers only when it has let go of every leaf. \
Bats come for the nectar at night, carry pollen from crown to crown, and never ask which branch was broken by the \
storm. By morning the petals lie on the ground, the seeds are growing, and nobody has missed a thing.";

/// Between two tokens: a fast server with a small model.
const TOKEN_INTERVAL: Duration = Duration::from_millis(10);

/// How a provider misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The first so many requests get this.
    Refuses {
        refusal: Refusal,
        first: usize,
    },
    /// 503 for so long after its first request, then well.
    Flaps(Duration),
    /// The first so many connections are reset once the request is there.
    Resets {
        first: usize,
    },
    /// Takes the request and says nothing for so long, then closes.
    Silent(Duration),
    /// Answers at once with a head, and with a first token after so long.
    SlowStart(Duration),
    /// The connection is gone after so many tokens.
    CutsAfter(usize),
    /// Silent after so many tokens, and gone after that long.
    StallsAfter(usize, Duration),
    /// An event that is no JSON before this token; the rest is as it should be.
    GarblesAt(usize),
    /// Everything but `[DONE]`.
    NoDone,
}

/// A status with OpenAI's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    RateLimit { retry_after_s: Option<u32> },
    ServerError,
    Overloaded,
    ContextLength,
    ContentFilter,
}

/// What becomes of a request whose last message is the beginning of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// It is continued.
    Continued,
    /// 400, as some providers say.
    Refused,
}

/// One request as the provider saw it.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Since the provider's start.
    pub at: Duration,
    pub model: String,
    /// Whether it ended with the beginning of the answer.
    pub prefix: Option<String>,
    /// Whether that was refused.
    pub prefix_refused: bool,
    /// Whether an answer was begun, whatever became of it.
    pub answered: bool,
    pub body: Vec<u8>,
}

/// Listens on loopback until dropped.
pub struct Provider {
    upstream: FakeUpstream,
    attempts: Arc<Mutex<Vec<Attempt>>>,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("upstream", &self.upstream)
            .finish_non_exhaustive()
    }
}

impl Provider {
    pub fn healthy() -> Self {
        Self::start(Fault::None, Prefix::Continued)
    }

    pub fn start(fault: Fault, prefix: Prefix) -> Self {
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let script = Script {
            fault,
            prefix,
            asked: AtomicUsize::new(0),
            first_at: Mutex::new(None),
            attempts: Arc::clone(&attempts),
        };
        Self {
            upstream: FakeUpstream::answering(move |request| script.answer(request)).forgetful(),
            attempts,
        }
    }

    pub fn url(&self) -> String {
        self.upstream.url()
    }

    /// Chat requests so far.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().clone()
    }

    pub fn wait_for_disconnect(&self) {
        self.upstream.wait_for_disconnect();
    }
}

/// A fault and what it has done so far.
struct Script {
    fault: Fault,
    prefix: Prefix,
    asked: AtomicUsize,
    first_at: Mutex<Option<Duration>>,
    attempts: Arc<Mutex<Vec<Attempt>>>,
}

impl Script {
    fn answer(&self, request: &Received) -> Answer {
        if request.method != "POST" {
            return introduction(&request.path);
        }
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        let chat = ChatRequest::of(request);
        let refused = self.refusal(request.at, asked);
        let prefix_refused = chat.prefix.is_some() && self.prefix == Prefix::Refused;
        self.attempts.lock().push(Attempt {
            at: request.at,
            model: chat.model.clone(),
            prefix: chat.prefix.clone(),
            prefix_refused: prefix_refused && refused.is_none(),
            answered: refused.is_none() && !prefix_refused,
            body: request.body.clone(),
        });
        if let Some(refused) = refused {
            return refused;
        }
        if prefix_refused {
            return error(
                400,
                "invalid_request_error",
                Some("invalid_prefill"),
                "the conversation must end with a message of the user",
            );
        }
        if chat.stream {
            self.stream(&chat)
        } else {
            self.whole(&chat)
        }
    }

    /// What comes instead of an answer.
    fn refusal(&self, at: Duration, asked: usize) -> Option<Answer> {
        match self.fault {
            Fault::Refuses { refusal, first } => (asked < first).then(|| refusal.answer()),
            Fault::Flaps(down) => {
                let since = *self.first_at.lock().get_or_insert(at);
                (at < since + down).then(|| Refusal::Overloaded.answer())
            }
            Fault::Resets { first } => (asked < first).then(Answer::reset),
            Fault::Silent(time) => Some(Answer::new().pause(time).cut()),
            Fault::None
            | Fault::SlowStart(_)
            | Fault::CutsAfter(_)
            | Fault::StallsAfter(..)
            | Fault::GarblesAt(_)
            | Fault::NoDone => None,
        }
    }

    fn whole(&self, chat: &ChatRequest) -> Answer {
        let words = chat.words();
        let body = json!({
            "id": "chatcmpl-wall", "object": "chat.completion", "created": 1_790_000_000, "model": chat.model,
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": words.concat()}}],
            "usage": chat.usage(words.len()),
        })
        .to_string();
        match self.fault {
            Fault::SlowStart(time) => Answer::new().pause(time).append(Answer::json(&body)),
            Fault::CutsAfter(_) | Fault::StallsAfter(..) => {
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                let (half, _) = body.split_at(body.len() / 2);
                let begun = Answer::new().write(head).write(half);
                match self.fault {
                    Fault::StallsAfter(_, time) => begun.pause(time).cut(),
                    _ => begun.cut(),
                }
            }
            _ => Answer::json(&body),
        }
    }

    fn stream(&self, chat: &ChatRequest) -> Answer {
        let words = chat.words();
        let event = |delta: Value, finish: Value| {
            json!({
                "id": "chatcmpl-wall", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": chat.model,
                "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
            })
            .to_string()
        };
        let mut answer = Answer::events();
        if let Fault::SlowStart(time) = self.fault {
            answer = answer.pause(time);
        }
        let role = json!({"role": "assistant", "content": ""});
        answer = answer.event(&event(role, Value::Null));
        for (sent, word) in words.iter().enumerate() {
            match self.fault {
                Fault::CutsAfter(tokens) if tokens == sent => return answer.cut(),
                Fault::StallsAfter(tokens, time) if tokens == sent => {
                    return answer.pause(time).cut();
                }
                Fault::GarblesAt(token) if token == sent => {
                    answer = answer.event("{\"id\":\"chatcmpl-wall\",\"choices\":[{\"delta\":");
                }
                _ => {}
            }
            answer = answer.event(&event(json!({"content": word}), Value::Null));
            answer = answer.pause(TOKEN_INTERVAL);
        }
        if self.fault == Fault::CutsAfter(words.len()) {
            return answer.cut();
        }
        answer = answer.event(&event(json!({}), json!("stop")));
        if chat.include_usage {
            let usage = json!({
                "id": "chatcmpl-wall", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": chat.model,
                "choices": [], "usage": chat.usage(words.len()),
            });
            answer = answer.event(&usage.to_string());
        }
        match self.fault {
            Fault::NoDone => answer.chunk(""),
            _ => answer.done(),
        }
    }
}

impl Refusal {
    fn answer(self) -> Answer {
        let (status, kind, code, message) = match self {
            Self::RateLimit { .. } => (
                429,
                "rate_limit_error",
                Some("rate_limit_exceeded"),
                "too many requests for this model",
            ),
            Self::ServerError => (500, "server_error", None, "the server had an error"),
            Self::Overloaded => (
                503,
                "server_error",
                Some("overloaded"),
                "the engine is overloaded, try again later",
            ),
            Self::ContextLength => (
                400,
                "invalid_request_error",
                Some("context_length_exceeded"),
                "this model's maximum context length is 8192 tokens, and your messages have 9631",
            ),
            Self::ContentFilter => (
                400,
                "invalid_request_error",
                Some("content_policy_violation"),
                "the request was rejected by the safety system",
            ),
        };
        match self {
            Self::RateLimit {
                retry_after_s: Some(seconds),
            } => {
                let header = format!("retry-after: {seconds}\r\n");
                error_with(status, kind, code, message, &header)
            }
            _ => error(status, kind, code, message),
        }
    }
}

fn error(status: u16, kind: &str, code: Option<&str>, message: &str) -> Answer {
    error_with(status, kind, code, message, "")
}

fn error_with(status: u16, kind: &str, code: Option<&str>, message: &str, headers: &str) -> Answer {
    let body = json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
        .to_string();
    let head = format!(
        "HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    Answer::new().write(head).write(body)
}

/// What routers ask for before they send anything.
fn introduction(path: &str) -> Answer {
    if path.starts_with("/v1/models") {
        let models = json!({
            "object": "list",
            "data": [{"id": "wall", "object": "model", "created": 1_790_000_000, "owned_by": "wall"}],
        });
        return Answer::json(&models.to_string());
    }
    Answer::json("{}")
}

/// What matters of a request.
struct ChatRequest {
    model: String,
    stream: bool,
    include_usage: bool,
    prompt_words: usize,
    prefix: Option<String>,
}

impl ChatRequest {
    fn of(request: &Received) -> Self {
        let body = serde_json::from_slice::<Value>(&request.body).unwrap_or_default();
        let messages = body["messages"].as_array().cloned().unwrap_or_default();
        let content = |message: &Value| message["content"].as_str().unwrap_or_default().to_owned();
        let prefix = messages
            .last()
            .filter(|message| message["role"] == "assistant")
            .map(content);
        Self {
            model: body["model"].as_str().unwrap_or_default().to_owned(),
            stream: body["stream"] == true,
            include_usage: body["stream_options"]["include_usage"] == true,
            prompt_words: messages
                .iter()
                .map(|message| content(message).split_whitespace().count())
                .sum(),
            prefix,
        }
    }

    /// The tokens to say, each with the space before it.
    fn words(&self) -> Vec<&'static str> {
        let said = self.prefix.as_deref().unwrap_or_default();
        let left = ANSWER.strip_prefix(said).unwrap_or(ANSWER);
        let mut starts: Vec<_> = left.match_indices(' ').map(|(at, _)| at).collect();
        if !left.is_empty() && !left.starts_with(' ') {
            starts.insert(0, 0);
        }
        let ends = starts.iter().skip(1).copied().chain([left.len()]);
        let token = |(start, end): (&usize, usize)| left.get(*start..end);
        starts.iter().zip(ends).filter_map(token).collect()
    }

    fn usage(&self, completion: usize) -> Value {
        json!({
            "prompt_tokens": self.prompt_words,
            "completion_tokens": completion,
            "total_tokens": self.prompt_words + completion,
        })
    }
}

#[cfg(test)]
mod tests;
