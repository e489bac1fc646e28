use std::fmt::Write as _;

use expect_test::expect_file;

use super::*;
use crate::manifest::tests::run;

/// Enough YAML for a definition: every text quoted, every list in blocks.
fn yaml(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, inner) in fields {
                write!(text, "{indent}{name}:").expect("a string");
                nested(inner, depth, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                yaml(item, depth + 1, &mut inner);
                let inner = inner.trim_start();
                writeln!(text, "{indent}- {}", inner.trim_end()).expect("a string");
            }
        }
        scalar => writeln!(text, "{indent}{scalar}").expect("a string"),
    }
}

fn nested(value: &Value, depth: usize, text: &mut String) {
    let block = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if block {
        text.push('\n');
        yaml(value, depth + 1, text);
    } else {
        writeln!(text, " {value}").expect("a string");
    }
}

#[test]
fn the_committed_definition_is_the_types() {
    let definition = serde_json::to_value(definition()).expect("JSON");
    let mut text = String::from(
        "# Written by the tests of crates/kubernetes (UPDATE_EXPECT=1) from the Rust types. Apply once: kubectl apply -f crd.yaml\n",
    );
    yaml(&definition, 0, &mut text);
    expect_file!["../../crd.yaml"].assert_eq(&text);
    let read: Value = serde_saphyr::from_str(&text).expect("YAML");
    assert_eq!(read, definition, "YAML says the same");
}

/// What a schema does not describe, and what it describes otherwise.
fn strange(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let kind = schema["type"].as_str().unwrap_or_default();
    let open = schema["x-kubernetes-int-or-string"] == true;
    let fits = match value {
        Value::Null => schema["nullable"] == true,
        Value::Bool(_) => kind == "boolean",
        Value::Number(number) => open || kind == "number" || kind == "integer" && !number.is_f64(),
        Value::String(_) => open || kind == "string",
        Value::Array(_) => kind == "array",
        Value::Object(_) => kind == "object",
    };
    let listed = schema["enum"].as_array();
    if !fits || listed.is_some_and(|listed| !listed.contains(value)) {
        found.push(format!("{path}: {value} is no {schema}"));
    }
    for (name, inner) in value.as_object().into_iter().flatten() {
        let known = &schema["properties"][name];
        let known = if known.is_null() {
            &schema["additionalProperties"]
        } else {
            known
        };
        strange(known, inner, &format!("{path}.{name}"), found);
    }
    for inner in value.as_array().into_iter().flatten() {
        strange(&schema["items"], inner, path, found);
    }
}

#[test]
fn every_field_of_a_job_is_described() {
    let spec = json!({
        "command": ["a"], "args": ["b"], "env": {"A": "b"}, "workingDir": "/", "image": "i", "region": "r",
        "regionPolicy": "preferred", "tenant": "t", "priority": "realtime", "qosLevel": 5, "gang": 2,
        "resources": {"cpu": "500m", "memory": "1Gi", "gpuShare": 0.5, "deviceMemory": "1Gi", "gpuModels": ["A100"]},
        "timeoutSeconds": 1, "deadlineSeconds": 1, "expectedSeconds": 1, "preemptible": true,
        "checkpointIntervalSeconds": 1, "restart": {"policy": "onFailure", "limit": 1}, "graceSeconds": 1,
    });
    let run = run("a-1", spec, &["gpu-1"]);
    let mut status = run.job.status.clone();
    let now = status.submitted_at;
    status.started_at = Some(now);
    status.placements = run.placements.clone();
    status.end = Some(protocol::resource::JobEnd::default());
    status.set(
        protocol::resource::ConditionType::Finished,
        true,
        ("Succeeded", "it is done"),
        now,
    );
    let mut found = Vec::new();
    let job = serde_json::to_value(&run.job.spec).expect("JSON");
    strange(&structural::<JobSpec>(), &job, "spec", &mut found);
    let status = serde_json::to_value(&status).expect("JSON");
    strange(&structural::<JobStatus>(), &status, "status", &mut found);
    assert_eq!(found, [""; 0]);
    strange(
        &structural::<JobSpec>(),
        &json!({"qosLevel": "five"}),
        "spec",
        &mut found,
    );
    assert_eq!(found.len(), 1, "a check that can fail");
}
