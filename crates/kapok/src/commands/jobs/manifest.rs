//! What is submitted: a file's manifests, or one that the flags describe.

use std::io::Read as _;
use std::path::Path;

use protocol::resource::{API_VERSION, Spec, parse_documents};
use serde_json::{Map, Value, json};

use crate::cli::{JobPriorityArg, SubmitArgs};
use crate::exit::{Failure, Outcome};

pub(super) fn read(args: &SubmitArgs) -> Outcome<Vec<Value>> {
    match &args.file {
        Some(file) => of_file(file),
        None => of_flags(args).map(|manifest| vec![manifest]),
    }
}

fn of_file(file: &Path) -> Outcome<Vec<Value>> {
    let name = file.display().to_string();
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(|_| ())
    } else {
        std::fs::read_to_string(file).map(|content| text = content)
    };
    read.map_err(|error| Failure::usage(format!("`{name}` cannot be read: {error}")))?;
    let resources = parse_documents(&text, &name).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::usage(lines.join("\n       ")).hint("docs/jobs.md has manifests that work")
    })?;
    if resources.is_empty() {
        return Err(Failure::usage(format!("`{name}` has no manifest")));
    }
    let mut manifests = Vec::new();
    for mut resource in resources {
        let Spec::Job(spec) = &mut resource.spec else {
            let kind = resource.spec.kind();
            return Err(Failure::usage(format!(
                "`{name}` has a {kind}; only a Job can be submitted"
            )));
        };
        // Of this folder, not of the server's.
        if let Some(folder) = &spec.working_dir {
            spec.working_dir = Some(std::path::absolute(folder)?);
        }
        manifests.push(serde_json::to_value(&resource).map_err(anyhow::Error::from)?);
    }
    Ok(manifests)
}

fn of_flags(args: &SubmitArgs) -> Outcome<Value> {
    if args.command.is_empty() && args.model.is_none() {
        return Err(Failure::usage("nothing is named to be run").hint(
            "kapok submit -- PROGRAM ARGUMENTS, kapok submit --model MODEL, or kapok submit -f job.yaml",
        ));
    }
    let mut spec = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            spec.insert(name.to_owned(), value);
        }
    };
    if args.model.is_none() {
        put("command", json!(args.command));
        let folder = match &args.working_dir {
            Some(folder) => std::path::absolute(folder)?,
            None => std::env::current_dir()?,
        };
        put("workingDir", json!(folder));
    }
    put("model", json!(args.model));
    put("batchSize", json!(args.batch_size));
    put("region", json!(args.region));
    put(
        "priority",
        json!(args.priority.map(|priority| match priority {
            JobPriorityArg::Realtime => "realtime",
            JobPriorityArg::CostOptimized => "cost_optimized",
        })),
    );
    put("qosLevel", json!(args.qos));
    put("tenant", json!(args.tenant));
    put("gang", json!(args.gang));
    put("timeoutSeconds", json!(args.time_limit));
    put("deadlineSeconds", json!(args.deadline));
    if let Some(limit) = args.restarts {
        put("restart", json!({ "policy": "onFailure", "limit": limit }));
    }
    put("env", variables(&args.env)?);
    put("resources", resources(args));
    let metadata = match &args.name {
        Some(name) => json!({ "name": name }),
        None => json!({}),
    };
    Ok(json!({ "apiVersion": API_VERSION, "kind": "Job", "metadata": metadata, "spec": spec }))
}

fn variables(given: &[String]) -> Outcome<Value> {
    let mut variables = Map::new();
    for pair in given {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            Failure::usage(format!("`--env {pair}` is not NAME=VALUE")).hint("--env EPOCHS=3")
        })?;
        variables.insert(name.to_owned(), json!(value));
    }
    Ok(if variables.is_empty() {
        Value::Null
    } else {
        Value::Object(variables)
    })
}

fn resources(args: &SubmitArgs) -> Value {
    let given = [
        ("cpu", json!(args.cpu)),
        ("memory", json!(args.memory)),
        ("gpus", json!(args.gpus)),
        ("gpuShare", json!(args.gpu_share)),
        ("migProfile", json!(args.mig)),
        ("deviceMemory", json!(args.device_memory)),
    ];
    let given = given.into_iter().filter(|(_, value)| !value.is_null());
    let resources: Map<String, Value> = given
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    if resources.is_empty() {
        Value::Null
    } else {
        Value::Object(resources)
    }
}
