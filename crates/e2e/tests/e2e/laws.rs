//! Laws of the gateway that hold whatever upstreams and callers do: of retries, and of the breaker.

use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::client::{Client, Connection, Response};
use e2e::{Answer, FakeUpstream, Kapok, Running};
use sha2::{Digest as _, Sha256};

const CHAT: &str = "/v1/chat/completions";
const CONNECTIONS: usize = 16;

fn upstream(name: &str, fake: &FakeUpstream) -> String {
    format!(
        "apiVersion: kapok.dev/v1alpha1\nkind: Upstream\nmetadata: {{name: {name}}}\nspec: {{url: {:?}, models: [m]}}\n---\n",
        fake.url()
    )
}

fn key(name: &str) -> String {
    let digest = Sha256::digest(format!("sk-{name}"));
    let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "apiVersion: kapok.dev/v1alpha1\nkind: Key\nmetadata: {{name: {name}}}\nspec: {{sha256: {hash}}}\n---\n"
    )
}

/// A connection that is opened again when the other side closes it.
struct Caller {
    client: Client,
    connection: Option<Connection>,
}

impl Caller {
    fn of(client: Client) -> Self {
        Self {
            client,
            connection: None,
        }
    }

    fn post(&mut self, body: &str) -> Response {
        let mut message = self.client.head("POST", CHAT, body.len());
        message.extend_from_slice(body.as_bytes());
        if let Some(mut connection) = self.connection.take()
            && let Ok(answer) = connection.exchange(&message)
        {
            self.connection = Some(connection);
            return answer;
        }
        let mut connection = self.client.open().expect("it listens");
        let answer = connection.exchange(&message).expect("an answer");
        self.connection = Some(connection);
        answer
    }
}

/// So many requests over all connections together.
fn offer(kapok: &Running, requests: usize, judge: impl Fn(Response) + Sync) {
    let offered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut caller = Caller::of(kapok.http());
                while offered.fetch_add(1, Ordering::SeqCst) < requests {
                    judge(caller.post(r#"{"model":"m","messages":[]}"#));
                }
            });
        }
    });
}

