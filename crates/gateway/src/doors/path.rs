//! What a path asks for. Pure: method and path in, a call or a refusal out.

mod openai;

use http::Method;

use super::jobs::{self, JobCall};
use crate::listener::Door;
use crate::operation::Operation;
use crate::reply::{Failure, Shape};

/// A request that somebody here knows how to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Live,
    Ready(Shape),
    Metrics,
    OpenApi,
    Request(String),
    Requests,
    Models,
    /// A model goes back to the version before.
    RollBack(String),
    Upstreams,
    Config,
    Job(JobCall),
    OpenAi(OpenAi),
    Oip(Oip),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OpenAi {
    List,
    Get(String),
    Delete(String),
    /// The body names the model, as a rule.
    Post(Operation),
    /// Nothing names a model.
    Stored(Operation),
    /// None of the calls that we know.
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Oip {
    /// Like [`Call::Live`], in OIP's words.
    Live,
    Server,
    Index,
    Load(Change),
    Unload(Change),
    /// Of the server, or of a model.
    Trace(Option<String>),
    Logging,
    Statistics,
    Region(Region),
    Model(Model),
}

/// An order about shared memory, or a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) device: Device,
    pub(super) verb: RegionVerb,
    /// Empty means all regions.
    pub(super) name: String,
}

/// Where a region is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Device {
    System,
    Cuda,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RegionVerb {
    Status,
    Register,
    Unregister,
}

/// What is loaded or unloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) model: String,
    /// Empty in every path but `/v2/repository/{repository}/…`.
    pub(super) repository: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) version: Option<String>,
    pub(super) operation: Operation,
}

impl Call {
    pub(super) fn operation(&self) -> Operation {
        match self {
            Self::Live | Self::Ready(_) | Self::Oip(Oip::Live) => Operation::Health,
            Self::Metrics => Operation::Metrics,
            Self::OpenApi => Operation::OpenApi,
            Self::Request(_)
            | Self::Requests
            | Self::Models
            | Self::RollBack(_)
            | Self::Upstreams
            | Self::Config => Operation::Admin,
            Self::Job(_) => Operation::Jobs,
            Self::OpenAi(OpenAi::List | OpenAi::Get(_)) => Operation::OpenAiModels,
            Self::OpenAi(OpenAi::Post(operation) | OpenAi::Stored(operation)) => *operation,
            Self::OpenAi(OpenAi::Delete(_) | OpenAi::Other) => Operation::OpenAiOther,
            Self::Oip(Oip::Server) => Operation::ServerMetadata,
            Self::Oip(Oip::Index) => Operation::RepositoryIndex,
            Self::Oip(Oip::Load(_)) => Operation::RepositoryLoad,
            Self::Oip(Oip::Unload(_)) => Operation::RepositoryUnload,
            Self::Oip(Oip::Trace(_)) => Operation::TraceSettings,
            Self::Oip(Oip::Logging) => Operation::LogSettings,
            Self::Oip(Oip::Statistics) => Operation::ModelStatistics,
            Self::Oip(Oip::Region(_)) => Operation::SharedMemory,
            Self::Oip(Oip::Model(model)) => model.operation,
        }
    }
}

/// Whose words an error is said in: OpenAI's below `/v1`, where Anthropic's messages are too, OIP's elsewhere.
pub(super) fn shape(path: &str) -> Shape {
    let below = |rest: &str| rest.is_empty() || rest.starts_with('/');
    match path.strip_prefix("/v1") {
        Some(rest) if rest.strip_prefix("/messages").is_some_and(below) => Shape::Anthropic,
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Shape::OpenAi,
        _ => Shape::Oip,
    }
}

