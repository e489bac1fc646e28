use super::DEPTH_MAX;
use crate::json::{Fault, Kind, Lone, Reader};

/// What servers say of a request that is longer than their model's context, in lower case. Whose words they are:
/// OpenAI, vLLM and SGLang; vLLM; SGLang and Together; OpenAI's responses; llama.cpp; Anthropic, twice.
const WORDS: [&str; 7] = [
    "maximum context length",
    "longer than the maximum model length",
    "longer than the model's context length",
    "exceeds the context window",
    "exceeds the available context size",
    "prompt is too long",
    "exceed context limit",
];

/// Names of it: OpenAI's code, llama.cpp's type, and the code of gateways before others.
const NAMES: [&str; 3] = [
    "context_length_exceeded",
    "exceed_context_size_error",
    "context_window_exceeded",
];

/// Whoever says any of this was asked for something it does not want to talk about, however long it was.
const FILTERED: [&str; 6] = [
    "content_filter",
    "content_policy",
    "content filter",
    "content policy",
    "content management policy",
    "safety system",
];

/// Whether the body of a refusal says that the request is longer than the model's context. An error's code or type decides
/// where it is one of these names; else the wording does, unless a code of another kind contradicts.
pub fn too_long(body: &[u8]) -> bool {
    read(body).unwrap_or(false)
}

fn read(body: &[u8]) -> Result<bool, Fault> {
    let mut reader = Reader::new(body, DEPTH_MAX)?;
    let mut fields = reader.fields(["error", "message", "type", "code"])?;
    reader.end()?;
    match fields[0] {
        Some(error) if error.starts_with('{') => {
            let names = ["error", "message", "type", "code"];
            fields = Reader::over(error, DEPTH_MAX).fields(names)?;
        }
        Some(text) if text.starts_with('"') => fields[1] = Some(text),
        _ => {}
    }
    let [_, message, kind, code] = fields;
    let (message, kind, code) = (lower(message)?, lower(kind)?, lower(code)?);
    let says = |words: &[&str]| {
        let mut words = words.iter();
        words.any(|word| {
            [&message, &kind, &code]
                .into_iter()
                .any(|text| text.contains(word))
        })
    };
    if says(&FILTERED) {
        return Ok(false);
    }
    if NAMES.contains(&code.as_str()) || NAMES.contains(&kind.as_str()) {
        return Ok(true);
    }
    // Some repeat the error's type or the status as its code, which says no more.
    let other = !code.is_empty() && code != kind && code.parse::<u16>().is_err();
    Ok(!other && WORDS.iter().any(|words| message.contains(words)))
}

/// A text in lower case; a number stands for itself, and anything else for nothing.
fn lower(value: Option<&str>) -> Result<String, Fault> {
    let Some(value) = value else {
        return Ok(String::new());
    };
    let mut reader = Reader::over(value, DEPTH_MAX);
    Ok(match reader.kind()? {
        Kind::Text => reader.text()?.unescape(Lone::Replace)?.to_ascii_lowercase(),
        Kind::Number => value.to_owned(),
        _ => String::new(),
    })
}

/// For the fuzzer: no body is understood that is not an object, and none that a filter speaks of.
pub fn fuzz_too_long(data: &[u8]) {
    if too_long(data) {
        assert!(data.trim_ascii_start().starts_with(b"{"), "not an object");
        let filtered = data
            .windows(14)
            .any(|part| part.eq_ignore_ascii_case(b"content_filter"));
        let parts = serde_json::from_slice::<serde_json::Value>(data);
        let code = parts.ok().map(|tree| tree["error"]["code"].clone());
        assert!(
            !filtered || code != Some("content_filter".into()),
            "a filter's"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::too_long;

    #[test]
    fn servers_say_in_their_own_ways_that_a_request_is_too_long() {
        for body in [
            // OpenAI, by its code alone.
            r#"{"error":{"message":"Too much.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
            r#"{"error":{"message":"Your input exceeds the context window of this model.","type":"invalid_request_error","param":"input","code":null}}"#,
            // vLLM, flat and nested.
            r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4900 in the messages, 100 in the completion).","type":"BadRequestError","param":null,"code":400}"#,
            r#"{"error":{"message":"This model\u0027s maximum context length is 4096 tokens.","type":"BadRequestError","param":"input_tokens","code":400}}"#,
            r#"{"error":{"message":"The decoder prompt (length 9254) is longer than the maximum model length of 4096.","type":"BadRequestError","param":null,"code":"400"}}"#,
            // SGLang.
            r#"{"object":"error","message":"The input (5000 tokens) is longer than the model's context length (4096 tokens).","type":"BadRequest","param":null,"code":400}"#,
            r#"{"object":"error","message":"Requested token count exceeds the model's maximum context length of 4096 tokens.","type":"BadRequest","param":null,"code":400}"#,
            // llama.cpp.
            r#"{"error":{"code":400,"message":"request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":5000,"n_ctx":4096}}"#,
            r#"{"error":{"code":400,"message":"the request exceeds the available context size. try increasing the context size or enable context shift","type":"invalid_request_error"}}"#,
            // Anthropic.
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 200251 tokens > 199999 maximum"}}"#,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"input length and `max_tokens` exceed context limit: 198157 + 21333 > 200000"}}"#,
            // DeepSeek's code is its type.
            r#"{"error":{"message":"This model's maximum context length is 131072 tokens.","type":"invalid_request_error","param":null,"code":"invalid_request_error"}}"#,
            r#"{"error":"This model's maximum context length is 8192 tokens."}"#,
        ] {
            assert!(too_long(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn whatever_else_is_wrong_is_something_else() {
        for body in [
            r#"{"error":{"message":"the request was rejected by the safety system","type":"invalid_request_error","code":"content_policy_violation"}}"#,
            r#"{"error":{"message":"The response was filtered due to the prompt triggering our content management policy.","type":null,"param":"prompt","code":"content_filter","status":400}}"#,
            // Even if it quotes the prompt.
            r#"{"error":{"message":"flagged by the content filter: 'maximum context length'","type":"invalid_request_error","code":null}}"#,
            r#"{"error":{"message":"maximum context length","type":"invalid_request_error","code":"content_filter"}}"#,
            r#"{"error":{"message":"the maximum context length is not a number","type":"invalid_request_error","code":"invalid_value"}}"#,
            r#"{"error":{"message":"max_tokens is too large","type":"invalid_request_error","code":null}}"#,
            r#"{"error":{"code":404,"message":"model not found"}}"#,
            r#"{"error":null,"message":null}"#,
            r#"{"error":{"message":["maximum context length"]}}"#,
            r#""maximum context length""#,
            r#"{"error":{"message":"maximum context length"#,
            "maximum context length",
            "",
        ] {
            assert!(!too_long(body.as_bytes()), "{body}");
        }
    }
}
