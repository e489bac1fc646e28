//! Requests to the model repository: list, load, unload. The same rules and words over REST and gRPC.

use std::collections::BTreeMap;
use std::path::Path;

use base::ErrorKind;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::proto::model_repository_parameter::ParameterChoice;
use super::proto::{
    ModelRepositoryParameter, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
};
use crate::inside::stays_inside;
use crate::model::LoadRequest;
use crate::{ApiError, shown};

/// What starts the name of a parameter that holds a file.
const FILE: &str = "file:";

/// Longest path of a file override: Linux's own limit is 4,096 with the repository's path in front.
const PATH_BYTES_MAX: usize = 1024;

/// Longest name of a folder, and so of a model.
const NAME_BYTES_MAX: usize = 255;

/// The body of `POST /v2/repository/index`, which is optional: whether only models that are ready are asked for.
pub fn index_ready(body: &[u8]) -> Result<bool, ApiError> {
    match object(body)?.get("ready") {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(ready)) => Ok(*ready),
        Some(_) => Err(ApiError::invalid("`ready` is true or false").with_param("ready")),
    }
}

/// The body of `POST /v2/repository/models/{model}/load`, which is optional.
pub fn load_from_json(model: &str, body: &[u8]) -> Result<LoadRequest, ApiError> {
    let mut request = new_load(model)?;
    for (name, value) in parameters(object(body)?)? {
        let Value::String(text) = value else {
            return Err(wrong_load_type(&name, "string_param"));
        };
        if name == "config" {
            request.config = Some(text);
        } else if let Some(path) = name.strip_prefix(FILE) {
            let content = STANDARD.decode(text.as_bytes()).map_err(|error| {
                ApiError::invalid(format!(
                    "load parameter '{}' is not base64: {error}",
                    shown::name(&name)
                ))
            })?;
            add_file(&mut request, path, content.into())?;
        } else {
            return Err(unknown_load_parameter(&name));
        }
    }
    complete(request)
}

pub fn load_from_grpc(message: RepositoryModelLoadRequest) -> Result<LoadRequest, ApiError> {
    refuse_repository(&message.repository_name)?;
    let mut request = new_load(&message.model_name)?;
    for (name, ModelRepositoryParameter { parameter_choice }) in message.parameters {
        match (name.strip_prefix(FILE), parameter_choice) {
            (Some(path), Some(ParameterChoice::BytesParam(content))) => {
                add_file(&mut request, path, content)?;
            }
            (Some(_), _) => return Err(wrong_load_type(&name, "bytes_param")),
            (None, Some(ParameterChoice::StringParam(config))) if name == "config" => {
                request.config = Some(config);
            }
            (None, _) if name == "config" => return Err(wrong_load_type(&name, "string_param")),
            (None, _) => return Err(unknown_load_parameter(&name)),
        }
    }
    complete(request)
}

/// The body of `POST /v2/repository/models/{model}/unload`, which is optional: whether what the model is made of goes too.
pub fn unload_from_json(body: &[u8]) -> Result<bool, ApiError> {
    let mut dependents = false;
    for (name, value) in parameters(object(body)?)? {
        match (name.as_str(), value) {
            ("unload_dependents", Value::Bool(wanted)) => dependents = wanted,
            ("unload_dependents", _) => return Err(wrong_unload_type()),
            _ => return Err(unknown_unload_parameter(&name)),
        }
    }
    Ok(dependents)
}

/// The model's name, and whether what it is made of goes too.
pub fn unload_from_grpc(message: RepositoryModelUnloadRequest) -> Result<(String, bool), ApiError> {
    refuse_repository(&message.repository_name)?;
    let mut dependents = false;
    for (name, ModelRepositoryParameter { parameter_choice }) in message.parameters {
        match (name.as_str(), parameter_choice) {
            ("unload_dependents", Some(ParameterChoice::BoolParam(wanted))) => dependents = wanted,
            ("unload_dependents", _) => return Err(wrong_unload_type()),
            _ => return Err(unknown_unload_parameter(&name)),
        }
    }
    Ok((message.model_name, dependents))
}

