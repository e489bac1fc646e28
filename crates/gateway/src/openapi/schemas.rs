use serde_json::{Value, json};

pub(super) fn named(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn object(required: &[&str], properties: &Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

/// As [`object`], and nothing else may be in it.
fn strict(properties: &Value) -> Value {
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn list(of: &Value) -> Value {
    json!({ "type": "array", "items": of })
}

fn text() -> Value {
    json!({ "type": "string" })
}

/// Every schema, by name.
pub(super) fn all() -> Value {
    let mut all = answers();
    for mut more in [jobs(), requests()] {
        for (name, schema) in more.as_object_mut().into_iter().flatten() {
            all[name] = schema.take();
        }
    }
    all
}

fn answers() -> Value {
    let tensor = object(
        &["name", "datatype", "shape"],
        &json!({ "name": text(), "datatype": text(), "shape": list(&json!({ "type": "integer" })) }),
    );
    json!({
        "Anything": {},
        "Document": { "type": "object" },
        "Fields": { "type": "object" },
        "Done": { "type": "object", "maxProperties": 0 },
        "Error": object(&["error"], &json!({ "error": text() })),
        "OpenAiError": object(&["error"], &json!({
            "error": object(&["message", "type"], &json!({
                "message": text(), "type": text(),
                "param": { "type": ["string", "null"] }, "code": { "type": ["string", "integer", "null"] },
            })),
        })),
        "Live": object(&["live"], &json!({ "live": { "type": "boolean" } })),
        "Ready": object(&["ready"], &json!({ "ready": { "type": "boolean" } })),
        "Waiting": object(&["ready"], &json!({
            "ready": { "type": "boolean" },
            "waiting_for": list(&object(&["kind", "name", "reason"], &json!({
                "kind": text(), "name": text(), "reason": text(),
            }))),
        })),
        "OpenAiModel": object(&["id", "object", "created", "owned_by"], &json!({
            "id": text(), "object": { "const": "model" }, "created": { "type": "integer" }, "owned_by": text(),
        })),
        "OpenAiModels": object(&["object", "data"], &json!({
            "object": { "const": "list" }, "data": list(&named("OpenAiModel")),
        })),
        "Embeddings": object(&["object", "data", "model"], &json!({
            "object": { "const": "list" }, "model": text(), "data": list(&json!({ "type": "object" })),
        })),
        "Server": object(&["name", "version", "extensions"], &json!({
            "name": text(), "version": text(), "extensions": list(&text()),
        })),
        "Model": object(&["name", "versions", "platform", "inputs", "outputs"], &json!({
            "name": text(), "versions": list(&text()), "platform": text(), "inputs": list(&tensor), "outputs": list(&tensor),
        })),
        "ModelReady": object(&["name", "ready"], &json!({ "name": text(), "ready": { "type": "boolean" } })),
        "ModelConfig": object(&["name"], &json!({ "name": text() })),
        "Statistics": object(&["model_stats"], &json!({
            "model_stats": list(&object(&["name", "version", "inference_stats"], &json!({
                "name": text(), "version": text(), "inference_stats": { "type": "object" },
            }))),
        })),
        "Inferred": object(&["model_name", "model_version", "outputs"], &json!({
            "model_name": text(), "model_version": text(), "id": text(), "outputs": list(&tensor),
        })),
        "Index": list(&object(&["name", "version", "state", "reason"], &json!({
            "name": text(), "version": text(), "reason": text(),
            "state": { "enum": ["LOADING", "READY", "UNLOADING", "UNAVAILABLE"] },
        }))),
        "Trace": object(
            &["trace_level", "trace_rate", "trace_count", "log_frequency", "trace_file", "trace_mode"],
            &json!({
                "trace_level": list(&json!({ "enum": ["OFF", "TIMESTAMPS"] })), "trace_rate": text(), "trace_count": text(),
                "log_frequency": text(), "trace_file": text(), "trace_mode": { "const": "triton" },
            }),
        ),
        "Log": object(
            &["log_file", "log_info", "log_warning", "log_error", "log_verbose_level", "log_format"],
            &json!({
                "log_file": text(), "log_info": { "type": "boolean" }, "log_warning": { "type": "boolean" },
                "log_error": { "type": "boolean" }, "log_verbose_level": { "type": "integer" },
                "log_format": { "enum": ["default", "ISO8601"] },
            }),
        ),
    })
}

fn jobs() -> Value {
    json!({
        "Job": object(&["apiVersion", "kind", "metadata", "spec", "status"], &json!({
            "apiVersion": text(), "kind": { "const": "Job" }, "metadata": { "type": "object" }, "spec": { "type": "object" },
            "status": object(&["id", "state", "reason", "message", "conditions"], &json!({
                "id": text(), "reason": text(), "message": text(),
                "state": { "enum": ["Queued", "Starting", "Running", "Stopping", "Succeeded", "Failed", "Cancelled"] },
                "conditions": list(&json!({ "type": "object" })),
            })),
        })),
        "Jobs": object(&["jobs"], &json!({ "jobs": list(&named("Job")) })),
    })
}

fn requests() -> Value {
    let flag = json!({ "type": ["boolean", "null"] });
    let number = json!({ "type": ["string", "null"], "pattern": "^[0-9]{1,9}$" });
    json!({
        "JobManifest": object(&["apiVersion", "kind", "spec"], &json!({
            "apiVersion": { "const": "kapok.dev/v1alpha1" }, "kind": { "const": "Job" },
            "metadata": { "type": "object" }, "spec": { "type": "object" },
        })),
        "Nothing": { "type": "object", "maxProperties": 0 },
        "ModelNamed": object(&["model"], &json!({ "model": text(), "stream": { "type": "boolean" } })),
        "Embed": object(&["model", "input"], &json!({
            "model": text(), "input": { "anyOf": [text(), list(&text())] },
        })),
        "Infer": object(&["inputs"], &json!({
            "id": text(),
            "parameters": { "type": "object" },
            "inputs": list(&object(&["name", "shape", "datatype", "data"], &json!({
                "name": text(), "shape": list(&json!({ "type": "integer", "minimum": 0, "maximum": 64 })),
                "datatype": { "enum": ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16",
                    "FP32", "FP64", "BF16", "BYTES"] },
                "parameters": { "type": "object" }, "data": { "type": "array" },
            }))),
            "outputs": list(&object(&["name"], &json!({ "name": text(), "parameters": { "type": "object" } }))),
        })),
        "IndexWanted": object(&[], &json!({ "ready": { "type": "boolean" } })),
        "Load": strict(&json!({ "parameters": {
            "type": "object",
            "properties": { "config": text() },
            "patternProperties": { "^file:": { "type": "string", "contentEncoding": "base64" } },
            "additionalProperties": false,
        } })),
        "Unload": strict(&json!({ "parameters": strict(&json!({ "unload_dependents": { "type": "boolean" } })) })),
        "TraceChange": strict(&json!({
            "trace_level": {
                "type": ["array", "null"], "items": { "enum": ["OFF", "TIMESTAMPS"] }, "maxItems": 1,
            },
            "trace_rate": number, "trace_count": number, "log_frequency": number,
        })),
        "LogChange": strict(&json!({
            "log_info": flag, "log_warning": flag, "log_error": flag,
            "log_verbose_level": { "type": ["integer", "null"], "minimum": 0, "maximum": 9 },
            "log_format": { "enum": ["default", "ISO8601", null] },
        })),
        "Region": object(&["key", "byte_size"], &json!({
            "key": text(), "offset": { "type": "integer", "minimum": 0 }, "byte_size": { "type": "integer", "minimum": 0 },
        })),
    })
}
