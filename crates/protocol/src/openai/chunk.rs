use std::borrow::Cow;
use std::ops::Range;

use super::DEPTH_MAX;
use super::usage::Usage;
use crate::json::{Fault, Kind, Lone, Reader};

/// One event of a chat or completions stream, as far as going on with it elsewhere needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The text that it adds to the answer.
    pub text: Option<Cow<'a, str>>,
    /// Whether it says why the answer ends here.
    pub finished: bool,
    /// Part of the answer that is more than text, so that nobody else can go on with it.
    pub opaque: Option<&'static str>,
    /// Whether there is anything of the answer in it: a role, text, a reason to stop.
    pub speaks: bool,
    /// What went wrong, if the event says so instead.
    pub error: Option<StreamError>,
    /// What it says was used so far.
    pub usage: Option<Usage>,
    /// The usage as it is written.
    told: Option<&'a str>,
    /// The text as it is written.
    quoted: Option<&'a str>,
    id: Option<&'a str>,
    created: Option<&'a str>,
    model: Option<&'a str>,
    finish_reason: Option<&'a str>,
}

/// An error that an upstream sends as an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamError {
    /// The request is at fault: every upstream would say so.
    Request,
    /// The upstream is.
    Upstream,
}

/// What all events of one answer have in common, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    id: Option<Box<str>>,
    created: Option<Box<str>>,
}

/// Reads an event's data. An error means that it is not the JSON object that it should be.
pub fn chunk(data: &[u8]) -> Result<Chunk<'_>, String> {
    read(data).map_err(|fault| fault.to_string())
}

fn read(data: &[u8]) -> Result<Chunk<'_>, Fault> {
    let mut reader = Reader::new(data, DEPTH_MAX)?;
    let names = ["id", "created", "model", "choices", "usage", "error"];
    let [id, created, model, choices, usage, error] = reader.fields(names)?;
    reader.end()?;
    let mut chunk = Chunk {
        id,
        created,
        model,
        usage: usage.and_then(Usage::read),
        told: usage,
        error: error.filter(|error| *error != "null").map(whose_fault),
        ..Chunk::default()
    };
    let Some(choices) = choices.filter(|choices| choices.starts_with('[')) else {
        return Ok(chunk);
    };
    Reader::over(choices, DEPTH_MAX).array(|reader| {
        let names = ["index", "delta", "text", "finish_reason", "logprobs"];
        let [index, delta, text, finish, logprobs] = reader.fields(names)?;
        chunk.speaks = true;
        if index.is_some_and(|index| index != "0") {
            chunk.opaque = Some("it has several answers");
        }
        if logprobs.is_some_and(|value| value != "null") {
            chunk.opaque = Some("it has log probabilities");
        }
        let finish = finish.filter(|reason| *reason != "null");
        chunk.finished |= finish.is_some();
        chunk.finish_reason = finish.or(chunk.finish_reason);
        if let Some(text) = text {
            (chunk.text, chunk.quoted) = (string(text)?, Some(text));
        }
        match delta {
            Some(delta) if delta.starts_with('{') => read_delta(delta, &mut chunk),
            _ => Ok(()),
        }
    })?;
    Ok(chunk)
}

fn read_delta<'a>(delta: &'a str, chunk: &mut Chunk<'a>) -> Result<(), Fault> {
    Reader::over(delta, DEPTH_MAX).object(|reader, key| {
        let key = key.unescape(Lone::Replace)?;
        let value = reader.skip()?;
        match &*key {
            "role" => {}
            "content" => (chunk.text, chunk.quoted) = (string(value)?, Some(value)),
            _ if matches!(value, "null" | "[]" | "\"\"" | "{}") => {}
            "tool_calls" | "function_call" => chunk.opaque = Some("it calls a tool"),
            _ => chunk.opaque = Some("it is more than text"),
        }
        Ok(())
    })
}

impl Chunk<'_> {
    /// The answer's id, if it is text.
    pub fn id(&self) -> Option<Box<str>> {
        named(self.id)
    }

    /// What the server calls the model.
    pub fn model(&self) -> Option<Box<str>> {
        named(self.model)
    }

    /// Why the answer ends here.
    pub fn finish_reason(&self) -> Option<Box<str>> {
        named(self.finish_reason)
    }
}

fn named(value: Option<&str>) -> Option<Box<str>> {
    Some(string(value?).ok()??.into())
}

fn string(value: &str) -> Result<Option<Cow<'_, str>>, Fault> {
    let mut reader = Reader::over(value, DEPTH_MAX);
    if reader.kind()? != Kind::Text {
        return Ok(None);
    }
    reader.text()?.unescape(Lone::Replace).map(Some)
}

