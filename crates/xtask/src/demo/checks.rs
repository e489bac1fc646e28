//! The demo's requests and what must come back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{CHAT_MODEL, MODELS, Step};
use crate::http::Http;
use crate::kapok::Kapok;

const EMBEDDING_MODEL: &str = "all-minilm-l6-v2";

/// Two texts on each of two topics.
const TEXTS: [&str; 4] = [
    "The kapok tree opens its red flowers before its leaves.",
    "In spring the silk-cotton trees are covered in crimson blossom.",
    "The central bank raised its interest rate by half a point.",
    "Borrowing costs rose again as the regulator tightened credit.",
];

const QUESTION: &str = "What is the capital of France? Answer in English, in one sentence.";

/// Every model is listed, through both protocols, and ready.
pub(super) fn models(kapok: &Kapok) -> Result<Step> {
    let index = kapok
        .public()
        .post_json("/v2/repository/index", &json!({}))?;
    let entries = index.json()?;
    let entries = entries.as_array().context("the index is not a list")?;
    let ready: Vec<_> = entries
        .iter()
        .filter(|entry| entry["state"] == "READY")
        .filter_map(|entry| entry["name"].as_str())
        .collect();
    let reply = kapok.public().get("/v1/models")?;
    let listed = reply.json()?;
    let listed: Vec<_> = listed["data"]
        .as_array()
        .context("no `data` in /v1/models")?
        .iter()
        .filter_map(|model| model["id"].as_str())
        .collect();
    let ok = MODELS.iter().all(|name| ready.contains(name))
        && listed.contains(&CHAT_MODEL)
        && listed.contains(&EMBEDDING_MODEL);
    let lines = vec![
        format!("ready: {}", ready.join(", ")),
        format!("for OpenAI clients: {}", listed.join(", ")),
    ];
    Step::of(
        &index,
        ok,
        json!({"index": entries, "openai": listed}),
        lines,
    )
}

/// Which engine serves each model, and how the others did.
pub(super) fn engines(kapok: &Kapok) -> Result<Step> {
    let reply = kapok.admin().get("/admin/v1/models")?;
    let document = reply.json()?;
    let models = document["models"]
        .as_array()
        .or_else(|| document.as_array())
        .context("the admin API's models are not a list")?;
    let mut lines = Vec::new();
    let mut chosen = 0;
    for name in MODELS {
        let model = models.iter().find(|model| model["name"] == *name);
        let model = model.with_context(|| format!("no `{name}` in the admin API's list"))?;
        let engine = model["engine"].as_str().unwrap_or_default();
        chosen += usize::from(!engine.is_empty());
        let candidates = model["candidates"].as_array().map(Vec::as_slice);
        let figures: Vec<_> = candidates
            .unwrap_or_default()
            .iter()
            .map(candidate)
            .collect();
        lines.push(format!("{name:22} {engine:12} {}", figures.join(" · ")));
    }
    Ok(Step {
        ok: chosen == MODELS.len(),
        result: document.clone(),
        lines,
        took: reply.took,
        stages: Vec::new(),
    })
}

fn candidate(candidate: &Value) -> String {
    let name = candidate["engine"].as_str().unwrap_or_default();
    let verdict = candidate["verdict"].as_str().unwrap_or_default();
    match candidate["median_ms"].as_f64() {
        Some(millis) => format!("{name} {millis:.2} ms ({verdict})"),
        None => format!("{name}: {verdict}"),
    }
}

/// Texts on one topic are closer than texts on different topics.
pub(super) fn embeddings(http: &Http) -> Result<Step> {
    let body = json!({"model": EMBEDDING_MODEL, "input": TEXTS, "encoding_format": "float"});
    let reply = http.post_json("/v1/embeddings", &body)?;
    let document = reply.json()?;
    let vectors = document["data"]
        .as_array()
        .context("no `data` in the answer")?
        .iter()
        .map(|item| serde_json::from_value(item["embedding"].clone()))
        .collect::<std::result::Result<Vec<Vec<f64>>, _>>()
        .context("an embedding is not a list of numbers")?;
    let [tree, blossom, bank, credit] = vectors.as_slice() else {
        anyhow::bail!("{} vectors for 4 texts", vectors.len());
    };
    let within = [cosine(tree, blossom)?, cosine(bank, credit)?];
    let across = [
        cosine(tree, bank)?,
        cosine(tree, credit)?,
        cosine(blossom, bank)?,
        cosine(blossom, credit)?,
    ];
    let lowest = within.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = across.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lines = vec![format!(
        "cosine within a topic at least {lowest:.3}, across topics at most {highest:.3} ({} dimensions)",
        tree.len()
    )];
    let result = json!({
        "texts": TEXTS,
        "dimensions": tree.len(),
        "cosine_within": within,
        "cosine_across": across,
        "usage": document["usage"],
    });
    Step::of(&reply, lowest > highest, result, lines)
}

