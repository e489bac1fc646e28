//! `--set PATH=VALUE`: one field of a resource, under the same name as in the file.

use protocol::resource::{Resource, Spec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{node_mut, upstream_mut};
use crate::exit::{Failure, Outcome};

const FORMS: &str = "--set node.queueMax=64, --set upstream.NAME.idleTimeoutMs=5000";

pub(super) fn apply(resources: &mut Vec<Resource>, setting: &str) -> Outcome {
    let (path, value) = setting
        .split_once('=')
        .ok_or_else(|| wrong(setting, "it has no `=`"))?;
    // A bare word is a string; the shell has eaten its quotes.
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    let done = match path.split_once('.') {
        Some(("node", field)) => change(node_mut(resources), field, value),
        Some(("upstream", rest)) => {
            let name = upstream_name(resources, rest)
                .ok_or_else(|| wrong(setting, "no upstream of this name is configured"))?;
            let field = rest.strip_prefix(&format!("{name}.")).unwrap_or_default();
            let spec = upstream_mut(resources, &name).expect("the name was just found");
            // A secret's value is never written out, so it cannot make the round trip.
            let secret = spec.api_key.take();
            let changed = change(spec, field, value);
            spec.api_key = spec.api_key.take().or(secret);
            changed
        }
        Some(_) | None => Err("it starts with neither `node.` nor `upstream.`".to_owned()),
    };
    done.map_err(|reason| wrong(setting, &reason))
}

/// Names may hold dots, so the longest known name that fits is meant.
fn upstream_name(resources: &[Resource], rest: &str) -> Option<String> {
    resources
        .iter()
        .filter(|resource| matches!(resource.spec, Spec::Upstream(_)))
        .map(|resource| &resource.metadata.name)
        .filter(|name| {
            rest.strip_prefix(name.as_str())
                .is_some_and(|field| field.starts_with('.'))
        })
        .max_by_key(|name| name.len())
        .cloned()
}

/// Through the field names of the file format, so that there is one list of them.
fn change<S: Serialize + DeserializeOwned>(
    spec: &mut S,
    field: &str,
    value: Value,
) -> Result<(), String> {
    let mut document = serde_json::to_value(&*spec).map_err(|error| error.to_string())?;
    *slot(&mut document, field)? = value;
    *spec = serde_json::from_value(document).map_err(|error| error.to_string())?;
    Ok(())
}

fn slot<'a>(document: &'a mut Value, path: &str) -> Result<&'a mut Value, String> {
    let mut at = document;
    let mut open = false;
    for field in path.split('.') {
        let map = at
            .as_object_mut()
            .ok_or_else(|| format!("there is nothing under which `{field}` could be"))?;
        // Variables of a process are the user's own names.
        if !open && !map.contains_key(field) {
            return Err(unknown(field, map.keys().map(String::as_str)));
        }
        open = field == "env";
        at = map.entry(field).or_insert(Value::Null);
    }
    Ok(at)
}

fn unknown<'a>(field: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match base::nearest(field, known.clone()) {
        Some(near) => format!("there is no field `{field}`; did you mean `{near}`?"),
        None => {
            let known: Vec<&str> = known.collect();
            format!("there is no field `{field}`; known: {}", known.join(", "))
        }
    }
}

fn wrong(setting: &str, reason: &str) -> Failure {
    Failure::usage(format!("`--set {setting}`: {reason}")).hint(FORMS)
}
