//! Our jobs as a resource of the cluster, so that `kubectl get jobs.kapok.dev` shows them with their conditions.

#[cfg(test)]
mod tests;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use protocol::resource::{API_VERSION, JobSpec, JobStatus};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

pub(crate) const GROUP: &str = "kapok.dev";
pub(crate) const PLURAL: &str = "jobs";

/// The definition, which an administrator applies once.
///
/// # Panics
/// Never: the schemas come from types of ours.
pub fn definition() -> extensions::CustomResourceDefinition {
    let version = API_VERSION.rsplit('/').next().unwrap_or(API_VERSION);
    let schema = json!({
        "type": "object",
        "description": "Work that kapok's scheduler places: a process that runs to its end, or a model that answers.",
        "required": ["spec"],
        "properties": {"spec": structural::<JobSpec>(), "status": structural::<JobStatus>()},
    });
    extensions::CustomResourceDefinition {
        metadata: ObjectMeta {
            name: Some(format!("{PLURAL}.{GROUP}")),
            ..ObjectMeta::default()
        },
        spec: extensions::CustomResourceDefinitionSpec {
            group: GROUP.to_owned(),
            names: extensions::CustomResourceDefinitionNames {
                kind: "Job".to_owned(),
                plural: PLURAL.to_owned(),
                singular: Some("job".to_owned()),
                short_names: Some(vec!["kjob".to_owned()]),
                ..extensions::CustomResourceDefinitionNames::default()
            },
            scope: "Namespaced".to_owned(),
            versions: vec![extensions::CustomResourceDefinitionVersion {
                name: version.to_owned(),
                served: true,
                storage: true,
                additional_printer_columns: Some(columns()),
                schema: Some(extensions::CustomResourceValidation {
                    open_api_v3_schema: Some(
                        serde_json::from_value(schema).expect("schemas of ours are schemas"),
                    ),
                }),
                subresources: Some(extensions::CustomResourceSubresources {
                    // An object, and an empty one.
                    status: serde_json::from_value(json!({})).ok(),
                    scale: None,
                }),
                ..extensions::CustomResourceDefinitionVersion::default()
            }],
            ..extensions::CustomResourceDefinitionSpec::default()
        },
        status: None,
    }
}

/// What `kubectl get` shows.
fn columns() -> Vec<extensions::CustomResourceColumnDefinition> {
    let column = |name: &str, path: &str, kind: &str| extensions::CustomResourceColumnDefinition {
        name: name.to_owned(),
        json_path: path.to_owned(),
        type_: kind.to_owned(),
        ..extensions::CustomResourceColumnDefinition::default()
    };
    vec![
        column("State", ".status.state", "string"),
        column("Reason", ".status.reason", "string"),
        column("Tenant", ".spec.tenant", "string"),
        column("QoS", ".spec.qosLevel", "integer"),
        column("Age", ".metadata.creationTimestamp", "date"),
    ]
}

/// A type's schema as Kubernetes wants it: complete in itself, one type in each place
/// (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>).
fn structural<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = SchemaGenerator::new(settings)
        .into_root_schema_for::<T>()
        .to_value();
    restructure(&mut schema);
    schema
}

fn restructure(schema: &mut Value) {
    let Value::Object(fields) = schema else {
        return;
    };
    // Kubernetes prunes what it does not know, and takes this word for maps alone.
    if fields.get("additionalProperties") == Some(&Value::Bool(false)) {
        fields.remove("additionalProperties");
    }
    fields.remove("title");
    // A value with a description beside its schema, and each value of an enum with one of its own.
    for word in ["allOf", "anyOf", "oneOf"] {
        if let Some(Value::Array(choices)) = fields.remove(word) {
            flatten(fields, choices);
        }
    }
    // The widths of our integers mean nothing there; their bounds say the same.
    let format = fields
        .get("format")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if format.starts_with("uint") {
        fields.remove("format");
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(restructure);
    }
    for word in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(word) {
            restructure(inner);
        }
    }
}

fn flatten(fields: &mut Map<String, Value>, choices: Vec<Value>) {
    let mut values = Vec::new();
    for choice in choices {
        let Value::Object(mut choice) = choice else {
            continue;
        };
        match choice
            .remove("enum")
            .or_else(|| Some(json!([choice.remove("const")?])))
        {
            Some(Value::Array(some)) => values.extend(some),
            _ => {
                for (word, value) in choice {
                    fields.entry(word).or_insert(value);
                }
            }
        }
    }
    if !values.is_empty() {
        fields.insert("type".to_owned(), "string".into());
        fields.insert("enum".to_owned(), values.into());
    }
}
