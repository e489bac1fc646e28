use serde_json::{Value, json};

use crate::exit::{Failure, Outcome};

/// An answer, put together from its pieces or from one.
#[derive(Debug, Default)]
pub(super) struct Answer {
    model: Value,
    pub(super) text: String,
    finish_reason: Value,
    usage: Value,
    done: bool,
    chunks: usize,
    pub(super) first_ms: Option<f64>,
}

impl Answer {
    pub(super) fn from_whole(response: &Value) -> Self {
        let choice = &response["choices"][0];
        let text = choice["message"]["content"].as_str().unwrap_or_default();
        Self {
            model: response["model"].clone(),
            text: text.to_owned(),
            finish_reason: choice["finish_reason"].clone(),
            usage: response["usage"].clone(),
            done: true,
            chunks: 1,
            first_ms: None,
        }
    }

    /// Takes one event in and returns the text that it adds.
    pub(super) fn take(&mut self, event: &str) -> Outcome<String> {
        if event == "[DONE]" {
            self.done = true;
            return Ok(String::new());
        }
        let chunk: Value = serde_json::from_str(event).map_err(|error| {
            Failure::failed(format!("an event of the stream is not JSON: {error}"))
        })?;
        if let Some(error) = chunk.get("error") {
            let message = error["message"].as_str().unwrap_or("the stream failed");
            return Err(Failure::failed(message));
        }
        for (kept, field) in [(&mut self.model, "model"), (&mut self.usage, "usage")] {
            if let Some(value) = chunk.get(field).filter(|value| !value.is_null()) {
                *kept = value.clone();
            }
        }
        let choice = &chunk["choices"][0];
        if !choice["finish_reason"].is_null() {
            self.finish_reason = choice["finish_reason"].clone();
        }
        let text = choice["delta"]["content"].as_str().unwrap_or_default();
        self.chunks += usize::from(!text.is_empty());
        self.text.push_str(text);
        Ok(text.to_owned())
    }

    pub(super) fn document(&self, id: Option<&str>, total_ms: f64) -> Value {
        json!({
            "request_id": id,
            "model": self.model,
            "content": self.text,
            "finish_reason": self.finish_reason,
            "complete": self.done,
            "chunks": self.chunks,
            "first_token_ms": self.first_ms,
            "total_ms": total_ms,
            "usage": self.usage,
        })
    }

    /// A stream that ends without `[DONE]` was cut, whatever it brought.
    pub(super) fn finished(&self) -> Outcome {
        if self.done {
            return Ok(());
        }
        Err(Failure::failed("the answer ended before it was complete")
            .hint("ask again; `kapok explain last` shows who answered"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_becomes_one_document_and_a_cut_is_told() {
        let mut answer = Answer::default();
        for event in [
            r#"{"model":"smol","choices":[{"delta":{"role":"assistant","content":""}}],"usage":null}"#,
            r#"{"model":"smol","choices":[{"delta":{"content":"Pa"}}]}"#,
            r#"{"model":"smol","choices":[{"delta":{"content":"ris"},"finish_reason":"stop"}]}"#,
            r#"{"model":"smol","choices":[],"usage":{"completion_tokens":2}}"#,
        ] {
            answer.take(event).expect(event);
        }
        assert!(answer.finished().is_err());
        answer.take("[DONE]").expect("the end");
        assert!(answer.finished().is_ok());
        let document = answer.document(Some("req-1"), 12.0);
        assert_eq!(document["content"], "Paris");
        assert_eq!(document["finish_reason"], "stop");
        assert_eq!(document["usage"]["completion_tokens"], 2);
        assert_eq!(document["chunks"], 2);
        let failed = answer.take(r#"{"error":{"message":"upstream went away"}}"#);
        assert!(failed.is_err_and(|failure| failure.error.to_string().contains("went away")));
    }

    #[test]
    fn an_answer_in_one_piece_makes_the_same_document() {
        let response = json!({
            "model": "smol", "usage": {"completion_tokens": 2},
            "choices": [{"message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}],
        });
        let document = Answer::from_whole(&response).document(Some("req-1"), 12.0);
        assert_eq!(document["content"], "Paris");
        assert_eq!(document["finish_reason"], "stop");
        assert_eq!(document["complete"], true);
        assert_eq!(document["usage"]["completion_tokens"], 2);
    }
}
