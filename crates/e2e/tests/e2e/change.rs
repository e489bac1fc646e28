//! The configuration and the binary change under live streams, and nobody notices.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use e2e::{Answer, Client, FakeUpstream, Kapok, Running, alive, children_of, python, wait};
use serde_json::{Value, json};
use tempfile::TempDir;

const HEAD: &str = "apiVersion: kapok.dev/v1alpha1\n";

fn document(kind: &str, name: &str, spec: &Value) -> String {
    format!("---\n{HEAD}kind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

/// Written aside and renamed over, as editors and tools do.
fn replace(file: &Path, text: &str) {
    let aside = file.with_extension("part");
    fs::write(&aside, text).expect("the folder is ours");
    fs::rename(&aside, file).expect("the folder is ours");
}

fn status(kapok: &Running) -> Value {
    kapok.admin().get("/admin/v1/config").json()
}

/// A server of numbered streams that is managed by kapok.
struct Ticker {
    folder: TempDir,
    port: u16,
}

impl Ticker {
    fn new() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("it is bound").port();
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, port }
    }

    fn upstream(&self) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/ticker.py");
        let command = json!([
            python::interpreter(),
            script,
            self.port.to_string(),
            self.finish()
        ]);
        let spec = json!({
            "url": format!("http://127.0.0.1:{}", self.port),
            "models": ["m"],
            "process": {"command": command, "stopTimeoutMs": 2000},
        });
        document("Upstream", "ticker", &spec)
    }

    fn finish(&self) -> PathBuf {
        self.folder.path().join("finish")
    }

    /// Has every stream end as it should.
    fn end_streams(&self) {
        fs::write(self.finish(), "").expect("the folder is ours");
    }
}

/// Opens a stream and reads it to its end in a thread of its own; it must be whole. Returns when its first event is there.
fn stream(client: &Client) -> JoinHandle<Result<u64, String>> {
    let body = json!({"model": "m", "stream": true}).to_string();
    let mut message = client.head("POST", "/v1/chat/completions", body.len());
    message.extend(body.into_bytes());
    let client = client.clone();
    let (first, opened) = std::sync::mpsc::sync_channel(1);
    let follow = move || {
        let failed = |error: std::io::Error| error.to_string();
        let mut connection = client.open().map_err(failed)?;
        connection.send(&message).map_err(failed)?;
        let mut answer = connection.receive_head().map_err(failed)?;
        if answer.status != 200 {
            return Err(format!("status {}", answer.status));
        }
        let (mut text, mut next) = (String::new(), 0);
        while let Some(part) = connection.receive_part(&mut answer).map_err(failed)? {
            text.push_str(&String::from_utf8_lossy(&part));
            while let Some((event, rest)) = text.split_once("\n\n") {
                if event == "data: [DONE]" {
                    return Ok(next);
                }
                if event != format!("data: {{\"n\":{next}}}") {
                    return Err(format!("event {next} is {event:?}"));
                }
                next += 1;
                // Only the first is waited for.
                let _told = first.try_send(());
                text = rest.to_owned();
            }
        }
        Err(format!("it ended after {next} events without [DONE]"))
    };
    let thread = std::thread::Builder::new().stack_size(256 << 10);
    let thread = thread.spawn(follow).expect("a thread");
    // A stream that failed has let go of its end; joining tells why.
    let _failed = opened.recv();
    thread
}

/// Asks again and again over a connection that is kept for as long as the server wants it.
fn ask_until(client: &Client, stop: &Arc<AtomicBool>) -> JoinHandle<(u32, Vec<String>)> {
    let body = json!({"model": "m"}).to_string();
    let mut message = client.head("POST", "/v1/chat/completions", body.len());
    message.extend(body.into_bytes());
    let (client, stop) = (client.clone(), Arc::clone(stop));
    std::thread::spawn(move || {
        let (mut connection, mut answered, mut failures) = (None, 0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let opened = match connection.take() {
                Some(open) => Ok(open),
                None => client.open(),
            };
            let asked = opened.and_then(|mut open| {
                let answer = open.exchange(&message)?;
                Ok((open, answer))
            });
            match asked {
                Ok((open, answer)) if answer.status == 200 => {
                    answered += 1;
                    if answer.header("connection") != Some("close") {
                        connection = Some(open);
                    }
                }
                Ok((_, answer)) => failures.push(format!("{} {}", answer.status, answer.text())),
                Err(error) => failures.push(error.to_string()),
            }
        }
        (answered, failures)
    })
}

