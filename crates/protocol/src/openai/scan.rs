//! What routing needs from a body, found without a tree.

use std::borrow::Cow;

use super::DEPTH_MAX;
use crate::ApiError;
use crate::json::{Fault, Kind, Lone, Reader};

/// The top-level fields that routing reads. Borrowed from the body unless something is escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts<'a> {
    pub model: Cow<'a, str>,
    /// Whether `stream` is true; anything else than a boolean is left to the upstream to refuse.
    pub stream: bool,
    /// Whether `store` is true: a chat that can be asked for again.
    pub store: bool,
    pub user: Option<Cow<'a, str>>,
    /// What requests have in common that should meet one KV cache.
    pub prompt_cache_key: Option<Cow<'a, str>>,
    pub prompt: Prompt<'a>,
}

/// What the model is given, as JSON and as written: who sends a conversation again with one turn more sends the same
/// beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prompt<'a> {
    /// `tools` and `system`, which chat templates put first; empty where there is none.
    pub before: [&'a str; 2],
    /// `messages`, `prompt` or `input`; text, or tokens.
    pub text: &'a str,
}

/// Why a body cannot be routed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    #[error("we could not parse the JSON body of your request: {0}")]
    NotJson(String),
    #[error("the JSON body of your request must be an object, and is {0}")]
    NotObject(&'static str),
    #[error("you must provide a model parameter")]
    NoModel,
    #[error("you must provide a model parameter that is a string, and it is {0}")]
    ModelNotText(&'static str),
}

impl From<ScanError> for ApiError {
    fn from(error: ScanError) -> Self {
        let api = Self::invalid(error.to_string());
        match error {
            ScanError::NotJson(_) | ScanError::NotObject(_) => api,
            ScanError::NoModel | ScanError::ModelNotText(_) => api.with_param("model"),
        }
    }
}

impl From<Fault> for ScanError {
    fn from(fault: Fault) -> Self {
        Self::NotJson(fault.to_string())
    }
}

/// Reads the whole body once, front to back. Of a name given twice the last counts, as in Python's parser.
pub fn scan(body: &[u8]) -> Result<Facts<'_>, ScanError> {
    let mut reader = Reader::new(body, DEPTH_MAX)?;
    let kind = reader.kind()?;
    if kind != Kind::Object {
        reader.skip()?;
        reader.end()?;
        return Err(ScanError::NotObject(kind.name()));
    }
    let [model, stream, store, user, prompt_cache_key, rest @ ..] = reader.fields([
        "model",
        "stream",
        "store",
        "user",
        "prompt_cache_key",
        "tools",
        "system",
        "messages",
        "prompt",
        "input",
    ])?;
    let [tools, system, messages, prompt, input] = rest;
    reader.end()?;
    let mut model = Reader::over(model.ok_or(ScanError::NoModel)?, DEPTH_MAX);
    let kind = model.kind()?;
    if kind != Kind::Text {
        return Err(ScanError::ModelNotText(kind.name()));
    }
    Ok(Facts {
        model: model.text()?.unescape(Lone::Replace)?,
        stream: stream == Some("true"),
        store: store == Some("true"),
        user: user.and_then(text),
        prompt_cache_key: prompt_cache_key.and_then(text),
        prompt: Prompt {
            before: [tools, system].map(Option::unwrap_or_default),
            text: messages.or(prompt).or(input).unwrap_or_default(),
        },
    })
}

fn text(value: &str) -> Option<Cow<'_, str>> {
    let text = Reader::over(value, DEPTH_MAX).text().ok()?;
    text.unescape(Lone::Replace).ok()
}

/// For the fuzzer: agrees with serde's tree about every body that serde accepts.
pub fn fuzz_openai_scan(data: &[u8]) {
    super::rename::fuzz(data);
    let found = scan(data);
    let Ok(tree) = serde_json::from_slice::<serde_json::Value>(data) else {
        return;
    };
    match (
        &found,
        tree.get("model").and_then(serde_json::Value::as_str),
    ) {
        (Ok(facts), model) => {
            assert_eq!(Some(facts.model.as_ref()), model, "another model was found");
            let stream = tree.get("stream") == Some(&serde_json::Value::Bool(true));
            assert_eq!(facts.stream, stream, "`stream` was misread");
            let user = tree.get("user").and_then(serde_json::Value::as_str);
            assert_eq!(facts.user.as_deref(), user, "`user` was misread");
        }
        (Err(error), model) => {
            assert_eq!(model, None, "a good body was refused");
            let json = !matches!(error, ScanError::NotJson(_));
            assert!(json, "JSON was not recognised: {error}");
        }
    }
}