/// Repositories have no names here, and none in Triton.
pub fn refuse_repository(name: &str) -> Result<(), ApiError> {
    if name.is_empty() {
        return Ok(());
    }
    let message = "'repository_name' specification is not supported";
    let mut error = ApiError::new(ErrorKind::Unsupported, message);
    // Over REST it is a path that a client has chosen: its mistake, not a gap of ours.
    error.http = Some(400);
    Err(error)
}

fn new_load(model: &str) -> Result<LoadRequest, ApiError> {
    if model.len() > NAME_BYTES_MAX || !is_inside(model) || model.contains('/') {
        let message = format!(
            "`{}` cannot be a model's name: it is the name of a folder in the repository",
            shown::name(model)
        );
        return Err(ApiError::invalid(message).with_param("model"));
    }
    Ok(LoadRequest {
        model: model.to_owned(),
        ..LoadRequest::default()
    })
}

fn add_file(request: &mut LoadRequest, path: &str, content: Bytes) -> Result<(), ApiError> {
    if path.len() > PATH_BYTES_MAX || !is_inside(path) {
        let message = format!(
            "load parameter '{FILE}{}': the path must stay inside the model's folder",
            shown::name(path)
        );
        return Err(ApiError::invalid(message));
    }
    request.files.insert(path.to_owned(), content);
    Ok(())
}

/// Whether a path stays inside, and is spelled in the one way that every system reads alike.
fn is_inside(path: &str) -> bool {
    let plain = path.split('/').all(|part| !part.is_empty() && part != ".");
    stays_inside(Path::new(path)) && plain && !path.contains(['\\', '\0', ':'])
}

/// Files replace the model's folder, configuration included, so there must be one.
fn complete(request: LoadRequest) -> Result<LoadRequest, ApiError> {
    if request.config.is_some() || request.files.is_empty() {
        return Ok(request);
    }
    // Triton stops at "repository"; its tests look for these words.
    let message = format!(
        "failed to load '{}', failed to poll from model repository: `file:` parameters replace the model's whole folder, \
         so `config` must be given with them",
        request.model
    );
    Err(ApiError::invalid(message).with_param("parameters.config"))
}

fn object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("failed to parse the request JSON: {error}")))
}

fn parameters(mut body: Map<String, Value>) -> Result<BTreeMap<String, Value>, ApiError> {
    match body.remove("parameters") {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(parameters)) => Ok(parameters.into_iter().collect()),
        Some(_) => Err(
            ApiError::invalid("`parameters` is an object of names and values")
                .with_param("parameters"),
        ),
    }
}

fn wrong_load_type(name: &str, expected: &str) -> ApiError {
    let name = shown::name(name);
    ApiError::invalid(format!(
        "invalid value type for load parameter '{name}', expected {expected}."
    ))
}

fn unknown_load_parameter(name: &str) -> ApiError {
    let name = shown::name(name);
    ApiError::invalid(format!("unrecognized load parameter '{name}'."))
}

fn wrong_unload_type() -> ApiError {
    ApiError::invalid("invalid value type for 'unload_dependents' parameter, expected bool_param.")
}

fn unknown_unload_parameter(name: &str) -> ApiError {
    let name = shown::name(name);
    ApiError::invalid(format!("unrecognized unload parameter '{name}'."))
}

