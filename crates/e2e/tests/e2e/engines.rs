//! Real models on real engines, against references made elsewhere.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use e2e::python::{self, Script};
use e2e::repository;
use e2e::{Kapok, Repository};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn embeddings_equal_a_reference_from_the_weights() {
    let mut repository = Repository::new();
    for model in ["all-minilm-l6-v2", "all-minilm-l6-v2-int8"] {
        repository = repository.link(model, &repository::fetched(model));
    }
    let kapok = Kapok::new().model_repo(repository.path()).start();
    let weights = repository::cache().join("files/all-minilm-l6-v2/model.safetensors");
    let tokenizer = repository::fetched("all-minilm-l6-v2").join("tokenizer.json");
    let script = Script::new("embed_reference.py")
        .env("WEIGHTS", weights.display())
        .env("TOKENIZER", tokenizer.display());
    println!("{}", script.against(&kapok).run());
}

/// Starts its own servers: one per engine, on repositories it writes.
#[test]
fn onnx_node_tests_and_light_models() {
    let kapok = e2e::binary();
    let library = repository::onnxruntime().expect("run `cargo xtask fetch`");
    let home = tempfile::tempdir().expect("a temporary folder");
    println!(
        "{}",
        Script::new("onnx_conformance.py")
            .env("KAPOK", kapok.display())
            .env("ORT_DYLIB_PATH", library.display())
            .env("KAPOK_CACHE", home.path().display())
            .run()
    );
}

#[test]
fn magika_names_file_types() {
    let magika = repository::fetched("magika");
    let repository = Repository::new().link("magika", &magika);
    let kapok = Kapok::new().model_repo(repository.path()).start();
    let script = Script::new("magika_types.py")
        .env("CONFIG", magika.join("config.min.json").display())
        .env("ROOT", root().display());
    println!("{}", script.against(&kapok).run());
}

#[test]
fn chat_with_a_real_llama_server() {
    let gguf =
        repository::cache().join("files/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(
        gguf.is_file(),
        "{} is missing: run `cargo xtask fetch`",
        gguf.display()
    );
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    // One thread: spinning threads of llama.cpp collapse on a busy machine.
    let config = format!(
        "apiVersion: kapok.dev/v1alpha1\nkind: Upstream\nmetadata: {{name: llama}}\nspec:\n  url: http://127.0.0.1:{port}\n  models: [smollm2-135m-instruct]\n  process:\n    command: [{:?}, {:?}, \"--model\", {gguf:?}, \"--port\", \"{port}\", \"--threads\", \"1\"]\n",
        python::interpreter(),
        root().join("demo/llama_server.py"),
    );
    let kapok = Kapok::new().config(config).start();
    println!("{}", Script::new("openai_chat.py").against(&kapok).run());
    let children = kapok.children();
    assert_eq!(children.len(), 1);
    assert_eq!(kapok.stop(), 0);
    assert!(!e2e::alive(children[0]), "llama.cpp was left behind");
}
