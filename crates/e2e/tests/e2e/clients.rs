//! Third-party clients as published, one test per script.

use std::net::TcpListener;
use std::path::PathBuf;

use e2e::python::Script;
use e2e::repository::{self, Builtin};
use e2e::upstream::Received;
use e2e::{Answer, FakeUpstream, Kapok, Repository};
use serde_json::{Value, json};

fn tensors() -> Repository {
    let model = |dtype, dims, max_batch| Builtin {
        dtype,
        dims,
        max_batch,
        ..Builtin::default()
    };
    Repository::new()
        .builtin("identity", &model("FP32", "-1", 0))
        .builtin("batched", &model("FP32", "3", 8))
        .builtin("strings", &model("BYTES", "-1", 0))
        .builtin("integers", &model("INT64", "-1, -1", 0))
        .builtin("halves", &model("FP16", "-1", 0))
        .builtin(
            "slow",
            &Builtin {
                delay_ms: 1500,
                ..Builtin::default()
            },
        )
}

fn run_on_tensors(script: &'static str) {
    let repository = tensors();
    let kapok = Kapok::new().model_repo(repository.path()).start();
    println!("{}", Script::new(script).against(&kapok).run());
}

#[test]
fn tritonclient_over_http() {
    run_on_tensors("triton_http.py");
}

#[test]
fn tritonclient_over_grpc() {
    run_on_tensors("triton_grpc.py");
}

#[test]
fn tritonclient_on_asyncio() {
    run_on_tensors("triton_aio.py");
}

/// Triton's own decoupled test model.
const REPEAT: &str = r#"
backend: "repeat"
max_batch_size: 0
model_transaction_policy { decoupled: true }
input [
  { name: "IN" data_type: TYPE_INT32 dims: [ -1 ] },
  { name: "DELAY" data_type: TYPE_UINT32 dims: [ -1 ] },
  { name: "WAIT" data_type: TYPE_UINT32 dims: [ 1 ] }
]
output [
  { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "IDX" data_type: TYPE_UINT32 dims: [ 1 ] }
]
instance_group [ { kind: KIND_CPU count: 1 } ]
"#;

#[test]
fn tritonclient_with_shared_memory_streams_and_compression() {
    let repository = tensors()
        .file("repeat/config.pbtxt", REPEAT)
        .file("repeat/1/.keep", "");
    let kapok = Kapok::new().model_repo(repository.path()).start();
    println!("{}", Script::new("triton_wire.py").against(&kapok).run());
}

#[test]
fn every_call_of_tritonclient() {
    let repository = tensors();
    let kapok = Kapok::new()
        .model_repo(repository.path())
        // A configuration that is no JSON.
        .allow_log("EOF while parsing an object")
        .start();
    println!("{}", Script::new("triton_calls.py").against(&kapok).run());
}

#[test]
fn mlserver_infer() {
    run_on_tensors("mlserver_infer.py");
}

/// It is published for this processor only.
#[cfg(target_arch = "x86_64")]
#[test]
fn perf_analyzer() {
    let repository = ["magika", "all-minilm-l6-v2"]
        .into_iter()
        .fold(Repository::new(), |repository, model| {
            repository.link(model, &repository::fetched(model))
        })
        .builtin("identity", &Builtin::default());
    let kapok = Kapok::new().model_repo(repository.path()).start();
    let script = Script::new("perf_analyzer.py").env(
        "KAPOK_PERF_ANALYZER",
        repository::cache().join("files/perf-analyzer").display(),
    );
    println!("{}", script.against(&kapok).run());
}

#[test]
fn the_openapi_document_describes_every_answer() {
    let repository = tensors();
    let kapok = Kapok::new().model_repo(repository.path()).start();
    println!("{}", Script::new("openapi.py").against(&kapok).run());
}

#[test]
fn broken_grpc_messages() {
    run_on_tensors("grpc_raw.py");
}

#[test]
fn grpcs_own_services() {
    run_on_tensors("grpc_services.py");
}

#[test]
fn kserve_inference_clients() {
    run_on_tensors("kserve_client.py");
}

#[test]
fn openai_embeddings_and_models() {
    let model = repository::fetched("all-minilm-l6-v2");
    let repository = Repository::new().link("all-minilm-l6-v2", &model);
    let kapok = Kapok::new().model_repo(repository.path()).start();
    println!(
        "{}",
        Script::new("openai_embeddings.py").against(&kapok).run()
    );
}

#[test]
fn openai_errors_and_streams() {
    let delta = |text: &str| {
        json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "llm",
            "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
        .to_string()
    };
    let whole = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "llm",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}]});
    let refused = r#"{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#;
    let streaming = FakeUpstream::start(
        Answer::events()
            .event(&delta("hel"))
            .event(&delta("lo"))
            .done(),
    );
    let cut = FakeUpstream::start(Answer::events().event(&delta("hel")).cut());
    let plain = FakeUpstream::start(Answer::json(&whole.to_string()));
    let refusing = FakeUpstream::start(Answer::status(400, refused));
    let silent = FakeUpstream::start(Answer::silent());
    let upstreams = [
        ("streaming", &streaming),
        ("cut", &cut),
        ("plain", &plain),
        ("refusing", &refusing),
        ("silent", &silent),
    ];
    let config: String = upstreams
        .iter()
        .map(|(name, fake)| {
            format!(
                "---\napiVersion: kapok.dev/v1alpha1\nkind: Upstream\nmetadata: {{name: {name}}}\nspec:\n  url: {}\n  models: [{name}]\n",
                fake.url()
            )
        })
        .collect();
    let kapok = Kapok::new().config(config).allow_log("upstream").start();
    println!("{}", Script::new("openai_errors.py").against(&kapok).run());
}

