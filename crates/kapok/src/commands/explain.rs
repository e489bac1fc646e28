use serde_json::Value;

use crate::cli::ExplainArgs;
use crate::client::{Client, block_on};
use crate::config::Environment;
use crate::exit::{Failure, Outcome};
use crate::output::{Printer, Style, Table};

/// Columns of the bar that stands for the whole request.
const BAR_CHARS: usize = 40;

pub(super) fn run(args: &ExplainArgs, printer: &Printer, environment: &Environment) -> Outcome {
    // Requests' ids can be a client's own words, so a job is looked for first; `req-` are ours.
    if args.id != "last" && !args.id.starts_with("req-") {
        let public = Client::public(&args.server, environment)?;
        let path = format!("/api/v1/jobs/{}/explain", super::escaped(&args.id));
        // A server that cannot be asked for jobs can still be asked for requests.
        if let Ok(Some(told)) = block_on(public.find(&path)) {
            printer.print(&told, super::jobs::explained)?;
            return Ok(());
        }
    }
    let client = Client::admin(&args.server, environment)?;
    let record = block_on(async {
        if args.id != "last" {
            let path = format!("/admin/v1/requests/{}", super::escaped(&args.id));
            return client.get(&path).await?.json();
        }
        let latest = client.get("/admin/v1/requests?limit=1").await?.json()?;
        let newest = latest["requests"].as_array().or(latest.as_array());
        newest
            .and_then(|records| records.first().cloned())
            .ok_or_else(|| {
                Failure::failed("no request has finished yet")
                    .hint("send one, such as `kapok embed MODEL 'a text'`")
            })
    })?;
    printer.print(&record, table)?;
    Ok(())
}

fn table(record: &Value, style: Style) -> String {
    let field = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    let total = record["total_ms"].as_f64().unwrap_or_default();
    let mut text = format!(
        "{}  {}  status {}{}\n",
        style.strong(&field("request_id")),
        field("operation"),
        record["status"],
        if record["complete"] == false {
            style.bad("  not sent to its end")
        } else {
            String::new()
        }
    );
    for (name, value) in [
        ("model", field("model")),
        ("answered by", field("target")),
        ("because", field("reason")),
        ("error", field("error")),
        ("trace", field("trace_id")),
        ("tokens", tokens(&record["generation"])),
        ("first token", first_token(&record["generation"])),
    ] {
        if !value.is_empty() {
            text.push_str(&format!(
                "{} {value}\n",
                style.quiet(&format!("{name:<12}"))
            ));
        }
    }
    text.push('\n');
    let mut table = Table::new(&["STAGE", "MS", "SHARE", "WHEN"]);
    let mut before = 0.0;
    for stage in record["stages"].as_array().into_iter().flatten() {
        let ms = stage["ms"].as_f64().unwrap_or_default();
        table.row([
            stage["stage"].as_str().unwrap_or_default().to_owned(),
            format!("{ms:>9.3}"),
            format!("{:>4.1} %", 100.0 * share(ms, total)),
            bar(share(before, total), share(ms, total)),
        ]);
        before += ms;
    }
    table.row(["total".to_owned(), format!("{total:>9.3}")]);
    text.push_str(&table.render(style));
    let attempts = record["attempts"].as_array().map_or(&[][..], Vec::as_slice);
    if !attempts.is_empty() {
        text.push('\n');
        text.push_str(&attempted(attempts, style));
    }
    text
}

/// As far as the upstream told them; empty if it did not.
fn tokens(generation: &Value) -> String {
    let count = |name: &str| generation[name].as_u64();
    match (count("input_tokens"), count("output_tokens")) {
        (Some(input), Some(output)) => format!("{input} in, {output} out"),
        _ => String::new(),
    }
}

/// When a stream began, and how it went on.
fn first_token(generation: &Value) -> String {
    let ms = |name: &str| generation[name].as_f64();
    match (ms("first_token_ms"), ms("per_token_ms")) {
        (Some(first), Some(next)) => format!("after {first:.1} ms, then every {next:.1} ms"),
        (Some(first), None) => format!("after {first:.1} ms"),
        _ => String::new(),
    }
}

/// Who was asked, how long each part took, and among whom the choice was.
fn attempted(attempts: &[Value], style: Style) -> String {
    let columns = ["ASKED", "AT", "CONNECT", "FIRST BYTE", "TOTAL", "BECAME"];
    let mut table = Table::new(&columns);
    let mut choices = String::new();
    for (number, attempt) in attempts.iter().enumerate() {
        let ms = |name: &str| {
            let time = attempt[name].as_f64();
            time.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.3}"))
        };
        let status = attempt["status"].as_u64();
        let answered = status.map(|status| format!("answered {status}"));
        let failure = attempt["failure"].as_str().map(str::to_owned);
        let became = match (answered, failure) {
            (Some(answered), Some(failure)) if answered != failure => {
                format!("{answered}, then: {failure}")
            }
            (answered, failure) => answered.or(failure).unwrap_or_default(),
        };
        let name = attempt["upstream"].as_str().unwrap_or_default();
        table.row([
            name.to_owned(),
            ms("started_ms"),
            ms("connect_ms"),
            ms("first_byte_ms"),
            ms("total_ms"),
            became,
        ]);
        choices.push_str(&choice(number + 1, attempt));
    }
    format!("{}{choices}", table.render(style))
}