fn cosine(a: &[f64], b: &[f64]) -> Result<f64> {
    ensure!(
        a.len() == b.len() && !a.is_empty(),
        "vectors of {} and {} numbers",
        a.len(),
        b.len()
    );
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let length = (dot(a, a) * dot(b, b)).sqrt();
    ensure!(length > 0.0, "a vector of length 0");
    Ok(dot(a, b) / length)
}

/// A streamed answer of the language model, read as it arrives.
pub(super) fn chat(http: &Http) -> Result<Step> {
    let body = json!({
        "model": CHAT_MODEL,
        "stream": true,
        "max_tokens": 48,
        "temperature": 0,
        "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": QUESTION}],
    });
    let mut events = Events::default();
    let headers = [("content-type", "application/json")];
    let reply = http.stream(
        "/v1/chat/completions",
        &headers,
        &serde_json::to_vec(&body)?,
        |part, at| events.push(part, at),
    )?;
    ensure!(
        reply.status == 200,
        "status {}: {}",
        reply.status,
        String::from_utf8_lossy(&reply.body)
    );
    let first = events.first_token.context("no token in the stream")?;
    let millis = first.as_secs_f64() * 1e3;
    let kind = reply.header("content-type").unwrap_or_default();
    let ok = events.done && !events.text.trim().is_empty() && kind.starts_with("text/event-stream");
    let lines = vec![
        format!("{QUESTION} → {}", events.text.trim()),
        format!("{} tokens, the first after {millis:.0} ms", events.tokens),
    ];
    let result = json!({
        "question": QUESTION,
        "answer": events.text,
        "tokens": events.tokens,
        "first_token_ms": millis,
        "complete": events.done,
        "usage": events.usage,
    });
    Step::of(&reply, ok, result, lines)
}

/// Server-sent events of a chat completion.
#[derive(Debug, Default)]
struct Events {
    pending: Vec<u8>,
    text: String,
    tokens: usize,
    first_token: Option<Duration>,
    usage: Value,
    done: bool,
}

impl Events {
    fn push(&mut self, part: &[u8], at: Duration) {
        self.pending.extend_from_slice(part);
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            self.line(line.trim_ascii(), at);
        }
    }

    fn line(&mut self, line: &[u8], at: Duration) {
        let Some(data) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) else {
            return;
        };
        if data == b"[DONE]" {
            self.done = true;
            return;
        }
        let Ok(event) = serde_json::from_slice::<Value>(data) else {
            return;
        };
        if event["usage"].is_object() {
            self.usage = event["usage"].clone();
        }
        if let Some(token) = event["choices"][0]["delta"]["content"]
            .as_str()
            .filter(|t| !t.is_empty())
        {
            self.first_token.get_or_insert(at);
            self.tokens += 1;
            self.text.push_str(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_read_wherever_it_is_cut() {
        let stream = "data: {\"choices\":[{\"delta\":{\"content\":null}}]}\n\n\
                      data: {\"choices\":[{\"delta\":{\"content\":\"Pa\"}}]}\n\n\
                      data: {\"choices\":[{\"delta\":{\"content\":\"ris\"}}]}\n\n\
                      data: {\"choices\":[],\"usage\":{\"total_tokens\":2}}\n\ndata: [DONE]\n\n";
        for cut in 1..stream.len() {
            let mut events = Events::default();
            for (index, part) in stream.as_bytes().chunks(cut).enumerate() {
                events.push(part, Duration::from_millis(index as u64));
            }
            assert_eq!(
                (events.text.as_str(), events.tokens, events.done),
                ("Paris", 2, true)
            );
            assert_eq!(events.usage["total_tokens"], 2);
        }
    }

    #[test]
    fn cosine_refuses_what_has_no_angle() {
        assert!((cosine(&[1.0, 0.0], &[2.0, 0.0]).unwrap() - 1.0).abs() < 1e-12);
        assert!(cosine(&[1.0], &[1.0, 2.0]).is_err());
        assert!(cosine(&[0.0], &[1.0]).is_err());
    }
}
