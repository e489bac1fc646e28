//! A gateway before other servers: real clients find nothing in between.

use e2e::python::Script;
use e2e::repository::{Builtin, Repository};
use e2e::{Answer, FakeUpstream, Kapok};

/// tritonclient before a kapok that passes all on to another one, which is said to speak `form`.
fn tritonclient_through(kind: &str, form: &str) {
    let model = |dtype, dims, max_batch| Builtin {
        dtype,
        dims,
        max_batch,
        ..Builtin::default()
    };
    let repository = Repository::new()
        .builtin("identity", &model("FP32", "-1", 0))
        .builtin("batched", &model("FP32", "3", 8))
        .builtin("strings", &model("BYTES", "-1", 0));
    let behind = Kapok::new().model_repo(repository.path()).start();
    let url = behind.url();
    let front = Kapok::new()
        .config(format!(
            "apiVersion: kapok.dev/v1alpha1\nkind: Upstream\nmetadata: {{name: behind}}\n\
             spec: {{url: '{url}', kind: {kind}, oip: {form}}}\n---\n\
             apiVersion: kapok.dev/v1alpha1\nkind: Route\nmetadata: {{name: all}}\n\
             spec: {{models: ['*'], targets: [{{upstream: behind}}]}}\n"
        ))
        .start();
    let mut script = Script::new("triton_through.py");
    if form == "rest" {
        script = script.env("NO_STREAMS", "1");
    }
    println!("{}", script.against(&front).run());
}

#[test]
fn tritonclient_finds_no_gateway_in_between() {
    tritonclient_through("kapok", "both");
}

#[test]
fn tritonclient_over_http_reaches_a_server_that_speaks_grpc() {
    tritonclient_through("triton", "grpc");
}

#[test]
fn tritonclient_over_grpc_reaches_a_server_that_speaks_rest() {
    tritonclient_through("triton", "rest");
}

#[test]
fn openai_sends_a_large_file_that_the_gateway_never_holds() {
    const SIZE: usize = 200 << 20;
    let file = r#"{"id":"file-1","object":"list","data":[{"id":"file-1"}],"has_more":false}"#;
    let upstream = FakeUpstream::start(Answer::json(file))
        .route("/v1/files/file-1/content", Answer::json("0123456789"))
        .route(
            "/v1/audio/transcriptions",
            Answer::json("{\"text\":\"hi\"}"),
        );
    let kapok = Kapok::new().upstream("openai", &upstream.url()).start();
    let before = kapok.rss_kib();
    let script = Script::new("openai_files.py").env("SIZE", SIZE);
    println!("{}", script.against(&kapok).run());
    let grown = kapok.rss_kib().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more after a file of 200 MiB");
    let received = upstream.received();
    let sent = received.iter().find(|request| request.path == "/v1/files");
    let body = &sent.expect("the file came").body;
    assert!(body.len() > SIZE, "{} bytes of {SIZE}", body.len());
    let pattern: Vec<u8> = (0..4096_u32)
        .map(|index| u8::try_from(index % 251).expect("small"))
        .collect();
    let start = body.windows(64).position(|window| window == &pattern[..64]);
    let content = &body[start.expect("the file's first bytes")..];
    assert!(content[..SIZE].chunks(4096).all(|block| block == pattern));
}