/// The candidates of one decision, if there were several.
fn choice(number: usize, attempt: &Value) -> String {
    let mut text = String::new();
    if let Some(reason) = attempt["reason"].as_str() {
        text.push_str(&format!("choice {number}: {reason}\n"));
    }
    let candidates = attempt["candidates"].as_array();
    let Some(candidates) = candidates.filter(|several| several.len() > 1) else {
        return text;
    };
    let rule = attempt["rule"].as_str().unwrap_or_default();
    let unit = attempt["unit"].as_str().unwrap_or_default();
    text.push_str(&format!("choice {number} by {rule}:\n"));
    for candidate in candidates {
        let name = candidate["upstream"].as_str().unwrap_or_default();
        let verdict = candidate["verdict"].as_str().unwrap_or_default();
        let score = candidate["score"].as_f64().filter(|_| !unit.is_empty());
        let score = score.map_or_else(String::new, |score| format!("  {score:.1} {unit}"));
        text.push_str(&format!("  {name}  {verdict}{score}\n"));
    }
    text
}

fn share(part: f64, total: f64) -> f64 {
    if total > 0.0 {
        (part / total).clamp(0.0, 1.0)
    } else {
        0.0
    }
}

/// Where in the request's time this stage lies.
fn bar(start: f64, length: f64) -> String {
    let cells = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of 40 columns"
        )]
        let cells = (share * BAR_CHARS as f64).round() as usize;
        cells
    };
    let from = cells(start).min(BAR_CHARS - 1);
    let to = cells(start + length).clamp(from + 1, BAR_CHARS);
    format!("{}{}", " ".repeat(from), "█".repeat(to - from))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_stages_are_drawn_where_they_lie() {
        let record = json!({
            "request_id": "req-1", "operation": "oip infer", "model": "m", "target": "local",
            "reason": "in this process", "status": 200, "error": null, "complete": true, "total_ms": 10.0,
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
            "generation": {"input_tokens": 12, "output_tokens": 40, "first_token_ms": 3.5, "per_token_ms": 0.5},
            "stages": [{"stage": "parse", "ms": 2.5}, {"stage": "infer", "ms": 7.4}, {"stage": "send", "ms": 0.1}],
        });
        let expected = "\
req-1  oip infer  status 200
model        m
answered by  local
because      in this process
trace        0af7651916cd43dd8448eb211c80319c
tokens       12 in, 40 out
first token  after 3.5 ms, then every 0.5 ms

STAGE  MS         SHARE   WHEN
parse      2.500  25.0 %  ██████████
infer      7.400  74.0 %            ██████████████████████████████
send       0.100   1.0 %                                         █
total     10.000
";
        let text = table(&record, Style::new(false));
        assert_eq!(text.lines().count(), expected.lines().count(), "{text}");
        for (line, wanted) in text.lines().zip(expected.lines()) {
            assert_eq!(
                line.split_whitespace().collect::<Vec<_>>(),
                wanted.split_whitespace().collect::<Vec<_>>()
            );
        }
        assert_eq!(
            bar(0.25, 0.5).chars().filter(|each| *each == '█').count(),
            20
        );
        assert_eq!(bar(1.0, 0.0).chars().count(), BAR_CHARS);
    }

    #[test]
    fn every_attempt_is_shown_with_its_end_and_its_candidates() {
        let attempts = [
            json!({"upstream": "a", "started_ms": 0.5, "connect_ms": null, "first_byte_ms": null, "total_ms": 1.0,
                "status": null, "failure": "upstream `a` is not reachable", "reason": "route `r`",
                "rule": "two at random, the less busy", "unit": "requests", "candidates": [
                    {"upstream": "a", "score": 1.0, "verdict": "chosen"},
                    {"upstream": "b", "score": 2.0, "verdict": "worse"},
                    {"upstream": "c", "score": null, "verdict": "unusable"}]}),
            json!({"upstream": "b", "started_ms": 1.5, "connect_ms": 0.25, "first_byte_ms": 3.0, "total_ms": 9.0,
                "status": 200, "failure": "the client left", "reason": null, "rule": "", "unit": "", "candidates": []}),
        ];
        let expected = [
            "ASKED AT CONNECT FIRST BYTE TOTAL BECAME",
            "a 0.500 - - 1.000 upstream `a` is not reachable",
            "b 1.500 0.250 3.000 9.000 answered 200, then: the client left",
            "choice 1: route `r`",
            "choice 1 by two at random, the less busy:",
            "a chosen 1.0 requests",
            "b worse 2.0 requests",
            "c unusable",
        ];
        let text = attempted(&attempts, Style::new(false));
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(lines, expected);
    }
}