pub(super) fn call(door: Door, method: &Method, path: &str) -> Result<Call, Failure> {
    let segments: Vec<&str> = path.trim_end_matches('/').split('/').skip(1).collect();
    let unknown = || Failure::no_such_path(path);
    if !segments.iter().copied().all(plain) {
        return Err(unknown());
    }
    let (call, allow) = match segments.as_slice() {
        ["health", "live"] => (Call::Live, GET),
        ["health", "ready"] => (Call::Ready(Shape::OpenAi), GET),
        ["metrics"] => (Call::Metrics, GET),
        ["openapi.json"] if door == Door::Public => (Call::OpenApi, GET),
        ["admin", "v1", rest @ ..] if door == Door::Admin => admin(rest).ok_or_else(unknown)?,
        ["api", "v1", rest @ ..] if matches!(door, Door::Public | Door::Admin) => {
            jobs::call(rest).ok_or_else(unknown)?
        }
        ["v1", rest @ ..] if door == Door::Public => {
            openai::call(method, rest).ok_or_else(unknown)?
        }
        ["v2", rest @ ..] if door == Door::Public => oip(rest).ok_or_else(unknown)?,
        _ => return Err(unknown()),
    };
    let reads = method == Method::GET || method == Method::HEAD;
    let allowed = match allow {
        GET => reads,
        BOTH => reads || method == Method::POST,
        DELETE => reads || method == Method::DELETE,
        ANY => reads || CHANGES.contains(method),
        _ => method == Method::POST,
    };
    if !allowed || door == Door::Grpc {
        return Err(if allowed {
            unknown()
        } else {
            Failure::wrong_method(method, allow)
        });
    }
    Ok(call)
}

pub(super) const GET: &str = "GET, HEAD";
pub(super) const POST: &str = "POST";
pub(super) const BOTH: &str = "GET, HEAD, POST";
const DELETE: &str = "GET, HEAD, DELETE";
/// Neither API changes what it keeps with PUT or PATCH.
const ANY: &str = "GET, HEAD, POST, DELETE";
const CHANGES: [Method; 2] = [Method::POST, Method::DELETE];

fn admin(segments: &[&str]) -> Option<(Call, &'static str)> {
    Some(match segments {
        ["requests"] => (Call::Requests, GET),
        ["requests", id] => (Call::Request(decode(id)?), GET),
        ["models"] => (Call::Models, GET),
        ["models", model, "rollback"] => (Call::RollBack(decode(model)?), POST),
        ["upstreams"] => (Call::Upstreams, GET),
        ["config"] => (Call::Config, GET),
        _ => return None,
    })
}

fn oip(segments: &[&str]) -> Option<(Call, &'static str)> {
    let (oip, allow) = match segments {
        [] => (Oip::Server, GET),
        ["health", "live"] => (Oip::Live, GET),
        ["health", "ready"] => return Some((Call::Ready(Shape::Oip), GET)),
        ["models", "stats"] => (Oip::Statistics, GET),
        ["trace", "setting"] => (Oip::Trace(None), BOTH),
        ["models", name, "trace", "setting"] => (Oip::Trace(Some(decode(name)?)), BOTH),
        ["logging"] => (Oip::Logging, BOTH),
        ["models", name, "versions", version, rest @ ..] => {
            let (operation, allow) = model_operation(rest)?;
            (model(name, Some(version), operation)?, allow)
        }
        ["models", name, rest @ ..] => {
            let (operation, allow) = model_operation(rest)?;
            (model(name, None, operation)?, allow)
        }
        ["systemsharedmemory", rest @ ..] => return region(Device::System, rest),
        ["cudasharedmemory", rest @ ..] => return region(Device::Cuda, rest),
        // With one repository folder or many, there is one index.
        ["repository", "index"] | ["repository", _, "index"] => (Oip::Index, POST),
        ["repository", "models", model, verb] => (change("", model, verb)?, POST),
        ["repository", repository, "models", model, verb] => {
            (change(&decode(repository)?, model, verb)?, POST)
        }
        _ => return None,
    };
    Some((Call::Oip(oip), allow))
}

