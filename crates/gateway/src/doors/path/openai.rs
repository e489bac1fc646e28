//! The calls of OpenAI's and Anthropic's APIs.

use http::Method;

use super::{ANY, BOTH, Call, DELETE, GET, OpenAi, POST, decode};
use crate::operation::Operation;

/// What OpenAI's and Anthropic's servers keep for those who use models, by the first word of its path. The administration
/// of an account (`organization`, `projects`, webhooks, vaults) is not among it: our credentials may open it, and nobody
/// who sets up a gateway for models expects that.
const STORED: [&str; 18] = [
    "agents",
    "assistants",
    "batches",
    "chatkit",
    "containers",
    "content_provenance_checks",
    "conversations",
    "decisions",
    "evals",
    "files",
    "fine_tuning",
    "live",
    "realtime",
    "skills",
    "threads",
    "uploads",
    "vector_stores",
    "videos",
];

/// Calls that do no more than ask a model; those that we do not know may change what an upstream serves.
const INFERENCE: [&str; 14] = [
    "audio/speech",
    "audio/transcriptions",
    "audio/translations",
    "classify",
    "images/edits",
    "images/generations",
    "images/variations",
    "moderations",
    "pooling",
    "rerank",
    "reranking",
    "responses/compact",
    "responses/input_tokens",
    "score",
];

pub(super) fn call(method: &Method, segments: &[&str]) -> Option<(Call, &'static str)> {
    let of = |call, allow| (Call::OpenAi(call), allow);
    let post = |operation| of(OpenAi::Post(operation), POST);
    let stored = |operation| of(OpenAi::Stored(operation), ANY);
    let all_stored = |operation| of(OpenAi::Stored(operation), BOTH);
    Some(match segments {
        ["models"] => of(OpenAi::List, GET),
        // Model names have slashes in them, and not every client escapes those.
        ["models", name @ ..] => {
            let name = decode(&name.join("/"))?;
            if method == Method::DELETE {
                of(OpenAi::Delete(name), DELETE)
            } else {
                of(OpenAi::Get(name), DELETE)
            }
        }
        ["chat", "completions"] if method == Method::POST => post(Operation::ChatCompletions),
        ["chat", "completions"] => all_stored(Operation::OpenAiStored),
        ["chat", "completions", ..] => stored(Operation::OpenAiStored),
        ["completions"] => post(Operation::Completions),
        ["embeddings"] => post(Operation::Embeddings),
        ["messages"] => post(Operation::Messages),
        ["messages", "count_tokens"] => post(Operation::CountTokens),
        ["messages", "batches"] => all_stored(Operation::AnthropicStored),
        ["messages", "batches", ..] => stored(Operation::AnthropicStored),
        ["responses"] => post(Operation::Responses),
        [_, ..] if INFERENCE.contains(&segments.join("/").as_str()) => post(Operation::OpenAiOther),
        ["responses", ..] | ["audio", "voice_consents" | "voices", ..] => {
            stored(Operation::OpenAiStored)
        }
        [first] if STORED.contains(first) => all_stored(Operation::OpenAiStored),
        [first, ..] if STORED.contains(first) => stored(Operation::OpenAiStored),
        [_, ..] => of(OpenAi::Other, ANY),
        [] => return None,
    })
}