#[test]
fn openai_with_keys() {
    let fake = FakeUpstream::start(Answer::json("{}"));
    // SHA-256 of `sk-right`.
    let config = format!(
        "apiVersion: kapok.dev/v1alpha1\nkind: Upstream\nmetadata: {{name: llm}}\nspec: {{url: {}}}\n---\napiVersion: kapok.dev/v1alpha1\nkind: Key\nmetadata: {{name: k}}\nspec:\n  sha256: {}\n  models: [allowed]\n",
        fake.url(),
        sha256_hex("sk-right"),
    );
    let kapok = Kapok::new().config(config).start();
    println!("{}", Script::new("openai_keys.py").against(&kapok).run());
}

fn sha256_hex(text: &str) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Says the same as Anthropic's server would, and refuses whoever does not speak like its client.
fn anthropics(request: &Received) -> Answer {
    let header = |name: &str| request.header(name).unwrap_or_default();
    assert_eq!(header("x-api-key"), "sk-theirs");
    assert!(!header("anthropic-version").is_empty());
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let error = |status, kind: &str, message: &str| {
        let body = json!({"type": "error", "error": {"type": kind, "message": message}});
        Answer::status(status, &body.to_string())
    };
    let message = |content: Value, output: u32| {
        json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test",
            "content": content, "stop_reason": "end_turn", "stop_sequence": null,
            "usage": {"input_tokens": 3, "output_tokens": output}})
    };
    match (request.path.as_str(), body["max_tokens"].as_u64()) {
        ("/v1/models?limit=1000", _) => {
            Answer::json(r#"{"data":[{"type":"model","id":"claude-listed"}]}"#)
        }
        ("/v1/messages/count_tokens", _) => Answer::json(r#"{"input_tokens":3}"#),
        (_, Some(0)) => error(400, "invalid_request_error", "max_tokens: too small"),
        (_, Some(529)) => error(529, "overloaded_error", "Overloaded"),
        (_, limit) if body["stream"] == true => {
            let named = |event: Value| {
                let name = event["type"].as_str().expect("a type").to_owned();
                format!("event: {name}\ndata: {event}\n\n")
            };
            let piece = |text: &str| {
                named(json!({"type": "content_block_delta", "index": 0,
                    "delta": {"type": "text_delta", "text": text}}))
            };
            let begun = Answer::events()
                .chunk(named(
                    json!({"type": "message_start", "message": message(json!([]), 0)}),
                ))
                .chunk(named(json!({"type": "content_block_start", "index": 0,
                    "content_block": {"type": "text", "text": ""}})))
                .chunk(piece("ka"));
            if limit == Some(7) {
                return begun.cut();
            }
            begun
                .chunk(piece("pok"))
                .chunk(named(json!({"type": "content_block_stop", "index": 0})))
                .chunk(named(json!({"type": "message_delta",
                    "delta": {"stop_reason": "end_turn", "stop_sequence": null},
                    "usage": {"output_tokens": 2}})))
                .chunk(named(json!({"type": "message_stop"})))
                .chunk("")
        }
        _ => {
            let whole = message(json!([{"type": "text", "text": "kapok"}]), 2);
            Answer::json(&whole.to_string())
        }
    }
}

#[test]
fn anthropics_client() {
    let fake = FakeUpstream::answering(anthropics);
    let upstream = |name: &str, models: &str| {
        format!(
            "---\napiVersion: kapok.dev/v1alpha1\nkind: Upstream\nmetadata: {{name: {name}}}\nspec: {{url: {:?}, kind: anthropic, apiKey: {{value: sk-theirs}}{models}}}\n",
            fake.url()
        )
    };
    let config = upstream("any", "") + &upstream("listed", ", models: [claude-test]");
    let kapok = Kapok::new().config(config).allow_log("upstream").start();
    let script = Script::new("anthropic_client.py");
    println!("{}", script.against(&kapok).run());
}

#[test]
fn openai_pythons_own_tests_end_the_same_with_kapok_in_between() {
    let suite = std::env::var_os("KAPOK_OPENAI_SUITE")
        .map_or_else(|| repository::cache().join("openai-suite"), PathBuf::from);
    assert!(
        suite.join("source").is_dir(),
        "{} is missing: run `cargo xtask test`, which makes it",
        suite.display()
    );
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    // The administration of an account is relayed only for who says so.
    let config = format!(
        "apiVersion: kapok.dev/v1alpha1\nkind: Upstream\nmetadata: {{name: mock}}\nspec: {{url: \"http://127.0.0.1:{port}\"}}\n---\napiVersion: kapok.dev/v1alpha1\nkind: Route\nmetadata: {{name: account}}\nspec:\n  models: [\"/v1/organization*\", \"/v1/projects*\"]\n  targets: [{{upstream: mock}}]\n"
    );
    let kapok = Kapok::new().config(config).allow_log("upstream").start();
    let script = Script::new("openai_suite.py")
        .env("OPENAI_SUITE", suite.display())
        .env("MOCK_PORT", port);
    println!("{}", script.against(&kapok).run());
}
