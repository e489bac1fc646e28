//! Limits, places and classes of the real binary, under callers that push.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use e2e::{Answer, FakeUpstream, Gate, Kapok, Running, wait};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const CHAT: &str = "/v1/chat/completions";
const CONNECTIONS: usize = 64;

fn key(limits: &str) -> String {
    let digest = Sha256::digest("sk-team");
    let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "---\napiVersion: kapok.dev/v1alpha1\nkind: Key\nmetadata: {{name: team}}\nspec:\n  sha256: {hash}\n  limits: {limits}\n"
    )
}

fn upstream(fake: &FakeUpstream, fields: &str) -> String {
    format!(
        "apiVersion: kapok.dev/v1alpha1\nkind: Upstream\nmetadata: {{name: llm}}\nspec: {{url: {:?}{fields}}}\n",
        fake.url()
    )
}

/// So many requests over all connections together; each is judged.
fn offer(
    kapok: &Running,
    requests: usize,
    body: impl Fn(usize) -> String + Sync,
    judge: impl Fn(&e2e::Response) + Sync,
) {
    let offered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let client = kapok.http().bearer("sk-team");
                let mut connection = client.open().expect("it listens");
                loop {
                    let number = offered.fetch_add(1, Ordering::SeqCst);
                    if number >= requests {
                        return;
                    }
                    let body = body(number);
                    let mut message = client.head("POST", CHAT, body.len());
                    message.extend_from_slice(body.as_bytes());
                    judge(&connection.exchange(&message).expect("an answer"));
                }
            });
        }
    });
}

#[test]
fn of_a_thousand_requests_in_a_window_for_a_hundred_at_most_101_pass() {
    let fake = FakeUpstream::start(Answer::json(r#"{"choices":[]}"#)).forgetful();
    let config = upstream(&fake, "") + &key("{requests: 100}");
    let kapok = Kapok::new().config(config).start();
    let passed = AtomicUsize::new(0);
    offer(
        &kapok,
        1000,
        |_| r#"{"model":"m","messages":[]}"#.to_owned(),
        |answer| match answer.status {
            200 => {
                passed.fetch_add(1, Ordering::SeqCst);
            }
            status => {
                assert_eq!(status, 429, "{}", answer.text());
                assert!(answer.header("retry-after").is_some());
            }
        },
    );
    let passed = passed.load(Ordering::SeqCst);
    println!("1000 offered, 100 allowed, {passed} passed");
    assert!((100..=101).contains(&passed), "{passed} passed");
}

#[test]
fn tokens_stay_within_a_hundredth_of_their_limit() {
    const LIMIT: u64 = 20_000;
    // A prompt of a token in four bytes, and answers of any length that they may have.
    let fake = FakeUpstream::answering(|request| {
        let asked: Value = serde_json::from_str(&request.text()).expect("JSON");
        let output = asked["wants"].as_u64().expect("a number");
        let prompt = request.text().len() / 4;
        Answer::json(&format!(
            r#"{{"choices":[],"usage":{{"prompt_tokens":{prompt},"completion_tokens":{output}}}}}"#
        ))
    });
    let config = upstream(&fake, "") + &key(&format!("{{tokens: {LIMIT}}}"));
    let kapok = Kapok::new().config(config).start();
    let used = AtomicU64::new(0);
    offer(
        &kapok,
        1500,
        |number| {
            let (max, text) = (20 + number % 80, "x ".repeat(50 + number % 200));
            let wants = max * (number % 10 + 1) / 10;
            format!(
                r#"{{"model":"m","max_tokens":{max},"wants":{wants},"messages":[{{"role":"user","content":"{text}"}}]}}"#
            )
        },
        |answer| {
            if answer.status == 200 {
                let usage = &answer.json()["usage"];
                let tokens =
                    ["prompt_tokens", "completion_tokens"].map(|name| usage[name].as_u64());
                used.fetch_add(tokens.iter().flatten().sum(), Ordering::SeqCst);
            } else {
                assert_eq!(answer.status, 429, "{}", answer.text());
            }
        },
    );
    let used = used.load(Ordering::SeqCst);
    println!("{LIMIT} tokens allowed, {used} used");
    assert!(used <= LIMIT + LIMIT / 100, "{used}");
    assert!(
        used >= LIMIT * 9 / 10,
        "{used}: much was refused that would have fitted"
    );
}

/// What became of one class of callers.
#[derive(Debug, Default)]
struct Became {
    answered: AtomicUsize,
    /// At once, for it would have been too late.
    shed: AtomicUsize,
    /// By their deadline, in line or at the upstream.
    late: AtomicUsize,
}

impl Became {
    fn note(&self, answer: &e2e::Response) {
        let counted = match answer.status {
            200 => &self.answered,
            503 => {
                assert!(answer.header("retry-after").is_some(), "{}", answer.text());
                &self.shed
            }
            504 => &self.late,
            status => panic!("{status}: {}", answer.text()),
        };
        counted.fetch_add(1, Ordering::SeqCst);
    }

    fn counts(&self) -> [usize; 3] {
        [&self.answered, &self.shed, &self.late].map(|count| count.load(Ordering::SeqCst))
    }
}

/// Four places, and 64 callers that would wait three times as long as they have.
#[test]
fn under_overload_realtime_is_answered_and_who_would_be_late_is_refused_at_once() {
    const REALTIME: usize = 100;
    let slow = Answer::new().pause(Duration::from_millis(20));
    let fake = FakeUpstream::start(slow.append(Answer::json(r#"{"choices":[]}"#)));
    let route = "---\napiVersion: kapok.dev/v1alpha1\nkind: Route\nmetadata: {name: m}\nspec: {models: [m], targets: [{upstream: llm}], priority: realtime}\n";
    let config = upstream(&fake, ", maxInFlight: 4") + route;
    let kapok = Kapok::new().config(config).allow_log("upstream").start();
    let (realtime, bulk) = (Became::default(), Became::default());
    let left = AtomicUsize::new(REALTIME);
    let body = r#"{"model":"m","messages":[]}"#;
    let ask = |class: &str, deadline_ms: &str, became: &Became, more: &dyn Fn() -> bool| {
        let client = kapok.http().header("x-request-priority", class);
        let client = client.header("x-request-timeout-ms", deadline_ms);
        let mut message = client.head("POST", CHAT, body.len());
        message.extend_from_slice(body.as_bytes());
        let mut connection = client.open().expect("it listens");
        while more() {
            became.note(&connection.exchange(&message).expect("an answer"));
        }
    };
    let take = || {
        let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            left.checked_sub(1)
        });
        taken.is_ok()
    };
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| ask("bulk", "100", &bulk, &|| left.load(Ordering::SeqCst) > 0));
        }
        for _ in 0..2 {
            scope.spawn(|| ask("realtime", "30000", &realtime, &take));
        }
    });
    let worked = fake.received().len();
    println!("{worked} reached the upstream; realtime {realtime:?}, bulk {bulk:?}");
    assert_eq!(
        realtime.counts(),
        [REALTIME, 0, 0],
        "realtime waits for nobody"
    );
    let [answered, shed, late] = bulk.counts();
    assert!(answered > 0, "bulk is not starved");
    assert!(shed > late, "who would be late is told at once");
    let in_time = REALTIME + answered;
    let waste = worked - in_time;
    assert!(waste <= late, "who was refused was sent all the same");
    // The line knows when a turn comes, and not how long an answer takes: of those whose turn comes just in time, some
    // are answered too late.
    assert!(
        in_time >= worked / 3,
        "{in_time} in time of {worked} that the upstream worked on"
    );
}

