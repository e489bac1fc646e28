use std::io::BufRead as _;

use serde_json::{Value, json};

use crate::cli::EmbedArgs;
use crate::client::{Client, block_on};
use crate::config::Environment;
use crate::exit::{Failure, Outcome};
use crate::output::{Printer, Style, Table};

pub(super) fn run(args: &EmbedArgs, printer: &Printer, environment: &Environment) -> Outcome {
    let texts = texts(&args.texts)?;
    let client = Client::public(&args.server, environment)?;
    let mut body = json!({ "model": args.model, "input": texts, "encoding_format": "float" });
    if let Some(dimensions) = args.dimensions {
        body["dimensions"] = dimensions.into();
    }
    let answer = block_on(async { client.post_json("/v1/embeddings", &body).await?.json() })?;
    printer.print(&answer, |answer, style| table(answer, &texts, style))?;
    Ok(())
}

fn texts(words: &[String]) -> Outcome<Vec<String>> {
    let mut texts = Vec::new();
    for word in words {
        if word == "-" {
            for line in std::io::stdin().lock().lines() {
                texts.push(line?);
            }
        } else {
            texts.push(word.clone());
        }
    }
    texts.retain(|text| !text.is_empty());
    if texts.is_empty() {
        return Err(Failure::usage("no text to embed").hint("kapok embed MODEL 'a text'"));
    }
    Ok(texts)
}

/// One text: its vector's size and beginning. Several: how alike each two are.
fn table(answer: &Value, texts: &[String], style: Style) -> String {
    let vectors: Vec<Vec<f64>> = answer["data"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| {
            let numbers = item["embedding"].as_array().into_iter().flatten();
            numbers.filter_map(Value::as_f64).collect()
        })
        .collect();
    let mut text = match vectors.as_slice() {
        [vector] => {
            let start: Vec<String> = vector.iter().take(6).map(|x| format!("{x:.4}")).collect();
            format!("{} numbers: {}, …\n", vector.len(), start.join(", "))
        }
        _ => similarities(&vectors, texts, style),
    };
    if let Some(tokens) = answer["usage"]["total_tokens"].as_u64() {
        text.push_str(&style.quiet(&format!("{tokens} tokens\n")));
    }
    text
}

fn similarities(vectors: &[Vec<f64>], texts: &[String], style: Style) -> String {
    const HEAD: [&str; 9] = ["COSINE", "1", "2", "3", "4", "5", "6", "7", "8"];
    let shown = vectors.len().min(HEAD.len() - 1);
    let mut table = Table::new(HEAD.get(..=shown).unwrap_or(&HEAD));
    for (row, (left, text)) in vectors.iter().zip(texts).take(shown).enumerate() {
        let mut cells = vec![format!("{} {}", row + 1, shorten(text))];
        cells.extend(
            vectors
                .iter()
                .take(shown)
                .map(|right| format!("{:.3}", cosine(left, right))),
        );
        table.row(cells);
    }
    let mut text = table.render(style);
    if vectors.len() > shown {
        text.push_str(&format!(
            "{} more: see --output json\n",
            vectors.len() - shown
        ));
    }
    text
}

fn cosine(left: &[f64], right: &[f64]) -> f64 {
    let dot: f64 = left.iter().zip(right).map(|(a, b)| a * b).sum();
    let norm = |vector: &[f64]| vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    dot / (norm(left) * norm(right)).max(f64::MIN_POSITIVE)
}

fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    if text.chars().count() <= CHARS_MAX {
        return text.to_owned();
    }
    let start: String = text.chars().take(CHARS_MAX - 1).collect();
    format!("{start}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_texts_are_compared_and_one_is_described() {
        let answer = json!({
            "data": [{"embedding": [1.0, 0.0]}, {"embedding": [0.6, 0.8]}],
            "usage": {"total_tokens": 9},
        });
        let texts = ["a cat".to_owned(), "a kitten".to_owned()];
        assert_eq!(
            table(&answer, &texts, Style::new(false)),
            "COSINE      1      2\n1 a cat     1.000  0.600\n2 a kitten  0.600  1.000\n9 tokens\n"
        );
        let one = json!({"data": [{"embedding": [0.25, -0.5]}]});
        assert_eq!(
            table(&one, &texts, Style::new(false)),
            "2 numbers: 0.2500, -0.5000, …\n"
        );
    }
}