/// Of what other servers would refuse too, the type or the code says so; a number is an HTTP status.
fn whose_fault(error: &str) -> StreamError {
    let fields = Reader::over(error, DEPTH_MAX).fields(["type", "code"]);
    let Ok([kind, code]) = fields else {
        return StreamError::Upstream;
    };
    let refused = kind.is_some_and(|kind| kind.contains("invalid_request"));
    let status = code.and_then(|code| code.trim_matches('"').parse::<u16>().ok());
    if refused || status.is_some_and(|status| (400..500).contains(&status) && status != 429) {
        StreamError::Request
    } else {
        StreamError::Upstream
    }
}

impl Chunk<'_> {
    pub fn identity(&self) -> Identity {
        Identity {
            id: self.id.map(Box::from),
            created: self.created.map(Box::from),
        }
    }

    /// What was used for the whole answer, of which `before` tokens were another server's, given to this one as a part of
    /// its prompt: prompt and answer sum up as before. None if it tells no usage, or one that has no room for them.
    pub fn usage_after(&self, before: u64) -> Option<Usage> {
        let usage = self.usage?;
        Some(Usage {
            prompt: usage.prompt.checked_sub(before)?,
            output: usage.output + before,
        })
    }

    /// The event's data as if it belonged to the answer that began under `identity`; every other byte stays as it is.
    pub fn renamed(&self, data: &[u8], identity: &Identity, change: Change<'_>) -> Vec<u8> {
        let quoted = change
            .text
            .map(|text| serde_json::Value::from(text).to_string());
        let counts = self.counts(change.before);
        let [prompt, output] = counts.as_ref().map_or([None, None], |counts| {
            counts
                .each_ref()
                .map(|(have, wanted)| Some((*have, wanted.as_str())))
        });
        let both = |have, wanted| Option::zip(have, wanted);
        let pairs = [
            both(self.id, identity.id.as_deref()),
            both(self.created, identity.created.as_deref()),
            both(self.quoted, quoted.as_deref()),
            prompt,
            output,
        ];
        let mut edits: Vec<(Range<usize>, &str)> = pairs
            .into_iter()
            .flatten()
            .filter_map(|(have, wanted)| Some((place(data, have)?, wanted)))
            .collect();
        edits.sort_by_key(|(place, _)| place.start);
        splice(data, &edits)
    }

    /// Both counts of a usage as they are written, and what they become.
    fn counts(&self, before: u64) -> Option<[(&str, String); 2]> {
        let usage = self.usage_after(before).filter(|_| before > 0)?;
        let names = ["prompt_tokens", "completion_tokens"];
        let [prompt, output] = Reader::over(self.told?, DEPTH_MAX).fields(names).ok()?;
        Some([
            (prompt?, usage.prompt.to_string()),
            (output?, usage.output.to_string()),
        ])
    }
}

/// What else becomes of an event of an answer that goes on elsewhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'t> {
    /// Another text, if there is one.
    pub text: Option<&'t str>,
    /// Tokens of the answer that were in the prompt.
    pub before: u64,
}

/// Where a part that was read from `data` stands in it.
pub(super) fn place(data: &[u8], part: &str) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(data.as_ptr().addr())?;
    let end = start + part.len();
    (end <= data.len()).then_some(start..end)
}

/// `data` with parts of it replaced; places in order.
pub(super) fn splice(data: &[u8], edits: &[(Range<usize>, &str)]) -> Vec<u8> {
    let more: usize = edits.iter().map(|(_, text)| text.len()).sum();
    let mut spliced = Vec::with_capacity(data.len() + more);
    let mut from = 0;
    for (place, text) in edits {
        spliced.extend_from_slice(data.get(from..place.start).unwrap_or_default());
        spliced.extend_from_slice(text.as_bytes());
        from = place.end;
    }
    spliced.extend_from_slice(data.get(from..).unwrap_or_default());
    spliced
}

