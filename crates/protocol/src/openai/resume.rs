use std::borrow::Cow;
use std::ops::Range;

use super::DEPTH_MAX;
use super::chunk::{place, splice};
use crate::json::{Fault, Kind, Lone, Reader};

/// How a server is told to go on with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// A chat whose last message is the assistant's is continued.
    Prefill,
    /// The same, if the request says so in the way of vLLM and SGLang.
    ContinueFinalMessage,
    /// A completion's prompt grows by the text.
    Prompt,
}

/// Why nobody but the server that began can end an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoResume {
    #[error("it asks for several answers")]
    Several,
    #[error("it asks for log probabilities")]
    LogProbabilities,
    #[error("its answer must have a structure")]
    Structured,
    #[error("its prompt is not one text")]
    Prompt,
    #[error("its last message is the assistant's own")]
    Prefilled,
    #[error("it could not be read")]
    Unreadable,
}

impl From<Fault> for NoResume {
    fn from(_: Fault) -> Self {
        Self::Unreadable
    }
}

/// Of a body that was read: what decides whether and how it is continued.
#[derive(Debug)]
struct Request<'a> {
    messages: Option<&'a str>,
    prompt: Option<&'a str>,
    limits: [Option<&'a str>; 2],
    open: Range<usize>,
}

/// Fields with which a request asks for more than one text.
const STRUCTURED: [&str; 8] = [
    "response_format",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "grammar",
    "json_schema",
];

/// The request for the rest of an answer of which the client has `text`, in about `pieces` tokens.
pub fn resumed(body: &[u8], text: &str, pieces: u64, how: Resume) -> Result<Vec<u8>, NoResume> {
    let request = read(body)?;
    let quoted = serde_json::Value::from(text).to_string();
    let mut edits: Vec<(Range<usize>, Cow<'_, str>)> = Vec::new();
    match how {
        Resume::Prompt => {
            let prompt = request.prompt.ok_or(NoResume::Prompt)?;
            if Reader::over(prompt, DEPTH_MAX).kind()? != Kind::Text {
                return Err(NoResume::Prompt);
            }
            let end = place(body, prompt).ok_or(NoResume::Unreadable)?.end - 1;
            let inner = quoted.get(1..quoted.len() - 1).unwrap_or_default();
            edits.push((end..end, inner.to_owned().into()));
        }
        Resume::Prefill | Resume::ContinueFinalMessage => {
            let messages = request.messages.ok_or(NoResume::Unreadable)?;
            if last_role(messages)?.as_deref() == Some("assistant") {
                return Err(NoResume::Prefilled);
            }
            let end = place(body, messages).ok_or(NoResume::Unreadable)?.end - 1;
            let message = format!(",{{\"role\":\"assistant\",\"content\":{quoted}}}");
            edits.push((end..end, message.into()));
            if how == Resume::ContinueFinalMessage {
                let fields = "\"add_generation_prompt\":false,\"continue_final_message\":true,";
                edits.push((request.open.clone(), fields.into()));
            }
        }
    }
    for limit in request.limits.into_iter().flatten() {
        if let (Ok(tokens), Some(at)) = (limit.parse::<u64>(), place(body, limit)) {
            let left = tokens.saturating_sub(pieces).max(1).to_string();
            edits.push((at, left.into()));
        }
    }
    edits.sort_by_key(|(place, _)| place.start);
    let edits: Vec<(Range<usize>, &str)> = edits
        .iter()
        .map(|(place, text)| (place.clone(), text.as_ref()))
        .collect();
    Ok(splice(body, &edits))
}

/// Whether the same request made again may be compared with what the client has already, text for text.
pub fn comparable(body: &[u8]) -> Result<(), NoResume> {
    read(body).map(drop)
}

fn read(body: &[u8]) -> Result<Request<'_>, NoResume> {
    let mut reader = Reader::new(body, DEPTH_MAX)?;
    let (mut messages, mut prompt, mut limits) = (None, None, [None; 2]);
    reader.object(|reader, key| {
        let key = key.unescape(Lone::Replace)?;
        let value = reader.skip()?;
        match &*key {
            "messages" => messages = Some(value).filter(|value| value.starts_with('[')),
            "prompt" => prompt = Some(value),
            "max_tokens" => limits[0] = Some(value),
            "max_completion_tokens" => limits[1] = Some(value),
            "n" | "best_of" if !matches!(value, "1" | "null") => return Err(NoResume::Several),
            "logprobs" | "top_logprobs" if !matches!(value, "false" | "null" | "0") => {
                return Err(NoResume::LogProbabilities);
            }
            "echo" if value == "true" => return Err(NoResume::Structured),
            name if STRUCTURED.contains(&name) && structured(value) => {
                return Err(NoResume::Structured);
            }
            _ => {}
        }
        Ok(())
    })?;
    reader.end()?;
    let open = body.iter().position(|byte| *byte == b'{');
    let open = open.ok_or(NoResume::Unreadable)? + 1;
    Ok(Request {
        messages,
        prompt,
        limits,
        open: open..open,
    })
}