fn region(device: Device, segments: &[&str]) -> Option<(Call, &'static str)> {
    let (name, verb) = match segments {
        ["region", name, verb] => (decode(name)?, verb),
        // Registering needs a name.
        ["register"] => return None,
        [verb] => (String::new(), verb),
        _ => return None,
    };
    let (verb, allow) = match *verb {
        "status" => (RegionVerb::Status, GET),
        "register" => (RegionVerb::Register, POST),
        "unregister" => (RegionVerb::Unregister, POST),
        _ => return None,
    };
    let region = Region { device, verb, name };
    Some((Call::Oip(Oip::Region(region)), allow))
}

fn change(repository: &str, model: &str, verb: &str) -> Option<Oip> {
    let change = Change {
        model: decode(model)?,
        repository: repository.to_owned(),
    };
    Some(match verb {
        "load" => Oip::Load(change),
        "unload" => Oip::Unload(change),
        _ => return None,
    })
}

fn model(name: &str, version: Option<&str>, operation: Operation) -> Option<Oip> {
    let version = match version {
        Some(version) => Some(decode(version)?),
        None => None,
    };
    Some(Oip::Model(Model {
        name: decode(name)?,
        version,
        operation,
    }))
}

fn model_operation(segments: &[&str]) -> Option<(Operation, &'static str)> {
    Some(match segments {
        [] => (Operation::ModelMetadata, GET),
        ["ready"] => (Operation::ModelReady, GET),
        ["config"] => (Operation::ModelConfig, GET),
        ["stats"] => (Operation::ModelStatistics, GET),
        ["infer"] => (Operation::Infer, POST),
        ["generate"] => (Operation::Generate, POST),
        ["generate_stream"] => (Operation::GenerateStream, POST),
        _ => return None,
    })
}

/// Whether a segment means the same to everybody who joins, decodes or normalises paths: a relayed path must stay below
/// its upstream's prefix, whatever the upstream makes of `..`, `%2e%2e`, `%2f` and nothing between two slashes.
fn plain(segment: &str) -> bool {
    let special = |byte: u8| matches!(byte, b'%' | b'.' | b'\\');
    if !segment.bytes().any(special) {
        return !segment.is_empty();
    }
    decode(segment).is_some_and(|text| {
        !text
            .split(['/', '\\'])
            .any(|part| matches!(part, "." | ".."))
    })
}

/// What a query says; a value that is no text is none.
pub(super) fn parameters(query: Option<&str>) -> impl Iterator<Item = (&str, String)> {
    let pairs = query.unwrap_or_default().split('&');
    pairs.filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        Some((name, decode(value)?))
    })
}