#[test]
fn explain_says_who_stood_in_line() {
    let gate = Gate::new();
    let held = Answer::new().wait(&gate);
    let held = held.append(Answer::json(r#"{"choices":[]}"#));
    let fake = FakeUpstream::start(held);
    let kapok = Kapok::new()
        .config(upstream(&fake, ", maxInFlight: 1"))
        .start();
    let body = r#"{"model":"m","messages":[]}"#;
    std::thread::scope(|scope| {
        let first = scope.spawn(|| kapok.http().post(CHAT, body));
        // Probes ask for other things.
        wait::until("the first is there", || {
            let received = fake.received();
            let mut asked = received.iter().map(|request| request.method.as_str());
            asked.any(|method| method == "POST").then_some(())
        });
        let second = scope.spawn(|| {
            let client = kapok.http().header("x-request-id", "second");
            client.header("x-request-priority", "bulk").post(CHAT, body)
        });
        wait::until("it stands in line", || {
            let metrics = kapok.http().get("/metrics").text();
            metrics
                .contains("kapok_gateway_queue_depth{class=\"bulk\"} 1")
                .then_some(())
        });
        gate.open();
        assert_eq!(first.join().expect("no panic").status, 200);
        assert_eq!(second.join().expect("no panic").status, 200);
    });
    let explained = kapok.cli(&["explain", "second"]);
    assert!(
        explained.stdout.contains("stood in line for"),
        "{}",
        explained.stdout
    );
    assert!(
        explained.stdout.contains("as `bulk`"),
        "{}",
        explained.stdout
    );
}
