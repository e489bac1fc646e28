//! Ids of what an upstream keeps: in its answer to whoever made it, and in requests that go on from it.

use std::borrow::Cow;

use super::DEPTH_MAX;
use crate::json::{Kind, Lone, Reader};

/// OpenAI's longest ids have some 60 bytes.
const ID_BYTES_MAX: usize = 128;

/// What is made says its id in its first line; further on it is not looked for.
const BYTES_MAX: usize = 64 << 10;

/// Fields of a request that name something made before.
const REFERENCES: [&str; 8] = [
    "previous_response_id",
    "conversation",
    "input_file_id",
    "training_file",
    "file_id",
    "assistant_id",
    "thread_id",
    "vector_store_id",
];

/// The ids that a JSON body refers to; none if it is no object.
pub fn references(body: &[u8]) -> Vec<Cow<'_, str>> {
    let read = || {
        let mut reader = Reader::new(body, DEPTH_MAX).ok()?;
        (reader.kind().ok()? == Kind::Object).then(|| reader.fields(REFERENCES).ok())?
    };
    let fields = read().unwrap_or_default();
    fields.into_iter().flatten().filter_map(id).collect()
}

/// A text, or an object with one under `id`.
fn id(value: &str) -> Option<Cow<'_, str>> {
    let mut reader = Reader::over(value, DEPTH_MAX);
    let text = match reader.kind().ok()? {
        Kind::Text => reader.text().ok()?,
        Kind::Object => {
            let [id] = reader.fields(["id"]).ok()?;
            Reader::over(id?, DEPTH_MAX).text().ok()?
        }
        _ => return None,
    };
    text.unescape(Lone::Replace).ok()
}

/// Finds the `id` of an answer that is an object, or of the first event that has one (its own, or its `response`'s), while
/// the answer passes.
#[derive(Debug, Default)]
pub struct IdScan {
    seen: usize,
    /// Open objects and lists. Between events there are none, and what stands there is no JSON.
    depth: usize,
    text: Option<Text>,
    /// Whether the next text is a field's name.
    names: bool,
    /// The field whose value comes: of the object, and of an object in it.
    fields: [Field; 2],
}

#[derive(Debug, Default)]
struct Text {
    bytes: Vec<u8>,
    escaped: bool,
    /// Too long, or with escapes: no id, and none of the names.
    other: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Field {
    #[default]
    Other,
    Id,
    Response,
}

impl IdScan {
    /// The next part of the answer; the id once it is found.
    pub fn look(&mut self, part: &[u8]) -> Option<String> {
        let room = BYTES_MAX - self.seen;
        let part = part.get(..room).unwrap_or(part);
        self.seen += part.len();
        part.iter().find_map(|byte| self.step(*byte))
    }

    /// Whether there is no more to find.
    pub fn ended(&self) -> bool {
        self.seen == BYTES_MAX
    }

    fn step(&mut self, byte: u8) -> Option<String> {
        if let Some(text) = &mut self.text {
            if !text.push(byte) {
                return None;
            }
            let text = self.text.take()?;
            return self.text_ended(text);
        }
        match byte {
            b'{' | b'[' => {
                if let Some(field) = self.fields.get_mut(self.depth) {
                    *field = Field::Other;
                }
                self.depth += 1;
                self.names = byte == b'{';
            }
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b',' => self.names = true,
            b':' => self.names = false,
            b'"' if self.depth > 0 => self.text = Some(Text::default()),
            _ => {}
        }
        None
    }

    fn text_ended(&mut self, text: Text) -> Option<String> {
        let field = self.fields.get_mut(self.depth - 1)?;
        if self.names {
            *field = text.field();
            return None;
        }
        let wanted = match (self.depth, self.fields) {
            (1, [Field::Id, _]) | (2, [Field::Response, Field::Id]) => !text.other,
            _ => false,
        };
        if !wanted || text.bytes.is_empty() {
            return None;
        }
        String::from_utf8(text.bytes).ok()
    }
}

impl Text {
    /// Whether it ends here.
    fn push(&mut self, byte: u8) -> bool {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => (self.escaped, self.other) = (true, true),
            b'"' => return true,
            _ if self.bytes.len() == ID_BYTES_MAX => self.other = true,
            _ => self.bytes.push(byte),
        }
        false
    }

