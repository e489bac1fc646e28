use std::path::Path;

use serde_json::{Value, json};

use super::escaped;
use crate::cli::{ModelsArgs, ModelsCommand, ServerArgs};
use crate::client::{Client, block_on};
use crate::config::Environment;
use crate::exit::{Failure, Outcome};
use crate::output::{Printer, Style, Table};

pub(super) fn run(args: &ModelsArgs, printer: &Printer, environment: &Environment) -> Outcome {
    match &args.command {
        ModelsCommand::List {
            verbose: false,
            server,
        } => {
            let document = block_on(list(server, environment))?;
            printer.print(&document, short_table)?;
        }
        ModelsCommand::List {
            verbose: true,
            server,
        } => {
            let admin = Client::admin(server, environment)?;
            let document = block_on(async {
                let models = admin.get("/admin/v1/models").await?.json()?;
                let upstreams = admin.get("/admin/v1/upstreams").await?.json()?;
                Ok(json!({ "models": models, "upstreams": upstreams }))
            })?;
            printer.print(&document, |document, style| {
                let upstreams = upstream_table(&document["upstreams"], style);
                format!("{}{upstreams}", engine_table(&document["models"], style))
            })?;
        }
        ModelsCommand::Tune(args) => super::tune::run(args, printer, environment)?,
        ModelsCommand::Check(args) => super::check::run(args, printer)?,
        ModelsCommand::Load {
            model,
            config,
            server,
        } => {
            let mut parameters = json!({});
            if let Some(file) = config {
                parameters["config"] = json!(read(file)?);
            }
            let body = json!({ "parameters": parameters });
            block_on(order(server, environment, (model, "load"), &body))?;
            done(printer, model, "loaded")?;
        }
        ModelsCommand::Unload {
            model,
            dependents,
            server,
        } => {
            let body = json!({ "parameters": { "unload_dependents": dependents } });
            block_on(order(server, environment, (model, "unload"), &body))?;
            done(printer, model, "unloaded")?;
        }
        ModelsCommand::Rollback { model, server } => {
            let admin = Client::admin(server, environment)?;
            let path = format!("/admin/v1/models/{}/rollback", escaped(model));
            block_on(async { admin.post_json(&path, &json!({})).await.map(|_reply| ()) })?;
            done(printer, model, "rolled back")?;
        }
    }
    Ok(())
}

fn read(file: &Path) -> Outcome<String> {
    std::fs::read_to_string(file).map_err(|error| {
        Failure::usage(format!("`{}` cannot be read: {error}", file.display()))
            .hint("--config takes a file with Triton's ModelConfig as JSON")
    })
}

async fn order(
    server: &ServerArgs,
    environment: &Environment,
    (model, verb): (&str, &str),
    body: &Value,
) -> Outcome {
    let client = Client::public(server, environment)?;
    let path = format!("/v2/repository/models/{}/{verb}", escaped(model));
    client.post_json(&path, body).await.map(|_reply| ())
}

fn done(printer: &Printer, model: &str, what: &str) -> Outcome {
    let document = json!({ "model": model, "done": what });
    printer.print(&document, |_, style| {
        format!("{} is {what}\n", style.strong(model))
    })?;
    Ok(())
}

/// The repository index, then what only upstreams answer for.
async fn list(server: &ServerArgs, environment: &Environment) -> Outcome<Value> {
    let client = Client::public(server, environment)?;
    let index = client
        .post_json("/v2/repository/index", &json!({}))
        .await?
        .json()?;
    let listed = client.get("/v1/models").await?.json()?;
    let upstreams = upstreams(server, environment).await;
    Ok(merge(&index, &listed, &upstreams))
}

/// Null when the admin port cannot be asked, or may be another server's.
async fn upstreams(server: &ServerArgs, environment: &Environment) -> Value {
    let public_named = server.url.is_some() || environment.url.is_some();
    let admin_named = server.admin_url.is_some() || environment.admin_url.is_some();
    if public_named && !admin_named {
        return Value::Null;
    }
    // What it adds is the state of upstreams: the list is worth printing without.
    let asked = async {
        let admin = Client::admin(server, environment)?;
        admin.get("/admin/v1/upstreams").await?.json()
    };
    asked.await.unwrap_or(Value::Null)
}

/// What is known of an upstream's models, and why they cannot be asked for. Nobody watches a server that kapok has not
/// started, so that one is only listed.
fn upstream_state(upstreams: &Value, name: &Value) -> (&'static str, Value) {
    let mut all = upstreams.as_array().into_iter().flatten();
    let upstream = all.find(|upstream| upstream["name"] == *name);
    match upstream {
        Some(upstream) if upstream["ready"] == false => ("UNAVAILABLE", upstream["reason"].clone()),
        Some(upstream) if !upstream["process"].is_null() => ("READY", json!("")),
        Some(_) | None => ("LISTED", json!("")),
    }
}

