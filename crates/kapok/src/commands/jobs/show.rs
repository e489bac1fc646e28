//! Jobs, for people.

use serde_json::Value;

use crate::output::{Style, Table};

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

pub(super) fn list(jobs: &Value, style: Style) -> String {
    let mut table = Table::new(&["ID", "STATE", "REASON", "TENANT", "WHERE", "SUBMITTED"]);
    for job in jobs.as_array().into_iter().flatten() {
        let status = &job["status"];
        table.row([
            text(status, "id").to_owned(),
            text(status, "state").to_owned(),
            text(status, "reason").to_owned(),
            text(&job["spec"], "tenant").to_owned(),
            places(status),
            text(status, "submittedAt").to_owned(),
        ]);
    }
    if table.is_empty() {
        return "no jobs; submit one: kapok submit -- PROGRAM ARGUMENTS\n".to_owned();
    }
    table.render_with(style, |style, column, text| match (column, text) {
        (1, "Running" | "Succeeded") => style.good(text),
        (1, "Failed") => style.bad(text),
        (1, "Queued" | "Starting" | "Stopping") => style.warn(text),
        _ => text.to_owned(),
    })
}

/// What to remember of a job that was just submitted or changed.
pub(super) fn submitted(job: &Value, style: Style) -> String {
    let status = &job["status"];
    let mut line = format!(
        "{}  {}",
        style.strong(text(status, "id")),
        text(status, "state")
    );
    let message = text(status, "message");
    if !message.is_empty() {
        line.push_str(&format!(": {message}"));
    }
    line.push('\n');
    line
}

pub(super) fn whole(job: &Value, style: Style) -> String {
    let (spec, status) = (&job["spec"], &job["status"]);
    let mut shown = submitted(job, style);
    let exit = match (&status["end"]["exitCode"], &status["end"]["signal"]) {
        (Value::Number(code), _) => format!("exit code {code}"),
        (_, Value::Number(signal)) => format!("signal {signal}"),
        _ => String::new(),
    };
    let command = spec["command"].as_array().into_iter().flatten();
    let command = command.chain(spec["args"].as_array().into_iter().flatten());
    let command: Vec<_> = command.filter_map(Value::as_str).collect();
    for (name, value) in [
        ("command", command.join(" ")),
        ("model", text(spec, "model").to_owned()),
        ("endpoint", text(status, "endpoint").to_owned()),
        ("reason", text(status, "reason").to_owned()),
        ("ended with", exit),
        ("where", places(status)),
        (
            "priority",
            format!("{}, QoS {}", text(spec, "priority"), spec["qosLevel"]),
        ),
        ("attempts", status["attempts"].to_string()),
        ("submitted", text(status, "submittedAt").to_owned()),
        ("started", text(status, "startedAt").to_owned()),
        ("finished", text(status, "finishedAt").to_owned()),
    ] {
        if !value.is_empty() {
            shown.push_str(&format!(
                "{} {value}\n",
                style.quiet(&format!("{name:<12}"))
            ));
        }
    }
    let mut table = Table::new(&["CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"]);
    for condition in status["conditions"].as_array().into_iter().flatten() {
        let fields = ["type", "status", "reason", "lastTransitionTime", "message"];
        table.row(fields.map(|field| text(condition, field)));
    }
    if !table.is_empty() {
        shown.push('\n');
        shown.push_str(&table.render(style));
    }
    shown
}

/// Why a job waits, or what would become of one.
pub(in crate::commands) fn explained(told: &Value, style: Style) -> String {
    let id = text(told, "id");
    let mut shown = format!(
        "{}{}  {}\n{}\n",
        if id.is_empty() {
            String::new()
        } else {
            format!("{}  ", style.strong(id))
        },
        text(told, "state"),
        style.quiet(text(told, "reason")),
        text(told, "message"),
    );
    if let Some(position) = told["position"].as_u64() {
        shown.push_str(&format!("{position} of {} that wait\n", told["waiting"]));
    }
    for line in told["lines"].as_array().into_iter().flatten() {
        shown.push_str(&format!("{}\n", line.as_str().unwrap_or_default()));
    }
    shown
}

fn places(status: &Value) -> String {
    let places = status["placements"].as_array().into_iter().flatten();
    let mut nodes: Vec<_> = places
        .map(|place| match text(place, "region") {
            "" => text(place, "node").to_owned(),
            region => format!("{} ({region})", text(place, "node")),
        })
        .collect();
    nodes.dedup();
    nodes.join(", ")
}