    fn field(&self) -> Field {
        match self.bytes.as_slice() {
            _ if self.other => Field::Other,
            b"id" => Field::Id,
            b"response" => Field::Response,
            _ => Field::Other,
        }
    }
}

/// For the fuzzer: the same id is found however the bytes arrive, and it is one that the answer has.
pub fn fuzz_openai_kept(data: &[u8]) {
    let whole = IdScan::default().look(data);
    let mut bytewise = IdScan::default();
    let found = data
        .iter()
        .find_map(|byte| bytewise.look(std::slice::from_ref(byte)));
    assert_eq!(whole, found, "the chunking decided");
    if let Some(id) = whole {
        let quoted = format!("\"{id}\"");
        let there = data
            .windows(quoted.len())
            .any(|text| text == quoted.as_bytes());
        assert!(there, "an id that nobody wrote");
    }
    let references = references(data);
    if let Ok(tree) = serde_json::from_slice::<serde_json::Value>(data) {
        for id in references {
            let named = REFERENCES.iter().any(|field| {
                let value = &tree[field];
                value.get("id").unwrap_or(value).as_str() == Some(&id)
            });
            assert!(named, "a reference that is none");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_it_made() {
        for (answer, expected) in [
            (r#"{"id":"resp_1","object":"response"}"#, Some("resp_1")),
            (
                "{\n  \"object\": \"file\",\n  \"id\" : \"file-a\"\n}",
                Some("file-a"),
            ),
            (
                r#"{"metadata":{"id":"file-of-another"},"id":"file-b"}"#,
                Some("file-b"),
            ),
            (
                r#"{"data":[{"id":"file-1"},{"id":"file-2"}],"object":"list"}"#,
                None,
            ),
            (r#"{"response":{"id":"resp_2"}}"#, Some("resp_2")),
            (r#"{"response":{"usage":{"id":"x"}}}"#, None),
            (r#"{"response":[{"id":"x"}]}"#, None),
            (r#"{"value":"id","id":7,"name":"x"}"#, None),
            (r#"{"id":"a\u0062"}"#, None),
            (r#"[{"id":"x"}]"#, None),
            (
                "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"object\":\"response\",\"id\":\"resp_3\"}}\n\n",
                Some("resp_3"),
            ),
            (
                "event: thread.created\ndata: {\"a\":\"}\"}\n\ndata: {\"id\":\"thread_1\"}\n\n",
                Some("thread_1"),
            ),
            ("no JSON, but a \" and an id", None),
        ] {
            let found = IdScan::default().look(answer.as_bytes());
            assert_eq!(found.as_deref(), expected, "{answer}");
            fuzz_openai_kept(answer.as_bytes());
        }
    }

    #[test]
    fn an_id_far_down_is_not_looked_for() {
        let answer = format!("{{\"a\":\"{}\",\"id\":\"x\"}}", "y".repeat(BYTES_MAX));
        let mut scan = IdScan::default();
        assert_eq!(scan.look(answer.as_bytes()), None);
        assert!(scan.ended());
        assert_eq!(scan.look(b"{\"id\":\"z\"}"), None);
    }

    #[test]
    fn a_request_says_what_it_goes_on_from() {
        for (body, expected) in [
            (
                r#"{"model":"m","previous_response_id":"resp_1"}"#,
                &["resp_1"][..],
            ),
            (r#"{"conversation":{"id":"conv_1"}}"#, &["conv_1"]),
            (
                r#"{"conversation":"conv_2","previous_response_id":null}"#,
                &["conv_2"],
            ),
            (
                r#"{"input_file_id":"file-1","endpoint":"/v1/x"}"#,
                &["file-1"],
            ),
            (r#"{"metadata":{"file_id":"x"}}"#, &[]),
            ("[]", &[]),
            ("", &[]),
        ] {
            assert_eq!(references(body.as_bytes()), expected, "{body}");
        }
    }
}