fn merge(index: &Value, listed: &Value, upstreams: &Value) -> Value {
    let local: Vec<&Value> = index.as_array().into_iter().flatten().collect();
    let mut models: Vec<Value> = local
        .iter()
        .map(|entry| {
            json!({
                "name": entry["name"],
                "version": entry["version"],
                "state": entry["state"],
                "reason": entry["reason"],
                "from": "local",
            })
        })
        .collect();
    for entry in listed["data"].as_array().into_iter().flatten() {
        if local.iter().all(|known| known["name"] != entry["id"]) {
            let (state, reason) = upstream_state(upstreams, &entry["owned_by"]);
            models.push(json!({
                "name": entry["id"],
                "version": "",
                "state": state,
                "reason": reason,
                "from": entry["owned_by"],
            }));
        }
    }
    json!({ "models": models })
}

fn short_table(document: &Value, style: Style) -> String {
    let mut table = Table::new(&["MODEL", "VERSION", "STATE", "FROM", "REASON"]);
    for model in document["models"].as_array().into_iter().flatten() {
        table.row(["name", "version", "state", "from", "reason"].map(|field| text(&model[field])));
    }
    if table.is_empty() {
        return "no models: start with `kapok up --model-repo DIR` or `--upstream NAME=URL`\n"
            .to_owned();
    }
    table.render_with(style, paint)
}

/// One line a model, and below it one line for each engine that was tried.
fn engine_table(models: &Value, style: Style) -> String {
    let mut table = Table::new(&[
        "MODEL",
        "VERSION",
        "STATE",
        "ENGINE",
        "MEDIAN",
        "DIFFERENCE",
        "VERDICT",
    ]);
    for model in models.as_array().into_iter().flatten() {
        let mut row = ["name", "version", "state"]
            .map(|field| text(&model[field]))
            .to_vec();
        let engine = [&model["engine"], &model["engine_version"]].map(text);
        row.push(engine.join(" ").trim().to_owned());
        row.extend([String::new(), String::new(), about(model)]);
        table.row(row);
        let candidates = model["candidates"].as_array();
        let halves = candidates
            .is_some_and(|all| all.iter().any(|candidate| candidate["precision"] == "bf16"));
        for candidate in candidates.into_iter().flatten() {
            let mut row = vec![String::new(); 3];
            row.push(format!(
                "- {}{}",
                text(&candidate["engine"]),
                how(candidate, halves)
            ));
            row.push(number(&candidate["median_ms"], |ms| format!("{ms:.3} ms")));
            row.push(number(&candidate["max_difference"], |difference| {
                format!("{difference:.1e}")
            }));
            let rate = number(&candidate["calls_per_s"], |rate| {
                format!(" ({rate:.0} calls/s)")
            });
            row.push(format!("{}{rate}", text(&candidate["verdict"])));
            table.row(row);
        }
    }
    if table.is_empty() {
        return "no models in this process\n".to_owned();
    }
    table.render_with(style, paint)
}

/// How a candidate computes, where that needs a word.
fn how(candidate: &Value, halves: bool) -> String {
    let precision = if halves {
        format!(" {}", text(&candidate["precision"]))
    } else {
        String::new()
    };
    match candidate["threads"].as_u64() {
        Some(threads) if threads > 1 => format!("{precision} × {threads} threads"),
        _ => precision,
    }
}

fn upstream_table(upstreams: &Value, style: Style) -> String {
    let mut table = Table::new(&["UPSTREAM", "URL", "STATE", "IN FLIGHT", "MODELS", "REASON"]);
    for upstream in upstreams.as_array().into_iter().flatten() {
        let ready = upstream["ready"] == true;
        let models = upstream["models"].as_array();
        let models = models.map_or_else(
            || "any that nobody else claims".to_owned(),
            |models| models.iter().map(text).collect::<Vec<_>>().join(", "),
        );
        table.row([
            text(&upstream["name"]),
            text(&upstream["url"]),
            if ready { "READY" } else { "UNAVAILABLE" }.to_owned(),
            upstream["in_flight"].to_string(),
            models,
            text(&upstream["reason"]),
        ]);
    }
    if table.is_empty() {
        return String::new();
    }
    format!("\n{}", table.render_with(style, paint))
}

/// What else is worth a word: why it is not ready, or how it is served.
fn about(model: &Value) -> String {
    let reason = text(&model["reason"]);
    if !reason.is_empty() {
        return reason;
    }
    let lanes = model["lanes"].as_u64().unwrap_or_default();
    let load = number(&model["load_ms"], |ms| format!(", loaded in {ms:.0} ms"));
    format!("{lanes} lane{}{load}", if lanes == 1 { "" } else { "s" })
}

