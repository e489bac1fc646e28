//! Real tokens: one of two llama.cpp servers dies in the middle of its answer, and the caller does not notice.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::chat::{Chat, End, Told};
use e2e::{Client, Kapok, python, repository, wait};
use serde_json::json;

const MODEL: &str = "smollm2-135m-instruct";

/// llama.cpp's own server, killed when dropped.
struct Llama {
    process: Child,
    port: u16,
}

impl Llama {
    fn start() -> Self {
        let gguf =
            repository::cache().join("files/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
        assert!(
            gguf.is_file(),
            "{}: run `cargo xtask fetch`",
            gguf.display()
        );
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let launcher = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/llama_server.py");
        let process = Command::new(python::interpreter())
            .arg(launcher)
            .args(["--port", &port.to_string(), "--threads", "1", "--model"])
            .arg(&gguf)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("python starts");
        Self { process, port }
    }

    fn wait_until_ready(&self) {
        let client = Client::to(([127, 0, 0, 1], self.port).into());
        wait::within(Duration::from_secs(120), || {
            client
                .try_get("/health")
                .ok()
                .filter(|answer| answer.status == 200)
        })
        .expect("llama.cpp loads its model");
    }

    fn kill(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it is our child");
    }
}

impl Drop for Llama {
    fn drop(&mut self) {
        let _already_gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

fn upstream(name: &str, llama: &Llama) -> String {
    format!(
        "apiVersion: kapok.dev/v1alpha1\nkind: Upstream\nmetadata: {{name: {name}}}\nspec: {{url: \"http://127.0.0.1:{}\"}}\n---\n",
        llama.port
    )
}

/// Greedy, so that the same words come from both.
fn story() -> Chat {
    Chat::streaming(MODEL, "Tell me a long story about a kapok tree and a bat.")
        .with("temperature", json!(0))
        .with("max_tokens", json!(120))
        .within(Duration::from_secs(180))
}

fn words(told: &Told) -> usize {
    told.text.split_whitespace().count()
}

#[test]
fn a_server_that_dies_in_the_middle_of_its_answer_is_not_noticed() {
    let (mut first, second) = (Llama::start(), Llama::start());
    first.wait_until_ready();
    second.wait_until_ready();
    let route = format!(
        "apiVersion: kapok.dev/v1alpha1\nkind: Route\nmetadata: {{name: llama}}\nspec: {{models: [{MODEL}], targets: [{{upstream: first}}], fallback: [{{upstream: second}}]}}\n"
    );
    let config = upstream("first", &first) + &upstream("second", &second) + &route;
    let kapok = Kapok::new().config(config).allow_log("upstream").start();
    let whole = story().ask(&kapok.http());
    assert_eq!(whole.end, End::Complete, "{whole:?}");
    assert!(words(&whole) > 40, "a story: {whole:?}");

    let mut seen = 0;
    let rescued = story().ask_watching(&kapok.http(), |text| {
        seen += 1;
        if seen == 20 {
            println!("killed after {text:?}");
            first.kill();
        }
    });
    assert!(seen > 20, "it was killed in the middle");
    assert_eq!(rescued.end, End::Complete, "{rescued:?}");
    assert!(rescued.done_seen);
    println!("{} words, {} unbroken", words(&rescued), words(&whole));
    assert_eq!(rescued.text, whole.text, "the same story");

    // The other one answers for both.
    let chat = Chat::whole(MODEL, "Say hello.").with("max_tokens", json!(8));
    let alone = chat.within(Duration::from_secs(60)).ask(&kapok.http());
    assert_eq!(alone.end, End::Complete, "{alone:?}");
}
