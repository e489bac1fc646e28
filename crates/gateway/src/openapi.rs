//! The OpenAPI document of the public port, made from one table of routes.

mod schemas;

use serde_json::{Map, Value, json};

use crate::operation::Operation;

/// A route as clients see it. Braces in a path are one segment each.
struct Route {
    operation: Operation,
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// Names of schemas; none is no body.
    request: Option<&'static str>,
    answer: Answer,
    errors: &'static [u16],
}

#[derive(Clone, Copy)]
enum Answer {
    Json(&'static str),
    /// JSON, or JSON with raw tensors behind it.
    Tensors,
    /// JSON, or server-sent events if the request says `stream`.
    Maybe,
    Metrics,
    /// Server-sent events.
    Events,
    Text,
}

use Answer::{Events, Json, Maybe, Metrics, Tensors, Text};

/// No key, a wrong one, one for other models, too many bodies at once, a bug.
const GUARDED: &[u16] = &[400, 401, 403, 404, 408, 500, 501, 503, 504];
const ASKED: &[u16] = &[400, 401, 403, 404, 408, 415, 429, 500, 501, 502, 503, 504];
const RELAYED: &[u16] = &[
    400, 401, 403, 404, 408, 413, 415, 429, 500, 501, 502, 503, 504,
];
const OPEN: &[u16] = &[500];

const fn get(
    operation: Operation,
    path: &'static str,
    summary: &'static str,
    answer: Answer,
) -> Route {
    Route {
        operation,
        method: "get",
        path,
        summary,
        request: None,
        answer,
        errors: GUARDED,
    }
}

const fn post(
    operation: Operation,
    path: &'static str,
    summary: &'static str,
    bodies: (&'static str, Answer),
) -> Route {
    Route {
        operation,
        method: "post",
        path,
        summary,
        request: Some(bodies.0),
        answer: bodies.1,
        errors: ASKED,
    }
}

const fn delete(
    operation: Operation,
    path: &'static str,
    summary: &'static str,
    answer: Answer,
) -> Route {
    Route {
        method: "delete",
        ..get(operation, path, summary, answer)
    }
}

const fn open(route: Route) -> Route {
    Route {
        errors: OPEN,
        ..route
    }
}

const fn relayed(route: Route) -> Route {
    Route {
        errors: RELAYED,
        ..route
    }
}

#[rustfmt::skip]
const ROUTES: &[Route] = &[
    open(get(Operation::Health, "/health/live", "Whether the process answers", Json("Live"))),
    open(get(Operation::Health, "/health/ready", "Whether it takes requests, and what it waits for", Json("Waiting"))),
    get(Operation::Metrics, "/metrics", "Figures for Prometheus", Metrics),
    get(Operation::OpenApi, "/openapi.json", "This document", Json("Document")),
    get(Operation::OpenAiModels, "/v1/models", "Every model, of this process and of upstreams", Json("OpenAiModels")),
    get(Operation::OpenAiModels, "/v1/models/{model}", "One model", Json("OpenAiModel")),
    relayed(delete(Operation::OpenAiOther, "/v1/models/{model}", "Delete what was trained at an upstream", Json("Anything"))),
    relayed(get(Operation::OpenAiStored, "/v1/chat/completions", "Conversations that an upstream keeps", Json("Anything"))),
    relayed(post(Operation::ChatCompletions, "/v1/chat/completions", "Continue a conversation", ("ModelNamed", Maybe))),
    relayed(post(Operation::Completions, "/v1/completions", "Continue a text", ("ModelNamed", Maybe))),
    relayed(post(Operation::Embeddings, "/v1/embeddings", "Turn texts into vectors", ("Embed", Json("Embeddings")))),
    relayed(post(Operation::Responses, "/v1/responses", "Answer in one turn, with tools", ("ModelNamed", Maybe))),
    relayed(post(Operation::OpenAiOther, "/v1/moderations", "Any other call below /v1 that names a model is relayed like this one", ("ModelNamed", Maybe))),
    relayed(get(Operation::OpenAiStored, "/v1/files", "What an upstream keeps is asked for like this, and routed by its path", Json("Anything"))),
    relayed(post(Operation::OpenAiStored, "/v1/files", "A file on its way to an upstream is never held in memory", ("Anything", Json("Anything")))),
    relayed(get(Operation::OpenAiStored, "/v1/files/{file}", "One file, by its path", Json("Anything"))),
    relayed(post(Operation::Messages, "/v1/messages", "Continue a conversation, in Anthropic's words", ("ModelNamed", Maybe))),
    relayed(get(Operation::AnthropicStored, "/v1/messages/batches", "What an upstream keeps of messages", Json("Anything"))),
    relayed(post(Operation::AnthropicStored, "/v1/messages/batches", "Messages to be continued some time later", ("Anything", Json("Anything")))),
    relayed(post(Operation::CountTokens, "/v1/messages/count_tokens", "How many tokens a conversation has", ("ModelNamed", Json("Anything")))),
    get(Operation::ServerMetadata, "/v2", "Name, version and extensions of the server", Json("Server")),
    open(get(Operation::Health, "/v2/health/live", "Whether the process answers", Json("Live"))),
    open(get(Operation::Health, "/v2/health/ready", "Whether it takes requests", Json("Ready"))),
    get(Operation::ModelStatistics, "/v2/models/stats", "Counters of every model", Json("Statistics")),
    get(Operation::ModelMetadata, "/v2/models/{model}", "Inputs and outputs", Json("Model")),
    get(Operation::ModelMetadata, "/v2/models/{model}/versions/{version}", "Inputs and outputs of a version", Json("Model")),
    get(Operation::ModelReady, "/v2/models/{model}/ready", "Whether a model answers", Json("ModelReady")),
    get(Operation::ModelReady, "/v2/models/{model}/versions/{version}/ready", "Whether a version answers", Json("ModelReady")),
    get(Operation::ModelConfig, "/v2/models/{model}/config", "The completed configuration", Json("ModelConfig")),
    get(Operation::ModelConfig, "/v2/models/{model}/versions/{version}/config", "The completed configuration of a version", Json("ModelConfig")),
    get(Operation::ModelStatistics, "/v2/models/{model}/stats", "Counters of a model", Json("Statistics")),
    get(Operation::ModelStatistics, "/v2/models/{model}/versions/{version}/stats", "Counters of a version", Json("Statistics")),
    post(Operation::Infer, "/v2/models/{model}/infer", "Run a model", ("Infer", Tensors)),
    post(Operation::Infer, "/v2/models/{model}/versions/{version}/infer", "Run a version", ("Infer", Tensors)),
    post(Operation::Generate, "/v2/models/{model}/generate", "Run a model on plain JSON fields", ("Fields", Json("Fields"))),
    post(Operation::Generate, "/v2/models/{model}/versions/{version}/generate", "Run a version on plain JSON fields", ("Fields", Json("Fields"))),
    post(Operation::GenerateStream, "/v2/models/{model}/generate_stream", "The same, each answer an event", ("Fields", Events)),
    post(Operation::GenerateStream, "/v2/models/{model}/versions/{version}/generate_stream", "The same of a version", ("Fields", Events)),
    post(Operation::RepositoryIndex, "/v2/repository/index", "Every model version and its state", ("IndexWanted", Json("Index"))),
    post(Operation::RepositoryIndex, "/v2/repository/{repository}/index", "The same: repositories have no names here", ("IndexWanted", Json("Index"))),
    post(Operation::RepositoryLoad, "/v2/repository/models/{model}/load", "Load a model, or load it anew", ("Load", Json("Done"))),
    post(Operation::RepositoryLoad, "/v2/repository/{repository}/models/{model}/load", "Refused: repositories have no names here", ("Load", Json("Done"))),
    post(Operation::RepositoryUnload, "/v2/repository/models/{model}/unload", "Take a model out of service", ("Unload", Json("Done"))),
    post(Operation::RepositoryUnload, "/v2/repository/{repository}/models/{model}/unload", "Refused: repositories have no names here", ("Unload", Json("Done"))),
    get(Operation::TraceSettings, "/v2/trace/setting", "What is traced", Json("Trace")),
    post(Operation::TraceSettings, "/v2/trace/setting", "Change what is traced", ("TraceChange", Json("Trace"))),
    get(Operation::TraceSettings, "/v2/models/{model}/trace/setting", "What is traced of a model", Json("Trace")),
    post(Operation::TraceSettings, "/v2/models/{model}/trace/setting", "Change what is traced of a model", ("TraceChange", Json("Trace"))),
    get(Operation::LogSettings, "/v2/logging", "What is logged", Json("Log")),
    post(Operation::LogSettings, "/v2/logging", "Change what is logged", ("LogChange", Json("Log"))),
    get(Operation::SharedMemory, "/v2/systemsharedmemory/status", "Every registered region", Json("Anything")),
    get(Operation::SharedMemory, "/v2/systemsharedmemory/region/{region}/status", "A registered region", Json("Anything")),
    post(Operation::SharedMemory, "/v2/systemsharedmemory/region/{region}/register", "Register a region", ("Region", Json("Anything"))),
    post(Operation::SharedMemory, "/v2/systemsharedmemory/region/{region}/unregister", "Forget a region", ("Nothing", Json("Anything"))),
    post(Operation::SharedMemory, "/v2/systemsharedmemory/unregister", "Forget every region", ("Nothing", Json("Anything"))),
    get(Operation::SharedMemory, "/v2/cudasharedmemory/status", "No region: there is no CUDA here", Json("Anything")),
    get(Operation::SharedMemory, "/v2/cudasharedmemory/region/{region}/status", "No region: there is no CUDA here", Json("Anything")),
    post(Operation::SharedMemory, "/v2/cudasharedmemory/region/{region}/register", "Refused: there is no CUDA here", ("Anything", Json("Anything"))),
    post(Operation::SharedMemory, "/v2/cudasharedmemory/region/{region}/unregister", "Forget a region", ("Nothing", Json("Anything"))),
    post(Operation::SharedMemory, "/v2/cudasharedmemory/unregister", "Forget every region", ("Nothing", Json("Anything"))),
    get(Operation::Jobs, "/api/v1/jobs", "Jobs, newest first", Json("Jobs")),
    post(Operation::Jobs, "/api/v1/jobs", "Submit a job", ("JobManifest", Json("Job"))),
    get(Operation::Jobs, "/api/v1/jobs/{job}", "One job", Json("Job")),
    post(Operation::Jobs, "/api/v1/jobs/{job}/cancel", "Stop a job", ("Nothing", Json("Job"))),
    get(Operation::Jobs, "/api/v1/jobs/{job}/logs", "What a job printed", Text),
    get(Operation::Jobs, "/api/v1/jobs/{job}/explain", "Why a job waits, or what became of it", Json("Document")),
    get(Operation::Jobs, "/api/v1/nodes", "Nodes that jobs run on, and what is free on them", Json("Document")),
];

/// The whole document. One text for one version, so that it can be compared.
pub(crate) fn document(version: &str) -> String {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths
            .entry(route.path)
            .or_insert_with(|| json!({ "parameters": parameters(route.path) }));
        path[route.method] = operation(route);
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "kapok",
            "version": version,
            "description": "The public port over REST: OpenAI's calls below /v1, the Open Inference Protocol with Triton's \
                            extensions below /v2, jobs below /api/v1.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "responses": {
                "oip": { "description": "Refused, with the reason", "content": json_content("Error") },
                "openai": { "description": "Refused, with the reason", "content": json_content("OpenAiError") },
            },
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "key": { "type": "apiKey", "in": "header", "name": "x-api-key" },
            },
        },
        "security": [{}, { "bearer": [] }, { "key": [] }],
    });
    format!("{document:#}\n")
}

