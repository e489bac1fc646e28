//! Processes that kapok starts: watched, restarted, and never left behind.

use std::net::TcpListener;

use e2e::{Kapok, Running, alive, children_of, python, signal, wait};

const SERVER: &str = r#"
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b'{"choices":[],"pid":%d}' % __import__("os").getpid()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = answer
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

fn start(server: &std::path::Path) -> Running {
    let port = free_port();
    let config = format!(
        "apiVersion: kapok.dev/v1alpha1\nkind: Upstream\nmetadata: {{name: managed}}\nspec:\n  url: http://127.0.0.1:{port}\n  process:\n    command: [{:?}, {server:?}, \"{port}\"]\n    readyPath: /health\n    stopTimeoutMs: 2000\n",
        python::interpreter()
    );
    Kapok::new()
        .config(config)
        .allow_log("managed")
        .when_live()
        .start()
}

/// Managed processes: behind a keeper each.
fn managed(kapok: &Running) -> Vec<u32> {
    kapok.children().into_iter().flat_map(children_of).collect()
}

fn answering_pid(kapok: &Running) -> Option<u64> {
    let answer = kapok
        .http()
        .post("/v1/chat/completions", r#"{"model":"m","messages":[]}"#);
    (answer.status == 200).then(|| answer.json()["pid"].as_u64())?
}

#[test]
fn a_killed_process_is_started_again_and_stopping_leaves_none() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = folder.path().join("server.py");
    std::fs::write(&server, SERVER).expect("the folder is ours");
    let kapok = start(&server);
    let first = wait::until("the process to answer", || answering_pid(&kapok));
    let first = u32::try_from(first).expect("a pid");
    assert_eq!(managed(&kapok), [first]);
    assert_eq!(kapok.http().get("/health/ready").status, 200);

    signal("KILL", first);
    let second = wait::until("another process to answer", || {
        answering_pid(&kapok).filter(|pid| *pid != u64::from(first))
    });
    let second = u32::try_from(second).expect("a pid");
    assert!(!alive(first));
    assert_eq!(managed(&kapok), [second]);

    assert_eq!(kapok.stop(), 0);
    wait::until("the child to be gone", || (!alive(second)).then_some(()));
}

#[test]
fn a_process_that_cannot_start_is_named_and_the_rest_serves() {
    let config = "apiVersion: kapok.dev/v1alpha1\nkind: Upstream\nmetadata: {name: managed}\nspec:\n  url: http://127.0.0.1:9\n  process:\n    command: [/nowhere/llama-server]\n";
    let kapok = Kapok::new()
        .config(config)
        .allow_log("managed")
        .when_live()
        .start();
    kapok.wait_for_log("/nowhere/llama-server");
    assert_ne!(kapok.http().get("/health/ready").status, 200);
    let answer = kapok
        .http()
        .post("/v1/chat/completions", r#"{"model":"m","messages":[]}"#);
    assert!([502, 503].contains(&answer.status), "{}", answer.text());
    assert!(answer.text().contains("managed"), "{}", answer.text());
}