/// Undoes `%XX`; none if that is not text, or empty.
fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| after.split_first_chunk::<2>());
        rest = match escaped {
            Some(Some((digits, after))) => {
                bytes.push(hex(digits[0])? << 4 | hex(digits[1])?);
                after
            }
            Some(None) => return None,
            None => {
                bytes.push(*first);
                after
            }
        };
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.is_empty())
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn infer(name: &str, version: Option<&str>) -> Call {
        Call::Oip(Oip::Model(Model {
            name: name.into(),
            version: version.map(str::to_owned),
            operation: Operation::Infer,
        }))
    }

    #[test]
    fn paths_lead_to_calls() {
        for (method, path, expected) in [
            (Method::GET, "/v2", Call::Oip(Oip::Server)),
            (Method::GET, "/v2/", Call::Oip(Oip::Server)),
            (Method::HEAD, "/v2/health/live", Call::Oip(Oip::Live)),
            (Method::GET, "/v2/models/stats", Call::Oip(Oip::Statistics)),
            (Method::POST, "/v2/models/m/infer", infer("m", None)),
            (
                Method::POST,
                "/v2/models/a%20b/versions/3/infer",
                infer("a b", Some("3")),
            ),
            (
                Method::POST,
                "/v2/models/org%2Fm/infer",
                infer("org/m", None),
            ),
            (Method::POST, "/v2/repository/index", Call::Oip(Oip::Index)),
            (
                Method::POST,
                "/v2/repository/any/index",
                Call::Oip(Oip::Index),
            ),
            (
                Method::POST,
                "/v2/repository/models/a%20b/load",
                Call::Oip(Oip::Load(Change {
                    model: "a b".into(),
                    repository: String::new(),
                })),
            ),
            (
                Method::POST,
                "/v2/repository/mine/models/m/unload",
                Call::Oip(Oip::Unload(Change {
                    model: "m".into(),
                    repository: "mine".into(),
                })),
            ),
            (Method::GET, "/v1/models", Call::OpenAi(OpenAi::List)),
            (
                Method::GET,
                "/v1/models/org/m",
                Call::OpenAi(OpenAi::Get("org/m".into())),
            ),
            (
                Method::GET,
                "/v1/models/org%2Fm",
                Call::OpenAi(OpenAi::Get("org/m".into())),
            ),
            (
                Method::POST,
                "/v1/chat/completions",
                Call::OpenAi(OpenAi::Post(Operation::ChatCompletions)),
            ),
            (
                Method::POST,
                "/v1/responses",
                Call::OpenAi(OpenAi::Post(Operation::Responses)),
            ),
            (Method::GET, "/metrics", Call::Metrics),
        ] {
            assert_eq!(
                call(Door::Public, &method, path).expect(path),
                expected,
                "{path}"
            );
        }
    }

    #[test]
    fn what_an_upstream_keeps_is_found_by_its_path() {
        for (method, path, expected) in [
            (
                Method::GET,
                "/v1/responses/resp_1/input_items",
                Call::OpenAi(OpenAi::Stored(Operation::OpenAiStored)),
            ),
            (
                Method::DELETE,
                "/v1/files/file-1",
                Call::OpenAi(OpenAi::Stored(Operation::OpenAiStored)),
            ),
            (
                Method::POST,
                "/v1/audio/transcriptions",
                Call::OpenAi(OpenAi::Post(Operation::OpenAiOther)),
            ),
            (
                Method::POST,
                "/v1/messages/count_tokens",
                Call::OpenAi(OpenAi::Post(Operation::CountTokens)),
            ),
            (
                Method::GET,
                "/v1/messages/batches/b",
                Call::OpenAi(OpenAi::Stored(Operation::AnthropicStored)),
            ),
            (
                Method::GET,
                "/v1/chat/completions",
                Call::OpenAi(OpenAi::Stored(Operation::OpenAiStored)),
            ),
            (
                Method::POST,
                "/v1/chat/completions/chatcmpl-1",
                Call::OpenAi(OpenAi::Stored(Operation::OpenAiStored)),
            ),
            (
                Method::GET,
                "/v1/audio/voice_consents",
                Call::OpenAi(OpenAi::Stored(Operation::OpenAiStored)),
            ),
            (
                Method::POST,
                "/v1/moderations",
                Call::OpenAi(OpenAi::Post(Operation::OpenAiOther)),
            ),
            (
                Method::DELETE,
                "/v1/models/ft:a%2Fb",
                Call::OpenAi(OpenAi::Delete("ft:a/b".into())),
            ),
            (
                Method::GET,
                "/v1/organization/users",
                Call::OpenAi(OpenAi::Other),
            ),
            (
                Method::POST,
                "/v1/load_lora_adapter",
                Call::OpenAi(OpenAi::Other),
            ),
        ] {
            assert_eq!(
                call(Door::Public, &method, path).expect(path),
                expected,
                "{path}"
            );
        }
    }

    #[test]
    fn nothing_is_kept_under_other_methods() {
        for method in [Method::OPTIONS, Method::CONNECT, Method::TRACE] {
            let refused = call(Door::Public, &method, "/v1/files").expect_err("no such method");
            assert_eq!(refused.error.code, Some("method_not_supported"));
        }
    }

    #[test]
    fn shared_memory_is_asked_about_by_region_or_altogether() {
        for (method, path, device, verb, name) in [
            (
                Method::GET,
                "systemsharedmemory/status",
                Device::System,
                RegionVerb::Status,
                "",
            ),
            (
                Method::POST,
                "cudasharedmemory/region/a%2Fb/register",
                Device::Cuda,
                RegionVerb::Register,
                "a/b",
            ),
        ] {
            let found = call(Door::Public, &method, &format!("/v2/{path}")).expect(path);
            let name = name.to_owned();
            let expected = Region { device, verb, name };
            assert_eq!(found, Call::Oip(Oip::Region(expected)));
        }
    }

    #[test]
    fn what_is_not_there_is_said_in_the_right_words() {
        for (door, method, path, status) in [
            (Door::Public, Method::GET, "/", 404),
            (Door::Public, Method::GET, "/v3", 404),
            (Door::Public, Method::GET, "/v1", 404),
            (Door::Public, Method::GET, "/v2/models", 404),
            (Door::Public, Method::GET, "/v2/models/%ff", 404),
            (Door::Public, Method::GET, "/v2/models/%4", 404),
            (Door::Public, Method::GET, "/v2/models//infer", 404),
            (
                Door::Public,
                Method::POST,
                "/v1/../../b/v1/completions",
                404,
            ),
            (Door::Public, Method::POST, "/v1/%2e%2E/x", 404),
            (Door::Public, Method::POST, "/v1/.%2e/x", 404),
            (Door::Public, Method::POST, "/v1/a%2f..%2f..%2fb", 404),
            (Door::Public, Method::POST, "/v1/a/..", 404),
            (Door::Public, Method::POST, "/v1/a%5c..", 404),
            (Door::Public, Method::POST, "/v1/./responses", 404),
            (Door::Public, Method::POST, "/v1//responses", 404),
            (Door::Public, Method::POST, "//v1/responses", 404),
            (Door::Public, Method::POST, "/v1/%zz", 404),
            (Door::Public, Method::GET, "/v1/models/..", 404),
            (Door::Public, Method::POST, "/v2/models/%2e%2e/infer", 404),
            (Door::Public, Method::GET, "/admin/v1/models", 404),
            (
                Door::Public,
                Method::POST,
                "/v2/systemsharedmemory/register",
                404,
            ),
            (
                Door::Public,
                Method::GET,
                "/v2/systemsharedmemory/unregister",
                405,
            ),
            (Door::Public, Method::GET, "/v2/models/m/infer", 405),
            (Door::Public, Method::GET, "/v1/completions", 405),
            (Door::Public, Method::DELETE, "/v1/chat/completions", 405),
            (Door::Public, Method::POST, "/v1/models", 405),
            (Door::Admin, Method::GET, "/v2", 404),
            (Door::Admin, Method::POST, "/admin/v1/models", 405),
            (Door::Admin, Method::GET, "/admin/v1/models/m/rollback", 405),
            (Door::Admin, Method::POST, "/admin/v1/models//rollback", 404),
            (
                Door::Public,
                Method::POST,
                "/admin/v1/models/m/rollback",
                404,
            ),
            (Door::Metrics, Method::GET, "/v1/models", 404),
            (Door::Grpc, Method::GET, "/metrics", 404),
        ] {
            let failure = call(door, &method, path).expect_err(path);
            let shape = shape(path);
            let reply = crate::reply::Reply::refusal(&failure, shape, "id");
            assert_eq!(reply.response.status().as_u16(), status, "{path}");
            if status == 405 {
                assert!(reply.response.headers().contains_key(http::header::ALLOW));
            } else {
                assert_eq!(reply.response.status(), StatusCode::NOT_FOUND);
            }
        }
        assert_eq!(shape("/v1/x"), Shape::OpenAi);
        assert_eq!(shape("/v10"), Shape::Oip);
        assert_eq!(shape("/v1/messages"), Shape::Anthropic);
        assert_eq!(shape("/v1/messages/count_tokens"), Shape::Anthropic);
        assert_eq!(shape("/v1/messagesx"), Shape::OpenAi);
    }
}