/// Feeds arbitrary bytes to every parser of this module.
pub(super) fn fuzz_repository(data: &[u8]) {
    use prost::Message as _;
    let _ready = index_ready(data);
    let _dependents = unload_from_json(data);
    if let Ok(message) = RepositoryModelUnloadRequest::decode(data) {
        let _dependents = unload_from_grpc(message);
    }
    let over_grpc = RepositoryModelLoadRequest::decode(data).map(load_from_grpc);
    for request in [Some(load_from_json("m", data)), over_grpc.ok()] {
        let Some(Ok(request)) = request else { continue };
        assert!(request.files.keys().all(|path| is_inside(path)));
        assert!(request.files.is_empty() || request.config.is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(body: &str) -> Result<LoadRequest, String> {
        load_from_json("m", body.as_bytes()).map_err(|error| error.message)
    }

    fn grpc(name: &str, choice: ParameterChoice) -> Result<LoadRequest, String> {
        let parameter = |parameter_choice| ModelRepositoryParameter {
            parameter_choice: Some(parameter_choice),
        };
        let config = ParameterChoice::StringParam("{}".to_owned());
        let message = RepositoryModelLoadRequest {
            repository_name: String::new(),
            model_name: "m".to_owned(),
            parameters: [
                ("config".to_owned(), parameter(config)),
                (name.to_owned(), parameter(choice)),
            ]
            .into(),
        };
        load_from_grpc(message).map_err(|error| error.message)
    }

    #[test]
    fn overrides_arrive_over_both_wires() {
        let expected = LoadRequest {
            model: "m".to_owned(),
            config: Some("{}".to_owned()),
            files: [("1/model.onnx".to_owned(), Bytes::from_static(b"abc"))].into(),
        };
        let body = r#"{"parameters": {"config": "{}", "file:1/model.onnx": "YWJj"}}"#;
        assert_eq!(json(body).as_ref(), Ok(&expected));
        let content = ParameterChoice::BytesParam(Bytes::from_static(b"abc"));
        assert_eq!(grpc("file:1/model.onnx", content).as_ref(), Ok(&expected));
        for body in ["", " \n", "{}", r#"{"parameters": null}"#] {
            let plain = json(body).expect(body);
            assert_eq!((plain.config, plain.files.len()), (None, 0), "{body}");
        }
    }

    #[test]
    fn a_file_stays_inside_the_models_folder() {
        for path in [
            "",
            "/etc/passwd",
            "../x",
            "1/../../x",
            "1/./x",
            "1//x",
            "1/..",
            "1\\..\\x",
            "c:/x",
            "1/x\0",
            "1/",
        ] {
            let body =
                serde_json::json!({"parameters": {"config": "{}", format!("file:{path}"): "YQ=="}});
            let error = json(&body.to_string()).expect_err(path);
            assert!(
                error.contains("must stay inside the model's folder"),
                "{path}: {error}"
            );
            let content = ParameterChoice::BytesParam(Bytes::from_static(b"a"));
            let error = grpc(&format!("file:{path}"), content).expect_err(path);
            assert!(error.contains("must stay inside"), "{path}: {error}");
        }
        for model in ["", "..", "a/b", "a\\b", "."] {
            assert!(load_from_json(model, b"").is_err(), "{model}");
        }
    }

    #[test]
    fn mistakes_are_refused_in_tritons_words() {
        for (body, expected) in [
            (
                r#"{"parameters": {"file:1/a": "YQ=="}}"#,
                "failed to load 'm', failed to poll from model repository",
            ),
            (
                r#"{"parameters": {"config": 1}}"#,
                "invalid value type for load parameter 'config', expected string_param.",
            ),
            (
                r#"{"parameters": {"other": "x"}}"#,
                "unrecognized load parameter 'other'.",
            ),
            (
                r#"{"parameters": {"config": "{}", "file:1/a": "!"}}"#,
                "load parameter 'file:1/a' is not base64",
            ),
            (r#"{"parameters": []}"#, "`parameters` is an object"),
            ("[]", "failed to parse the request JSON"),
        ] {
            let error = json(body).expect_err(body);
            assert!(error.contains(expected), "{body}: {error}");
        }
        let text = ParameterChoice::StringParam("x".to_owned());
        let error = grpc("file:1/a", text).expect_err("a text");
        assert_eq!(
            error,
            "invalid value type for load parameter 'file:1/a', expected bytes_param."
        );
        assert!(refuse_repository("r").is_err());
    }

    #[test]
    fn unload_takes_its_one_parameter() {
        assert_eq!(unload_from_json(b""), Ok(false));
        let body = br#"{"parameters": {"unload_dependents": true}}"#;
        assert_eq!(unload_from_json(body), Ok(true));
        for body in [
            r#"{"parameters": {"unload_dependents": 1}}"#,
            r#"{"parameters": {"x": true}}"#,
        ] {
            assert!(unload_from_json(body.as_bytes()).is_err(), "{body}");
        }
        assert_eq!(index_ready(br#"{"ready": true}"#), Ok(true));
        assert!(index_ready(br#"{"ready": 1}"#).is_err());
    }
}