fn paint(style: Style, column: usize, cell: &str) -> String {
    match (column, cell) {
        (0, _) => style.strong(cell),
        (2, "READY") => style.good(cell),
        (2, "LOADING" | "UNLOADING") => style.warn(cell),
        (2, "LISTED") => cell.to_owned(),
        (2, _) => style.bad(cell),
        _ => cell.to_owned(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(String::new, str::to_owned)
}

fn number(value: &Value, show: impl Fn(f64) -> String) -> String {
    value.as_f64().map_or_else(String::new, show)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_of_a_path() {
        assert_eq!(escaped("a b/ü"), "a%20b%2F%C3%BC");
    }

    #[test]
    fn local_models_come_first_and_upstream_models_once() {
        let index = json!([
            {"name": "identity", "version": "1", "state": "READY", "reason": ""},
            {"name": "broken", "version": "1", "state": "UNAVAILABLE", "reason": "no file"},
        ]);
        let listed = json!({"data": [
            {"id": "identity", "owned_by": "kapok"},
            {"id": "smollm2", "owned_by": "llama"},
            {"id": "qwen", "owned_by": "vllm"},
            {"id": "gpt", "owned_by": "far"},
        ]});
        let upstreams = json!([
            {"name": "llama", "ready": true, "reason": "", "process": ["llama-server"]},
            {"name": "vllm", "ready": false, "reason": "its process ended", "process": ["vllm"]},
            {"name": "far", "ready": true, "reason": "", "process": null},
        ]);
        let document = merge(&index, &listed, &upstreams);
        assert_eq!(
            short_table(&document, Style::new(false)),
            "MODEL     VERSION  STATE        FROM   REASON\n\
             identity  1        READY        local\n\
             broken    1        UNAVAILABLE  local  no file\n\
             smollm2            READY        llama\n\
             qwen               UNAVAILABLE  vllm   its process ended\n\
             gpt                LISTED       far\n"
        );
        let unknown = merge(&index, &listed, &Value::Null);
        let states: Vec<String> = (2..5)
            .map(|at| text(&unknown["models"][at]["state"]))
            .collect();
        assert_eq!(states, ["LISTED"; 3]);
    }

    #[test]
    fn the_long_list_shows_why_an_engine_was_chosen() {
        let models = json!([{
            "name": "minilm", "version": "1", "state": "READY", "reason": "", "engine": "onnxruntime",
            "engine_version": "1.31.1", "lanes": 2, "load_ms": 250.4,
            "candidates": [
                {"engine": "onnxruntime", "median_ms": 9.6, "max_difference": 0.00001, "verdict": "fastest"},
                {"engine": "rten", "median_ms": 12.6, "max_difference": null, "verdict": "slower"},
            ],
        }]);
        assert_eq!(
            engine_table(&models, Style::new(false)),
            "MODEL   VERSION  STATE  ENGINE              MEDIAN     DIFFERENCE  VERDICT\n\
             minilm  1        READY  onnxruntime 1.31.1                         2 lanes, loaded in 250 ms\n\
             \x20                       - onnxruntime       9.600 ms   1.0e-5      fastest\n\
             \x20                       - rten              12.600 ms              slower\n"
        );
    }

    #[test]
    fn the_long_list_shows_precision_and_threads_where_they_were_weighed() {
        let candidate = |precision: &str, threads: u32, verdict: &str| {
            json!({
                "engine": "openvino", "precision": precision, "threads": threads, "median_ms": 3.0,
                "calls_per_s": 300.4, "max_difference": null, "verdict": verdict,
            })
        };
        let models = json!([{
            "name": "m", "version": "1", "state": "READY", "reason": "", "engine": "openvino",
            "engine_version": "2026.4.1", "lanes": 1, "load_ms": 1.0,
            "candidates": [candidate("bf16", 2, "fastest"), candidate("fp32", 1, "slower")],
        }]);
        let table = engine_table(&models, Style::new(false));
        assert!(
            table.contains("- openvino bf16 × 2 threads  3.000 ms"),
            "{table}"
        );
        assert!(table.contains("fastest (300 calls/s)"), "{table}");
        assert!(table.contains("- openvino fp32 "), "{table}");
    }

    #[test]
    fn upstreams_are_listed_with_what_they_take() {
        let upstreams = json!([
            {"name": "llm", "url": "http://h:1", "ready": false, "reason": "its process has not started yet",
             "in_flight": 0, "models": null},
            {"name": "vllm", "url": "http://h:2", "ready": true, "reason": "", "in_flight": 3, "models": ["a", "b"]},
        ]);
        assert_eq!(
            upstream_table(&upstreams, Style::new(false)),
            "\nUPSTREAM  URL         STATE        IN FLIGHT  MODELS                       REASON\n\
             llm       http://h:1  UNAVAILABLE  0          any that nobody else claims  its process has not started \
             yet\n\
             vllm      http://h:2  READY        3          a, b\n"
        );
        assert_eq!(upstream_table(&json!([]), Style::new(false)), "");
    }
}
