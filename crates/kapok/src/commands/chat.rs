mod answer;

use std::io::Read as _;
use std::time::Duration;

use base::Clock;
use serde_json::{Value, json};

use crate::cli::{ChatArgs, Format};
use crate::client::{Client, EventReader, block_on};
use crate::config::Environment;
use crate::exit::{Failure, Outcome};
use crate::output::{Printer, Style};
use answer::Answer;

const PATH: &str = "/v1/chat/completions";

pub(super) fn run(args: &ChatArgs, printer: &Printer, environment: &Environment) -> Outcome {
    let client = Client::public(&args.server, environment)?;
    block_on(async {
        let (model, words) = match &args.model {
            Some(model) => (model.clone(), args.words.as_slice()),
            None => choose(&args.words, &client.get("/v1/models").await?.json()?)?,
        };
        let body = request(args, &model, &prompt(words)?);
        if args.no_stream {
            return whole(&client, &body, printer).await;
        }
        stream(&client, &body, printer).await
    })
}

/// The model to ask, and the words that make the prompt.
fn choose<'a>(words: &'a [String], served: &Value) -> Outcome<(String, &'a [String])> {
    let entries: Vec<&Value> = served["data"].as_array().into_iter().flatten().collect();
    let names: Vec<&str> = entries
        .iter()
        .filter_map(|entry| entry["id"].as_str())
        .collect();
    if let [first, rest @ ..] = words
        && !rest.is_empty()
        && names.contains(&first.as_str())
    {
        return Ok((first.clone(), rest));
    }
    // Models in this process do not chat, so with one upstream model there is no choice.
    let mut chatting = entries
        .iter()
        .filter(|entry| !is_local(entry))
        .filter_map(|entry| entry["id"].as_str());
    match (chatting.next(), chatting.next()) {
        (Some(only), None) => Ok((only.to_owned(), words)),
        (Some(_), Some(_)) => Err(Failure::usage("more than one model could answer")
            .hint(format!("name one with --model: {}", names.join(", ")))),
        (None, _) => Err(Failure::failed("no language model is listed").hint(
            "start one with `kapok up --upstream NAME=URL`; an upstream without a list takes any --model",
        )),
    }
}

fn is_local(entry: &Value) -> bool {
    matches!(entry["owned_by"].as_str(), Some("kapok" | "local"))
}

fn prompt(words: &[String]) -> Outcome<String> {
    let mut parts = Vec::new();
    for word in words {
        if word == "-" {
            let mut text = String::new();
            std::io::stdin().lock().read_to_string(&mut text)?;
            parts.push(text.trim_end().to_owned());
        } else {
            parts.push(word.clone());
        }
    }
    Ok(parts.join(" "))
}

fn request(args: &ChatArgs, model: &str, prompt: &str) -> Value {
    let mut messages = Vec::new();
    if let Some(system) = &args.system {
        messages.push(json!({ "role": "system", "content": system }));
    }
    messages.push(json!({ "role": "user", "content": prompt }));
    let mut body = json!({ "model": model, "messages": messages });
    if let Some(max_tokens) = args.max_tokens {
        body["max_tokens"] = max_tokens.into();
    }
    if let Some(temperature) = args.temperature {
        body["temperature"] = temperature.into();
    }
    if !args.no_stream {
        body["stream"] = true.into();
        body["stream_options"] = json!({ "include_usage": true });
    }
    body
}

async fn whole(client: &Client, body: &Value, printer: &Printer) -> Outcome {
    let clock = Clock::real();
    let started = clock.now();
    let reply = client.post_json(PATH, body).await?;
    let answer = Answer::from_whole(&reply.json()?);
    let document = answer.document(reply.header("x-request-id"), millis(clock.now() - started));
    printer.print(&document, |document, style| {
        format!(
            "{}{}",
            answer.text,
            footer(document, style, printer.terminal())
        )
    })?;
    Ok(())
}

async fn stream(client: &Client, body: &Value, printer: &Printer) -> Outcome {
    let clock = Clock::real();
    let started = clock.now();
    let response = client.stream(PATH, body).await?;
    let id = response.headers().get("x-request-id").cloned();
    let mut incoming = response.into_body();
    let mut reader = EventReader::default();
    let mut answer = Answer::default();
    while let Some(bytes) = client.next_chunk(&mut incoming).await? {
        for event in reader.push(&bytes) {
            let text = answer.take(&event)?;
            if answer.first_ms.is_none() && !text.is_empty() {
                answer.first_ms = Some(millis(clock.now() - started));
            }
            if printer.format() == Format::Table {
                printer.write(&text)?;
            }
        }
    }
    let id = id.as_ref().and_then(|id| id.to_str().ok());
    let document = answer.document(id, millis(clock.now() - started));
    printer.print(&document, |document, style| {
        footer(document, style, printer.terminal())
    })?;
    answer.finished()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The text has already been written; a person also gets the figures.
fn footer(document: &Value, style: Style, terminal: bool) -> String {
    if !terminal {
        return "\n".to_owned();
    }
    let mut parts = vec![document["model"].as_str().unwrap_or_default().to_owned()];
    if let Some(ms) = document["first_token_ms"].as_f64() {
        parts.push(format!("first token {ms:.0} ms"));
    }
    let total_ms = document["total_ms"].as_f64().unwrap_or_default();
    parts.push(format!("total {total_ms:.0} ms"));
    if let Some(tokens) = document["usage"]["completion_tokens"].as_u64() {
        parts.push(format!("{tokens} tokens"));
    }
    format!("\n{}\n", style.quiet(&parts.join(" · ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> ChatArgs {
        ChatArgs {
            words: Vec::new(),
            model: None,
            system: Some("be brief".to_owned()),
            max_tokens: Some(5),
            temperature: None,
            no_stream: false,
            server: crate::cli::ServerArgs::default(),
        }
    }

    #[test]
    fn the_first_word_is_the_model_only_when_it_is_served() {
        let one = json!({"data": [{"id": "minilm", "owned_by": "kapok"}, {"id": "smol", "owned_by": "llama"}]});
        let two =
            json!({"data": [{"id": "smol", "owned_by": "a"}, {"id": "big", "owned_by": "b"}]});
        for (words, served, expected) in [
            (&["hi"][..], &one, Some(("smol", 1))),
            (&["smol", "hi", "you"], &one, Some(("smol", 2))),
            (&["smol"], &one, Some(("smol", 1))),
            (&["what", "now"], &two, None),
            (&["big", "now"], &two, Some(("big", 1))),
            (&["hi"], &json!({"data": []}), None),
        ] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let chosen = choose(&words, served).ok();
            let chosen = chosen
                .as_ref()
                .map(|(model, words)| (model.as_str(), words.len()));
            assert_eq!(chosen, expected, "{words:?}");
        }
    }

    #[test]
    fn the_request_says_what_was_asked_for() {
        let body = request(&args(), "smol", "hi");
        assert_eq!(
            body,
            json!({
                "model": "smol", "max_tokens": 5, "stream": true, "stream_options": {"include_usage": true},
                "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
            })
        );
    }
}