/// For the fuzzer: what serde takes for an object is read, and with its own identity it stays the same.
pub fn fuzz_openai_chunk(data: &[u8]) {
    let found = chunk(data);
    if let Ok(chunk) = &found {
        assert_eq!(
            chunk.renamed(data, &chunk.identity(), Change::default()),
            data
        );
    } else if let Ok(tree) = serde_json::from_slice::<serde_json::Value>(data) {
        let choices = tree.get("choices").and_then(|choices| choices.as_array());
        let odd = choices.is_some_and(|choices| !choices.iter().all(serde_json::Value::is_object));
        assert!(!tree.is_object() || odd, "an object was refused: {found:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(choice: &str) -> String {
        format!("{{\"id\":\"c1\",\"created\":7,\"choices\":[{choice}]}}")
    }

    #[test]
    fn text_ends_and_what_is_more_than_text_are_seen() {
        for (choice, text, finished, opaque) in [
            (
                r#"{"index":0,"delta":{"role":"assistant","content":""}}"#,
                Some(""),
                false,
                false,
            ),
            (
                r#"{"delta":{"content":" a\u00e9\n"},"finish_reason":null}"#,
                Some(" aé\n"),
                false,
                false,
            ),
            (r#"{"text":"plain","index":0}"#, Some("plain"), false, false),
            (r#"{"delta":{},"finish_reason":"stop"}"#, None, true, false),
            (
                r#"{"delta":{"content":null,"tool_calls":null,"refusal":null}}"#,
                None,
                false,
                false,
            ),
            (
                r#"{"delta":{"tool_calls":[{"index":0}]}}"#,
                None,
                false,
                true,
            ),
            (r#"{"delta":{"reasoning_content":"hm"}}"#, None, false, true),
            (
                r#"{"index":1,"delta":{"content":"b"}}"#,
                Some("b"),
                false,
                true,
            ),
            (
                r#"{"delta":{"content":"b"},"logprobs":{"content":[]}}"#,
                Some("b"),
                false,
                true,
            ),
        ] {
            let data = event(choice);
            let chunk = chunk(data.as_bytes()).expect(choice);
            assert_eq!(chunk.text.as_deref(), text, "{choice}");
            assert_eq!(
                (chunk.finished, chunk.opaque.is_some()),
                (finished, opaque),
                "{choice}"
            );
            assert!(chunk.speaks);
        }
        let usage = chunk(br#"{"choices":[],"usage":{"total_tokens":3}}"#).expect("a usage chunk");
        assert!(!usage.speaks);
    }

    #[test]
    fn what_is_no_json_object_is_refused() {
        for data in [
            "",
            "{",
            "{\"id\": \"x\", \"choices\": [{\"delta\": {\"content\": ",
            "[]",
            "1",
            "{\"choices\":[3]}",
        ] {
            assert!(chunk(data.as_bytes()).is_err(), "{data}");
        }
    }

    #[test]
    fn an_error_says_whose_fault_it_is() {
        for (error, whose) in [
            (
                r#"{"message":"dead","type":"server_error","code":null}"#,
                StreamError::Upstream,
            ),
            (r#"{"message":"dead","code":500}"#, StreamError::Upstream),
            (r#"{"message":"busy","code":429}"#, StreamError::Upstream),
            (r#""dead""#, StreamError::Upstream),
            (
                r#"{"message":"long","type":"invalid_request_error"}"#,
                StreamError::Request,
            ),
            (
                r#"{"message":"long","type":"BadRequestError","code":400}"#,
                StreamError::Request,
            ),
        ] {
            let data = format!("{{\"error\":{error}}}");
            let chunk = chunk(data.as_bytes()).expect(error);
            assert_eq!(chunk.error, Some(whose), "{error}");
        }
    }

    #[test]
    fn only_id_and_time_are_replaced() {
        let first = br#"{"id":"first","created":1,"choices":[]}"#;
        let identity = chunk(first).expect("a chunk").identity();
        for (data, expected) in [
            (
                "{ \"created\" :22, \"x\":0.70,\"id\": \"b\" ,\"choices\":[{\"id\":\"in\"}]}",
                "{ \"created\" :1, \"x\":0.70,\"id\": \"first\" ,\"choices\":[{\"id\":\"in\"}]}",
            ),
            ("{\"choices\":[]}", "{\"choices\":[]}"),
        ] {
            let renamed = chunk(data.as_bytes()).expect(data).renamed(
                data.as_bytes(),
                &identity,
                Change::default(),
            );
            assert_eq!(String::from_utf8(renamed).expect("text"), expected);
        }
        let data = br#"{"id":"b","choices":[{"delta":{"content":"one two"}}]}"#;
        let shorter = chunk(data).expect("a chunk").renamed(
            data,
            &identity,
            Change {
                text: Some(" \"two\""),
                before: 0,
            },
        );
        let expected = br#"{"id":"first","choices":[{"delta":{"content":" \"two\""}}]}"#;
        assert_eq!(shorter, expected);
    }

    #[test]
    fn tokens_that_were_in_the_prompt_are_counted_as_answer() {
        let identity = Identity::default();
        for (usage, expected) in [
            (
                r#"{"prompt_tokens": 49, "total_tokens":69,"completion_tokens" :20,"prompt_tokens_details":{"cached_tokens":3}}"#,
                r#"{"prompt_tokens": 9, "total_tokens":69,"completion_tokens" :60,"prompt_tokens_details":{"cached_tokens":3}}"#,
            ),
            // It did not count what it was given.
            (
                r#"{"prompt_tokens":9,"completion_tokens":20}"#,
                r#"{"prompt_tokens":9,"completion_tokens":20}"#,
            ),
            (r#"{"total_tokens":69}"#, r#"{"total_tokens":69}"#),
            ("null", "null"),
        ] {
            let data = format!(r#"{{"choices":[],"usage":{usage}}}"#);
            let change = Change {
                text: None,
                before: 40,
            };
            let read = chunk(data.as_bytes()).expect("a chunk");
            let changed = read.renamed(data.as_bytes(), &identity, change);
            let expected = format!(r#"{{"choices":[],"usage":{expected}}}"#);
            assert_eq!(String::from_utf8(changed).expect("text"), expected);
        }
    }
}
