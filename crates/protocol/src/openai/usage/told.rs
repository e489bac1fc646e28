use crate::json::{Fault, Kind, Reader};
use crate::openai::DEPTH_MAX;

/// Tokens, as an upstream tells them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt: u64,
    pub output: u64,
}

impl Usage {
    /// Reads the value of a `usage` field, in the words of OpenAI's chat or of its responses, which are Anthropic's too.
    pub fn read(value: &str) -> Option<Self> {
        let mut reader = Reader::over(value, DEPTH_MAX);
        if reader.kind().ok()? != Kind::Object {
            return None;
        }
        let names = [
            "prompt_tokens",
            "input_tokens",
            "completion_tokens",
            "output_tokens",
            "total_tokens",
        ];
        let [prompt, input, completion, output, total] = reader.fields(names).ok()?.map(count);
        let prompt = prompt.or(input);
        let output = completion.or(output);
        prompt.or(output).or(total)?;
        let known = prompt.unwrap_or(0);
        Some(Self {
            prompt: known,
            output: output.unwrap_or_else(|| total.unwrap_or(0).saturating_sub(known)),
        })
    }

    /// A stream may tell in parts, and again: each count only grows.
    #[must_use]
    pub(super) fn and(self, later: Self) -> Self {
        Self {
            prompt: self.prompt.max(later.prompt),
            output: self.output.max(later.output),
        }
    }
}

fn count(value: Option<&str>) -> Option<u64> {
    value?.parse().ok()
}

/// What one event of a stream says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) usage: Option<Usage>,
    /// Whether it brings some of the answer.
    pub(super) content: bool,
    /// Whether it brings usage and nothing else, as the event does that `include_usage` asks for.
    pub(super) usage_only: bool,
}

impl Said {
    /// Reads an event's data: a chunk of a chat or a completion, or an event of a response or a message.
    pub(super) fn read(data: &str) -> Self {
        Self::try_read(data).unwrap_or_default()
    }

    fn try_read(data: &str) -> Result<Self, Fault> {
        let mut reader = Reader::over(data, DEPTH_MAX);
        let names = ["choices", "usage", "type", "response", "message"];
        let [choices, usage, kind, response, message] = reader.fields(names)?;
        reader.end()?;
        let mut said = Self::default();
        if let Some(choices) = choices {
            let (count, content) = chosen(choices)?;
            said.content = content;
            said.usage = usage.and_then(Usage::read);
            said.usage_only = count == 0 && said.usage.is_some();
            return Ok(said);
        }
        // `content_block_delta`, `response.output_text.delta`: but not `message_delta`, which ends a message.
        let kind = kind.unwrap_or_default().trim_matches('"');
        said.content = kind == "content_block_delta" || kind.ends_with(".delta");
        let nested = |outer: Option<&str>| Usage::read(member(outer?, "usage")?);
        said.usage = usage
            .and_then(Usage::read)
            .or_else(|| nested(response))
            .or_else(|| nested(message));
        Ok(said)
    }
}

/// How many choices, and whether any of them brings text, thought or a call.
fn chosen(choices: &str) -> Result<(usize, bool), Fault> {
    let (mut count, mut content) = (0, false);
    Reader::over(choices, DEPTH_MAX).array(|choice| {
        count += 1;
        let choice = choice.skip()?;
        if choice.starts_with('{') {
            let [delta, text] = Reader::over(choice, DEPTH_MAX).fields(["delta", "text"])?;
            content |= text.is_some_and(filled) || brings(delta)?;
        }
        Ok::<(), Fault>(())
    })?;
    Ok((count, content))
}

/// Everything in a delta but the role is part of the answer: content, reasoning, tool calls, and what is yet to be named.
fn brings(delta: Option<&str>) -> Result<bool, Fault> {
    let mut brings = false;
    let Some(delta) = delta.filter(|delta| delta.starts_with('{')) else {
        return Ok(false);
    };
    Reader::over(delta, DEPTH_MAX).object(|reader, key| {
        let role = key.unescape(crate::json::Lone::Replace)? == "role";
        let value = reader.skip()?;
        brings |= !role && filled(value);
        Ok::<(), Fault>(())
    })?;
    Ok(brings)
}

fn filled(value: &str) -> bool {
    !matches!(value, "" | "null" | "\"\"" | "[]" | "{}")
}

fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let mut reader = Reader::over(object, DEPTH_MAX);
    if reader.kind().ok()? != Kind::Object {
        return None;
    }
    let [value] = reader.fields([name]).ok()?;
    value
}