fn parameters(path: &str) -> Vec<Value> {
    let names = path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    names
        .map(|name| {
            let schema = if name == "version" {
                json!({ "type": "string", "pattern": "^[1-9][0-9]{0,17}$" })
            } else {
                json!({ "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[A-Za-z0-9_-]+$" })
            };
            json!({ "name": name, "in": "path", "required": true, "schema": schema })
        })
        .collect()
}

fn operation(route: &Route) -> Value {
    let mut responses = Map::new();
    let submits = route.path == "/api/v1/jobs" && route.method == "post";
    // 200 is the answer to a dry run.
    if submits {
        responses.insert("201".to_owned(), good(route.answer));
    }
    let answer = if submits {
        Json("Document")
    } else {
        route.answer
    };
    responses.insert("200".to_owned(), good(answer));
    let shape = if route.path.starts_with("/v1/") {
        "openai"
    } else {
        "oip"
    };
    for code in route.errors {
        let refused = json!({ "$ref": format!("#/components/responses/{shape}") });
        responses.insert(code.to_string(), refused);
    }
    if route.operation == Operation::ModelReady {
        let content = json!({ "application/json": { "schema": {
            "anyOf": [schemas::named("ModelReady"), schemas::named("Error")],
        }}});
        responses.insert(
            "400".to_owned(),
            json!({ "description": "Not ready", "content": content }),
        );
    }
    if route.path.ends_with("/health/ready") {
        responses.insert("503".to_owned(), good(route.answer));
    }
    let mut operation = json!({
        "operationId": format!("{} {}", route.method, route.path),
        "summary": route.summary,
        "responses": responses,
    });
    if let Some(request) = route.request {
        let needed = !matches!(
            request,
            "IndexWanted" | "Load" | "Unload" | "TraceChange" | "LogChange" | "Nothing"
        );
        operation["requestBody"] = json!({ "required": needed, "content": json_content(request) });
    }
    operation
}

fn good(answer: Answer) -> Value {
    let content = match answer {
        Json(schema) => json_content(schema),
        Tensors => {
            let mut content = json_content("Inferred");
            content["application/octet-stream"] = json!({});
            content
        }
        Maybe => {
            let mut content = json_content("Anything");
            content["text/event-stream"] = json!({});
            content
        }
        Events => json!({ "text/event-stream": {} }),
        Metrics | Text => json!({ "text/plain": { "schema": { "type": "string" } } }),
    };
    json!({ "description": "Done", "content": content })
}

fn json_content(schema: &str) -> Value {
    json!({ "application/json": { "schema": schemas::named(schema) } })
}

#[cfg(test)]
mod tests;