/// Every stream was whole, and every other request was answered.
fn judge(
    streams: Vec<JoinHandle<Result<u64, String>>>,
    callers: Vec<JoinHandle<(u32, Vec<String>)>>,
    stop: &Arc<AtomicBool>,
) {
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        let (answered, failures) = caller.join().expect("a caller");
        assert_eq!(failures, Vec::<String>::new());
        assert!(answered > 0);
    }
    let ends: Vec<_> = streams
        .into_iter()
        .map(|stream| stream.join().expect("a stream"))
        .collect();
    let cut: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
    assert!(
        cut.is_empty(),
        "{} of {} streams were cut: {cut:?}",
        cut.len(),
        ends.len()
    );
}

fn callers(kapok: &Running, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<(u32, Vec<String>)>> {
    (0..2).map(|_| ask_until(&kapok.http(), stop)).collect()
}

#[test]
fn a_thousand_configurations_under_five_hundred_streams() {
    const SWAPS: u64 = 1000;
    let ticker = Ticker::new();
    let other = FakeUpstream::start(Answer::json("{}"));
    let config = |turn: u64| {
        // What changes is beside the streams, around them and, as its timeouts, about them.
        let beside = json!({"url": other.url(), "models": [format!("other-{turn}")]});
        let route = json!({"models": [format!("m-{turn}*")], "targets": [{"upstream": "ticker"}]});
        [
            ticker.upstream(),
            document("Upstream", &format!("beside-{}", turn % 3), &beside),
            document("Route", "route", &route),
        ]
        .concat()
    };
    let kapok = Kapok::new().config(config(0)).start();
    let file = kapok.config_file();
    let streams: Vec<_> = (0..500).map(|_| stream(&kapok.http())).collect();
    let stop = Arc::default();
    let callers = callers(&kapok, &stop);
    let before = status(&kapok)["generation"].as_u64().expect("a number");
    for turn in 1..=SWAPS {
        replace(&file, &config(turn));
        wait::until("the next generation", || {
            (status(&kapok)["generation"] == before + turn).then_some(())
        });
    }
    let last = json!({"model": format!("other-{SWAPS}")}).to_string();
    assert_eq!(kapok.http().post("/v1/chat/completions", last).status, 200);
    let first = json!({"model": "other-1"}).to_string();
    assert_eq!(kapok.http().post("/v1/chat/completions", first).status, 404);
    assert_eq!(status(&kapok)["refused"], Value::Null);
    ticker.end_streams();
    judge(streams, callers, &stop);
    let metrics = kapok.admin().get("/metrics").text();
    let applied = format!("kapok_config_changes_total{{outcome=\"applied\"}} {SWAPS}");
    assert!(metrics.contains(&applied), "{metrics}");
}

#[test]
fn twenty_upgrades_under_five_hundred_streams() {
    const UPGRADES: usize = 20;
    let ticker = Ticker::new();
    let mut kapok = Kapok::new().config(ticker.upstream()).start();
    let first = kapok.pid();
    let mut streams: Vec<_> = (0..400).map(|_| stream(&kapok.http())).collect();
    let stop = Arc::default();
    let callers = callers(&kapok, &stop);
    let managed = || {
        kapok
            .http()
            .post("/v1/chat/completions", r#"{"model":"m"}"#)
            .json()["pid"]
            .clone()
    };
    let server = managed();
    for _ in 0..UPGRADES {
        let before = kapok.pid();
        kapok.upgrade();
        assert_ne!(kapok.pid(), before);
        streams.extend((0..5).map(|_| stream(&kapok.http())));
    }
    assert!(alive(first), "it still answers what it has begun");
    let managed = || {
        kapok
            .http()
            .post("/v1/chat/completions", r#"{"model":"m"}"#)
            .json()["pid"]
            .clone()
    };
    assert_eq!(managed(), server, "the managed process went on");
    ticker.end_streams();
    judge(streams, callers, &stop);
    wait::until("the first process to leave", || {
        (!alive(first)).then_some(())
    });
    let server = u32::try_from(server.as_u64().expect("a pid")).expect("a pid");
    assert!(alive(server));
    drop(kapok);
    wait::until("the managed process to end with the last", || {
        (!alive(server)).then_some(())
    });
}

#[test]
fn a_file_with_a_mistake_is_refused_and_the_one_before_serves() {
    let fake = FakeUpstream::start(Answer::json("{\"by\":\"fake\"}"));
    let good = document(
        "Upstream",
        "up",
        &json!({"url": fake.url(), "models": ["m"]}),
    );
    let kapok = Kapok::new()
        .config(good.clone())
        .allow_log("the configuration is refused")
        .allow_log("these fields of the Node")
        .start();
    let file = kapok.config_file();
    let serves = || {
        let answer = kapok
            .http()
            .post("/v1/chat/completions", r#"{"model":"m"}"#);
        assert_eq!(answer.json()["by"], "fake", "{}", answer.text());
    };
    let route = json!({"models": ["x"], "targets": [{"upstream": "nobody"}]});
    for (text, part) in [
        (good.replace("models", "modles"), "kapok.yaml:5:"),
        (good.clone() + "---\n{", "kapok.yaml:7:"),
        (good.clone() + &document("Route", "r", &route), "nobody"),
        (String::new(), "no documents"),
    ] {
        replace(&file, &text);
        let refused = wait::until(part, || {
            let refused = status(&kapok)["refused"].as_str()?.to_owned();
            refused.contains(part).then_some(refused)
        });
        kapok.wait_for_log(refused.lines().next().unwrap_or_default());
        let doctor = kapok.cli(&["doctor"]);
        assert!(doctor.stdout.contains(part), "{}", doctor.stdout);
        serves();
    }
    let node = json!({"listen": "127.0.0.1:1", "queueMax": 7, "drainTimeoutMs": 5000});
    replace(&file, &(good.clone() + &document("Node", "node", &node)));
    // `--listen` is on the command line, so that the file has no say in it.
    wait::until("the fields that need a restart", || {
        (status(&kapok)["needs_restart"] == json!(["queueMax"])).then_some(())
    });
    assert_eq!(status(&kapok)["refused"], Value::Null);
    serves();
    fs::remove_file(&file).expect("ours");
    wait::until("the lack of the file to be told", || {
        let refused = status(&kapok)["refused"].as_str()?.to_owned();
        refused.contains("cannot be read").then_some(())
    });
    serves();
    replace(&file, &good);
    wait::until("the file again", || {
        (status(&kapok)["refused"] == Value::Null).then_some(())
    });
}

#[test]
fn managed_processes_come_and_go_with_the_file_and_requests_are_answered_first() {
    let ticker = Ticker::new();
    let kapok = Kapok::new()
        .config(document("Node", "node", &json!({})))
        .start();
    let file = kapok.config_file();
    replace(&file, &ticker.upstream());
    let ask = || {
        kapok
            .http()
            .post("/v1/chat/completions", r#"{"model":"m"}"#)
    };
    let pid = wait::until("the process", || {
        let answer = ask();
        (answer.status == 200).then(|| answer.json()["pid"].as_u64())?
    });
    let pid = u32::try_from(pid).expect("a pid");
    let streamed = stream(&kapok.http());
    replace(
        &file,
        &document("Node", "node", &json!({"drainTimeoutMs": 30_000})),
    );
    wait::until("the upstream to be gone", || {
        (ask().status == 404).then_some(())
    });
    assert!(alive(pid), "a stream of it still runs");
    ticker.end_streams();
    assert_eq!(
        streamed.join().expect("a stream").map(|events| events > 0),
        Ok(true)
    );
    wait::until("the process to end", || (!alive(pid)).then_some(()));
    assert!(
        kapok
            .children()
            .into_iter()
            .flat_map(children_of)
            .next()
            .is_none()
    );
}

#[test]
fn an_upgrade_that_does_not_get_ready_changes_nothing() {
    let ticker = Ticker::new();
    let kapok = Kapok::new()
        .config(ticker.upstream())
        .allow_log("not upgraded")
        .allow_log("the configuration is refused")
        .start();
    let streamed = stream(&kapok.http());
    let ask = || {
        kapok
            .http()
            .post("/v1/chat/completions", r#"{"model":"m"}"#)
    };
    let server = ask().json()["pid"].clone();
    replace(&kapok.config_file(), "no: resource\n");
    e2e::signal("USR2", kapok.pid());
    kapok.wait_for_log("not upgraded: this process goes on serving");
    assert_eq!(ask().json()["pid"], server);
    ticker.end_streams();
    assert_eq!(
        streamed.join().expect("a stream").map(|events| events > 0),
        Ok(true)
    );
}

#[test]
fn a_stopping_node_says_so_before_it_refuses() {
    let gate = e2e::Gate::new();
    let slow = Answer::events().event("{\"n\":0}").wait(&gate).done();
    let fake = FakeUpstream::start(Answer::json("{}")).route("/v1/chat", slow);
    let config = [
        document("Node", "node", &json!({"drainDelayMs": 60_000})),
        document(
            "Upstream",
            "up",
            &json!({"url": fake.url(), "models": ["m"]}),
        ),
    ];
    let kapok = Kapok::new().config(config.concat()).start();
    let streamed = stream(&kapok.http());
    e2e::signal("TERM", kapok.pid());
    wait::until("readiness to go", || {
        let answer = kapok.http().get("/health/ready");
        (answer.status == 503).then_some(())
    });
    // Load balancers have not noticed yet: what they send is answered.
    let answer = kapok.http().post("/v1/completions", r#"{"model":"m"}"#);
    assert_eq!(answer.status, 200);
    gate.open();
    assert_eq!(streamed.join().expect("a stream"), Ok(1));
    // The second signal does not wait.
    e2e::signal("TERM", kapok.pid());
}
