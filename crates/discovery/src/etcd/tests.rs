use std::sync::Arc;

use base::TaskKind;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use protocol::resource::{EtcdTlsSpec, Secret};

use super::*;

/// What etcd's gateway says to each call, in turn; a watch goes on until the script's end of it.
struct Script {
    url: String,
    /// Path and body of every call so far.
    calls: Arc<Mutex<Vec<(String, Value)>>>,
    /// The token of each.
    tokens: Arc<Mutex<Vec<Option<String>>>>,
    _tasks: Tasks,
}

async fn gateway(answers: Vec<Vec<Value>>) -> Script {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&calls);
    let tokens = Arc::new(Mutex::new(Vec::new()));
    let shown = Arc::clone(&tokens);
    let tasks = Tasks::new();
    tasks.spawn(TaskKind::HealthCheck, "etcd", async move {
        for lines in answers {
            let (mut stream, _) = listener.accept().await?;
            let mut request = Vec::new();
            let (path, body) = loop {
                let mut part = [0; 4096];
                let count = stream.read(&mut part).await?;
                request.extend_from_slice(&part[..count]);
                let text = String::from_utf8_lossy(&request);
                let Some((head, body)) = text.split_once("\r\n\r\n") else {
                    continue;
                };
                if let Ok(body) = serde_json::from_str::<Value>(body) {
                    let token = head.lines().find_map(|line| line.strip_prefix("authorization: "));
                    shown.lock().push(token.map(str::to_owned));
                    break (head.split(' ').nth(1).unwrap_or_default().to_owned(), body);
                }
            };
            seen.lock().push((path, body));
            let mut text = String::new();
            for line in lines {
                text.push_str(&format!("{line}\n"));
            }
            let status = if text.contains("invalid auth token") { 401 } else { 200 };
            let head = format!(
                "HTTP/1.1 {status} Word\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(text.as_bytes()).await?;
        }
        Ok(())
    });
    Script {
        url,
        calls,
        tokens,
        _tasks: tasks,
    }
}

fn pair(key: &str, value: &str) -> Value {
    json!({"key": BASE64_STANDARD.encode(key), "value": BASE64_STANDARD.encode(value)})
}

fn listed(revision: u64, pairs: &[(&str, &str)]) -> Vec<Value> {
    let kvs: Vec<Value> = pairs.iter().map(|(key, value)| pair(key, value)).collect();
    vec![json!({"header": {"revision": revision.to_string()}, "kvs": kvs})]
}

fn told(revision: u64, events: Value) -> Value {
    json!({"result": {"header": {"revision": revision.to_string()}, "events": events}})
}

fn source(script: &Script) -> EtcdSource {
    let spec = EtcdSpec {
        endpoints: vec![script.url.clone()],
        prefix: "/k/".to_owned(),
        tls: EtcdTlsSpec::default(),
        user: None,
        password: None,
    };
    EtcdSource::new(&spec, Tasks::new())
}

fn urls(servers: &[Endpoint]) -> String {
    let urls: Vec<&str> = servers.iter().map(|server| server.url.as_str()).collect();
    urls.join(" ")
}

#[tokio::test]
async fn a_watch_that_breaks_is_taken_up_where_it_was() {
    let script = gateway(vec![
        listed(
            5,
            &[
                ("/k/a", "a:1"),
                ("/k/bad", "no server"),
                ("/k/b", "{\"url\":\"b:1\"}"),
            ],
        ),
        vec![
            json!({"result": {"header": {"revision": "5"}, "created": true}}),
            told(7, json!([{"kv": pair("/k/c", "c:1")}])),
        ],
        vec![told(8, json!([{"type": "DELETE", "kv": pair("/k/a", "")}]))],
    ])
    .await;
    let mut source = source(&script);
    assert_eq!(urls(&source.next().await.expect("a list")), "a:1 b:1");
    assert_eq!(urls(&source.next().await.expect("it watches")), "a:1 b:1");
    assert_eq!(urls(&source.next().await.expect("a change")), "a:1 b:1 c:1");
    let broken = source.next().await.expect_err("it has ended").to_string();
    assert!(broken.contains("watch has ended"), "{broken}");
    assert_eq!(
        urls(&source.next().await.expect("what came meanwhile")),
        "b:1 c:1"
    );
    let calls = script.calls.lock();
    let (path, list) = &calls[0];
    assert_eq!(
        (path.as_str(), list["range_end"].as_str()),
        ("/v3/kv/range", Some("L2sw")),
        "up to `/k0`"
    );
    let from = |call: usize| calls[call].1["create_request"]["start_revision"].clone();
    assert_eq!((from(1), from(2)), (json!("6"), json!("8")));
}

#[tokio::test]
async fn what_was_compacted_is_listed_anew() {
    let compacted = json!({"result": {"header": {"revision": "90"}, "canceled": true, "compact_revision": "80"}});
    let script = gateway(vec![
        listed(5, &[("/k/a", "a:1")]),
        vec![compacted],
        listed(90, &[("/k/b", "b:1")]),
        vec![told(91, json!([{"kv": pair("/k/c", "c:1")}]))],
    ])
    .await;
    let mut source = source(&script);
    assert_eq!(urls(&source.next().await.expect("a list")), "a:1");
    assert_eq!(urls(&source.next().await.expect("as it is now")), "b:1");
    assert_eq!(urls(&source.next().await.expect("a change")), "b:1 c:1");
    let calls = script.calls.lock();
    assert_eq!(calls[3].1["create_request"]["start_revision"], json!("91"));
}

#[tokio::test]
async fn another_member_is_asked_when_one_is_away() {
    let script = gateway(vec![listed(5, &[("/k/a", "a:1")])]).await;
    let away = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        format!("http://{}", listener.local_addr().expect("bound"))
    };
    let spec = EtcdSpec {
        endpoints: vec![away, script.url.clone()],
        prefix: "/k/".to_owned(),
        tls: EtcdTlsSpec::default(),
        user: None,
        password: None,
    };
    let mut source = EtcdSource::new(&spec, Tasks::new());
    assert_eq!(urls(&source.next().await.expect("a list")), "a:1");
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_again_when_it_is_no_longer_taken() {
    let token = |name: &str| vec![json!({"header": {}, "token": name})];
    let script = gateway(vec![
        token("first"),
        listed(5, &[("/k/a", "a:1")]),
        vec![json!({"error": "etcdserver: invalid auth token", "code": 16})],
        token("second"),
        vec![told(6, json!([{"kv": pair("/k/b", "b:1")}]))],
    ])
    .await;
    let spec = EtcdSpec {
        endpoints: vec![script.url.clone()],
        prefix: "/k/".to_owned(),
        tls: EtcdTlsSpec::default(),
        user: Some("kapok".to_owned()),
        password: Some(Secret::Value("sesame".to_owned())),
    };
    let mut source = EtcdSource::new(&spec, Tasks::new());
    assert_eq!(urls(&source.next().await.expect("a list")), "a:1");
    assert_eq!(urls(&source.next().await.expect("a change")), "a:1 b:1");
    let calls = script.calls.lock();
    let paths: Vec<_> = calls.iter().map(|(path, _)| path.as_str()).collect();
    let login = "/v3/auth/authenticate";
    assert_eq!(
        paths,
        [login, "/v3/kv/range", "/v3/watch", login, "/v3/watch"]
    );
    assert_eq!(calls[0].1, json!({"name": "kapok", "password": "sesame"}));
    let some = |token: &str| Some(token.to_owned());
    let tokens = script.tokens.lock();
    assert_eq!(
        *tokens,
        [None, some("first"), some("first"), None, some("second")]
    );
}