#[test]
fn a_total_outage_is_not_multiplied() {
    const OFFERED: usize = 10_000;
    const ATTEMPTS_MAX: usize = 11_000;
    let error = |status| {
        Answer::status(
            status,
            r#"{"error":{"message":"down","type":"server_error","param":null,"code":null}}"#,
        )
    };
    let down = [
        FakeUpstream::start(error(500)),
        FakeUpstream::start(error(503)),
        FakeUpstream::start(Answer::reset()),
    ];
    let config = ["one", "two", "three"].iter().zip(&down);
    let config: String = config.map(|(name, fake)| upstream(name, fake)).collect();
    let kapok = Kapok::new().config(config).allow_log("upstream").start();
    let told = AtomicUsize::new(0);
    offer(&kapok, OFFERED, |answer| {
        assert!(answer.status >= 500, "{} {}", answer.status, answer.text());
        assert!(answer.json()["error"].is_object(), "{}", answer.text());
        told.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(told.load(Ordering::SeqCst), OFFERED);
    let attempts = down.iter().map(|fake| fake.received().len());
    let attempts: Vec<_> = attempts.collect();
    let sum: usize = attempts.iter().sum();
    println!("{OFFERED} requests, {sum} attempts {attempts:?}");
    assert!(sum <= ATTEMPTS_MAX, "{attempts:?}");
    assert!(sum >= 1, "nothing was ever tried");
}

/// Answers by what the body asks for.
fn obedient() -> FakeUpstream {
    FakeUpstream::answering(|request| {
        if request.method == "GET" {
            return Answer::json("{}");
        }
        let text = request.text();
        let refused = |status, code: &str| {
            let body = format!(
                r#"{{"error":{{"message":"no","type":"invalid_request_error","param":null,"code":"{code}"}}}}"#
            );
            Answer::status(status, &body)
        };
        match text {
            text if text.contains("bad-400") => refused(400, "bad"),
            text if text.contains("bad-422") => refused(422, "bad"),
            text if text.contains("bad-500") => refused(500, "poison"),
            text if text.contains("bad-slow") => Answer::silent(),
            text if text.contains("bad-cut") => Answer::events().event("{}").then_silence(),
            _ => Answer::json(r#"{"choices":[]}"#),
        }
    })
}

/// Sends it, waits until the upstream has it, and leaves.
fn abort(client: &Client, fake: &FakeUpstream, body: &str) {
    let before = fake.received().len();
    let mut connection = client.open().expect("it listens");
    let mut message = client.head("POST", CHAT, body.len());
    message.extend_from_slice(body.as_bytes());
    connection.send(&message).expect("open");
    fake.wait_for_requests(before + 1);
}

const WELL: &str = r#"{"model":"m","messages":[]}"#;

/// A route with a first server and a spare one, and two keys. An upstream that stands alone is asked whatever is thought
/// of it; here a breaker that is open shows in who answers.
struct Two {
    first: FakeUpstream,
    spare: FakeUpstream,
    kapok: Running,
}

impl Two {
    fn start() -> Self {
        let first = obedient();
        let spare = FakeUpstream::start(Answer::json(r#"{"choices":[]}"#));
        let route = "apiVersion: kapok.dev/v1alpha1\nkind: Route\nmetadata: {name: m}\nspec: {models: [m], \
                     targets: [{upstream: first}], fallback: [{upstream: spare}]}\n---\n";
        let config = upstream("first", &first)
            + &upstream("spare", &spare)
            + route
            + &key("bad")
            + &key("good");
        let kapok = Kapok::new().config(config).allow_log("upstream").start();
        Self {
            first,
            spare,
            kapok,
        }
    }

    fn bad(&self) -> Client {
        self.kapok.http().bearer("sk-bad")
    }

    /// The good key's requests are answered, and by the first server.
    fn good_is_well(&self, after: &str) {
        let answered = |fake: &FakeUpstream| {
            let all = fake.received().into_iter();
            all.filter(|request| request.body == WELL.as_bytes())
                .count()
        };
        let (first, spare) = (answered(&self.first), answered(&self.spare));
        let mut good = Caller::of(self.kapok.http().bearer("sk-good"));
        for _ in 0..20 {
            let answer = good.post(WELL);
            assert_eq!(answer.status, 200, "after {after}: {}", answer.text());
        }
        let now = (answered(&self.first), answered(&self.spare));
        assert_eq!(now, (first + 20, spare), "after {after}");
    }
}

#[test]
fn one_keys_bad_requests_harm_no_other_key() {
    let two = Two::start();
    let mut bad = Caller::of(two.bad());
    two.good_is_well("nothing");
    // One after the other, so that nothing of the good key's comes between what might be counted in a row.
    for (what, status) in [("bad-400", 400), ("bad-422", 422)] {
        let body = format!(r#"{{"model":"m","messages":["{what}"]}}"#);
        for _ in 0..200 {
            assert_eq!(bad.post(&body).status, status, "{what}");
        }
        let all = two.spare.received();
        assert!(all.iter().all(|request| request.method == "GET"), "{what}");
        two.good_is_well(what);
    }
    for what in ["bad-slow", "bad-cut"] {
        let body = format!(r#"{{"model":"m","stream":true,"messages":["{what}"]}}"#);
        for _ in 0..50 {
            abort(&two.bad(), &two.first, &body);
        }
        two.good_is_well(what);
    }
    assert_eq!(bad.post(WELL).status, 200, "and it may mend its ways");
}

#[test]
fn a_poisonous_request_of_one_key_harms_no_other_key() {
    let two = Two::start();
    let mut bad = Caller::of(two.bad());
    let poison = r#"{"model":"m","messages":["bad-500"]}"#;
    for _ in 0..200 {
        bad.post(poison);
    }
    let all = two.first.received();
    let failed = all
        .iter()
        .filter(|request| request.method == "POST")
        .count();
    // It closed the way for itself: what comes now could have been anybody's, were failures counted for all.
    assert!((1..200).contains(&failed), "{failed} of 200");
    two.good_is_well("500");
}