/// `{"type":"text"}` is what a request without the field asks for.
fn structured(value: &str) -> bool {
    if value == "null" {
        return false;
    }
    let kind = Reader::over(value, DEPTH_MAX).fields(["type"]);
    !matches!(kind, Ok([Some("\"text\"")]))
}

fn last_role(messages: &str) -> Result<Option<Cow<'_, str>>, NoResume> {
    let mut last = None;
    Reader::over(messages, DEPTH_MAX).array(|reader| {
        let [role] = reader.fields(["role"])?;
        last = role;
        Ok::<(), Fault>(())
    })?;
    let Some(role) = last else {
        return Err(NoResume::Unreadable);
    };
    Ok(Some(
        Reader::over(role, DEPTH_MAX)
            .text()?
            .unescape(Lone::Replace)?,
    ))
}

/// For the fuzzer: what was resumed is JSON, with one message more or a longer prompt, and the rest unchanged.
pub fn fuzz_openai_resume(data: &[u8]) {
    const TEXT: &str = "said \"so\" far\n";
    for how in [
        Resume::Prefill,
        Resume::ContinueFinalMessage,
        Resume::Prompt,
    ] {
        let Ok(resumed) = resumed(data, TEXT, 3, how) else {
            continue;
        };
        let tree = |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body);
        let (Ok(before), Ok(after)) = (tree(data), tree(&resumed)) else {
            assert!(tree(data).is_err(), "what was JSON is none any more");
            continue;
        };
        assert_eq!(before.get("model"), after.get("model"));
        if how == Resume::Prompt {
            let text = |tree: &serde_json::Value| tree.get("prompt")?.as_str().map(str::to_owned);
            let longer = text(&before).map(|prompt| prompt + TEXT);
            assert_eq!(text(&after), longer);
        } else {
            let last = after
                .pointer("/messages")
                .and_then(|messages| messages.as_array()?.last());
            let content = last.and_then(|last| last.get("content"));
            assert_eq!(content, Some(&TEXT.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, how: Resume, expected: Result<&str, NoResume>) {
        let found = resumed(body.as_bytes(), " \"so\" far", 2, how);
        let found = found.map(|body| String::from_utf8(body).expect("text"));
        assert_eq!(found, expected.map(str::to_owned), "{body}");
    }

    #[test]
    fn the_rest_is_asked_for_and_nothing_else_changes() {
        check(
            "{\"model\":\"m\", \"messages\" : [ {\"role\":\"user\",\"content\":\"hi\"} ],\"temperature\":0.70}",
            Resume::Prefill,
            Ok(
                "{\"model\":\"m\", \"messages\" : [ {\"role\":\"user\",\"content\":\"hi\"} ,{\"role\":\"assistant\",\"content\":\" \\\"so\\\" far\"}],\"temperature\":0.70}",
            ),
        );
        check(
            "{\"max_tokens\":9,\"messages\":[{\"role\":\"user\"}]}",
            Resume::ContinueFinalMessage,
            Ok(
                "{\"add_generation_prompt\":false,\"continue_final_message\":true,\"max_tokens\":7,\"messages\":[{\"role\":\"user\"},{\"role\":\"assistant\",\"content\":\" \\\"so\\\" far\"}]}",
            ),
        );
        check(
            "{\"prompt\":\"once\\n\",\"max_tokens\":2}",
            Resume::Prompt,
            Ok("{\"prompt\":\"once\\n \\\"so\\\" far\",\"max_tokens\":1}"),
        );
    }

    #[test]
    fn what_nobody_else_can_end_is_refused_with_the_reason() {
        let user = "\"messages\":[{\"role\":\"user\"}]";
        for (field, why) in [
            ("\"n\":2", NoResume::Several),
            ("\"best_of\":2", NoResume::Several),
            ("\"logprobs\":true", NoResume::LogProbabilities),
            ("\"top_logprobs\":3", NoResume::LogProbabilities),
            (
                "\"response_format\":{\"type\":\"json_object\"}",
                NoResume::Structured,
            ),
            ("\"guided_json\":{}", NoResume::Structured),
        ] {
            check(
                &format!("{{{user},{field}}}"),
                Resume::Prefill,
                Err(why.clone()),
            );
            assert_eq!(comparable(format!("{{{field}}}").as_bytes()), Err(why));
        }
        check("{\"prompt\":[1,2]}", Resume::Prompt, Err(NoResume::Prompt));
        check(
            "{\"prompt\":[\"a\"]}",
            Resume::Prompt,
            Err(NoResume::Prompt),
        );
        let own = "{\"messages\":[{\"role\":\"user\"},{\"role\":\"assistant\"}]}";
        check(own, Resume::Prefill, Err(NoResume::Prefilled));
        check(
            "{\"messages\":[]}",
            Resume::Prefill,
            Err(NoResume::Unreadable),
        );
        let plain = format!(
            "{{{user},\"n\":1,\"logprobs\":false,\"response_format\":{{\"type\":\"text\"}}}}"
        );
        assert_eq!(comparable(plain.as_bytes()), Ok(()));
    }
}
