//! What one upstream does not answer another does, as far as the retry law goes.

use serde_json::{Value, json as value};

use super::upstream::{FakeUpstream, IDLE_MS, Step, json, send};
use super::{Served, eventually};
use crate::snapshot::tests::{route, upstream};

const CHAT: &str = "/v1/chat/completions";
const ASK: &str = "{\"model\":\"m\"}";

/// A route whose first target has all the weight, and whose fallback are the others in order.
pub(super) struct Fleet {
    pub(super) served: Served,
    pub(super) fakes: Vec<FakeUpstream>,
}

impl Fleet {
    pub(super) async fn start(scripts: Vec<Vec<Vec<Step>>>) -> Self {
        Self::with(scripts, &value!({}), &value!({})).await
    }

    pub(super) async fn with(
        scripts: Vec<Vec<Vec<Step>>>,
        of_route: &Value,
        of_upstreams: &Value,
    ) -> Self {
        let served = Served::start(&[]);
        let mut fakes = Vec::new();
        let mut resources = Vec::new();
        let mut names = Vec::new();
        for (script, name) in scripts.into_iter().zip(["a", "b", "c"]) {
            let fake = FakeUpstream::start(&served.tasks, script).await;
            let mut fields = value!({
                "url": fake.url(), "models": [], "idleTimeoutMs": IDLE_MS,
                // Nobody but the test asks.
                "load": {"intervalMs": 0}, "health": {"path": ""},
            });
            for (key, field) in of_upstreams.as_object().expect("fields") {
                fields[key] = field.clone();
            }
            resources.push(upstream(name, fields));
            fakes.push(fake);
            names.push(name);
        }
        let mut spec = value!({
            "models": ["m"],
            "targets": [{"upstream": names[0]}],
            "fallback": names[1..].iter().map(|name| value!({"upstream": name})).collect::<Vec<_>>(),
        });
        for (key, field) in of_route.as_object().expect("fields") {
            spec[key] = field.clone();
        }
        let mut way = route("way", &["m"], &[("a", 1)]);
        way.spec = protocol::resource::Spec::Route(serde_json::from_value(spec).expect("a route"));
        resources.push(way);
        served.gateway.publish(&resources).expect("good resources");
        Self { served, fakes }
    }

    pub(super) fn asked(&self) -> Vec<usize> {
        let fakes = self.fakes.iter();
        fakes.map(|fake| fake.requests().len()).collect()
    }
}

fn status(code: u16, headers: &str) -> Step {
    let body = format!("{{\"error\":{{\"message\":\"said {code}\"}}}}");
    let length = body.len();
    send(&format!(
        "HTTP/1.1 {code} Word\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}"
    ))
}

#[tokio::test]
async fn what_one_refuses_or_breaks_another_answers() {
    for (name, fault) in [
        ("429", status(429, "")),
        ("429 with a time", status(429, "retry-after: 2\r\n")),
        ("500", status(500, "")),
        ("502", status(502, "")),
        ("503", status(503, "")),
        ("504", status(504, "")),
        ("529", status(529, "")),
        ("closed without an answer", Step::Close),
        ("no HTTP", send("SSH-2.0-OpenSSH_9.2\r\n\r\n")),
    ] {
        let fleet = Fleet::start(vec![
            vec![vec![fault]],
            vec![vec![json("{\"from\":\"b\"}")]],
        ])
        .await;
        let got = fleet.served.post(CHAT, ASK).await;
        assert_eq!(
            (got.status, got.text()),
            (200, "{\"from\":\"b\"}"),
            "{name}"
        );
        assert_eq!(fleet.asked(), [1, 1], "{name}");
        let record = fleet.served.settled(got.request_id()).await;
        assert_eq!(&*record.target, "b", "{name}");
        assert!(
            record.reason.starts_with("`a` was asked before: "),
            "{}",
            record.reason
        );
        assert!(record.complete, "{name}");
    }
}

#[tokio::test]
async fn what_the_request_itself_is_to_blame_for_is_the_clients_to_read() {
    for code in [400, 401, 403, 404, 408, 413, 422, 501] {
        let fleet = Fleet::start(vec![vec![vec![status(code, "")]], vec![vec![json("{}")]]]).await;
        let got = fleet.served.post(CHAT, ASK).await;
        assert_eq!(got.status, code);
        assert!(
            got.text().contains(&format!("said {code}")),
            "{}",
            got.text()
        );
        assert_eq!(fleet.asked(), [1, 0], "{code}");
    }
}

#[tokio::test]
async fn no_upstream_sees_a_request_twice_and_the_refusal_that_tells_most_is_passed_on() {
    let busy = status(503, "retry-after: 7\r\n");
    let fleet = Fleet::start(vec![
        vec![vec![busy]],
        vec![vec![status(500, "")]],
        vec![vec![Step::Close]],
    ])
    .await;
    let got = fleet.served.post(CHAT, ASK).await;
    assert_eq!((got.status, got.header("retry-after")), (503, Some("7")));
    assert!(got.text().contains("said 503"), "{}", got.text());
    assert_eq!(fleet.asked(), [1, 1, 1]);
    let record = fleet.served.settled(got.request_id()).await;
    assert_eq!(&*record.target, "a");
}

#[tokio::test]
async fn errors_of_all_that_were_asked_are_told() {
    let fleet = Fleet::start(vec![vec![vec![Step::Close]], vec![vec![Step::Close]]]).await;
    let got = fleet.served.post(CHAT, ASK).await;
    assert_eq!(got.status, 502);
    for name in ["upstream `a` closed", "upstream `b` closed"] {
        assert!(got.text().contains(name), "{}", got.text());
    }
}

#[tokio::test]
async fn what_may_have_been_obeyed_is_not_asked_for_again() {
    let body = "{\"model\":\"m\",\"input\":\"x\"}";
    for (rule, path, asked) in [
        // A response is stored: it would be there twice.
        ("auto", "/v1/responses", [1, 0]),
        ("auto", CHAT, [1, 1]),
        ("auto", "/v1/audio/speech", [1, 1]),
        ("never", CHAT, [1, 0]),
        ("always", "/v1/responses", [1, 1]),
    ] {
        let scripts = vec![vec![vec![Step::Close]], vec![vec![json("{}")]]];
        let retry = value!({"retry": {"replay": rule}});
        let fleet = Fleet::with(scripts, &retry, &value!({})).await;
        let got = fleet.served.post(path, body).await;
        assert_eq!(
            got.status,
            if asked[1] == 1 { 200 } else { 502 },
            "{rule} {path}"
        );
        assert_eq!(fleet.asked(), asked, "{rule} {path}");
    }
    // What was refused was not done.
    let scripts = vec![vec![vec![status(503, "")]], vec![vec![json("{}")]]];
    let fleet = Fleet::with(
        scripts,
        &value!({"retry": {"replay": "never"}}),
        &value!({}),
    )
    .await;
    assert_eq!(fleet.served.post("/v1/responses", body).await.status, 200);
}

#[tokio::test]
async fn a_silent_upstream_is_not_waited_for_alone_and_not_given_up() {
    // Nothing comes from the first: the second is asked long before the caller stops waiting, and wins.
    let fleet = Fleet::start(vec![
        vec![vec![Step::UntilGone]],
        vec![vec![json("{\"from\":\"b\"}")]],
    ])
    .await;
    let headers = "x-stainless-read-timeout: 0.6\r\n";
    let got = fleet
        .served
        .ask("POST", CHAT, headers, ASK.as_bytes())
        .await;
    assert_eq!((got.status, got.text()), (200, "{\"from\":\"b\"}"));
    eventually("the silent one is let go", || fleet.fakes[0].gone() == 1).await;

    // The first is slow and the second silent: the first answers after all.
    let slow = vec![Step::Wait, json("{\"from\":\"a\"}")];
    let fleet = Fleet::start(vec![vec![slow], vec![vec![Step::UntilGone]]]).await;
    let mut client = fleet.served.client().await;
    let headers = "x-stainless-read-timeout: 3\r\n";
    client.send("POST", CHAT, headers, ASK.as_bytes()).await;
    eventually("the second is asked", || fleet.asked() == [1, 1]).await;
    fleet.fakes[0].proceed();
    let got = client.answer().await;
    assert_eq!((got.status, got.text()), (200, "{\"from\":\"a\"}"));
    eventually("the loser is let go", || fleet.fakes[1].gone() == 1).await;
    let record = fleet.served.settled(got.request_id()).await;
    assert_eq!(&*record.target, "a");
}

#[tokio::test]
async fn a_hedge_is_asked_early_and_the_loser_is_cancelled() {
    let scripts = vec![
        vec![vec![Step::UntilGone]],
        vec![vec![json("{\"from\":\"b\"}")]],
    ];
    let fleet = Fleet::with(scripts, &value!({"hedge": {"afterMs": 20}}), &value!({})).await;
    let got = fleet.served.post(CHAT, ASK).await;
    assert_eq!(got.text(), "{\"from\":\"b\"}");
    eventually("the loser is let go", || fleet.fakes[0].gone() == 1).await;
    assert_eq!(fleet.served.gateway.upstreams()[0].in_flight, 0);
}

#[tokio::test]
async fn under_a_total_outage_nearly_every_request_is_asked_once() {
    let fleet = Fleet::start(vec![vec![vec![Step::Close]], vec![vec![Step::Close]]]).await;
    let requests = 600;
    let mut client = fleet.served.client().await;
    let mut told = 0;
    for _ in 0..requests {
        let got = client.ask("POST", CHAT, "", ASK.as_bytes()).await;
        assert_eq!(got.status, 502);
        told += usize::from(got.header("x-should-retry") == Some("false"));
    }
    let attempts: usize = fleet.asked().iter().sum();
    assert!(attempts <= requests + 100, "{attempts}");
    assert!(told >= requests - 100, "{told} were told not to try again");
    let metrics = fleet.served.get("/metrics").await;
    assert!(
        metrics
            .text()
            .contains("kapok_gateway_retries_refused_total")
    );
}

#[tokio::test]
async fn an_upstream_that_asks_for_a_pause_gets_it() {
    for busy in [
        status(503, "retry-after: 60\r\n"),
        status(429, "retry-after-ms: 60000\r\n"),
    ] {
        let fleet = Fleet::start(vec![vec![vec![busy]], vec![vec![json("{}")]]]).await;
        for _ in 0..5 {
            assert_eq!(fleet.served.post(CHAT, ASK).await.status, 200);
        }
        assert_eq!(fleet.asked(), [1, 5]);
    }
    // Nobody else is there: it is asked all the same, and says again what it has to say.
    let fleet = Fleet::start(vec![vec![vec![status(503, "retry-after: 60\r\n")]]]).await;
    for _ in 0..3 {
        let got = fleet.served.post(CHAT, ASK).await;
        assert_eq!((got.status, got.header("retry-after")), (503, Some("60")));
    }
    assert_eq!(fleet.asked(), [3]);
}

#[tokio::test]
async fn a_clients_own_rate_limit_is_no_pause_for_others() {
    let busy = status(429, "retry-after: 60\r\n");
    let fleet = Fleet::start(vec![
        vec![vec![busy], vec![json("{\"from\":\"a\"}")]],
        vec![vec![json("{}")]],
    ])
    .await;
    let ask = async |key: &str| {
        let headers = format!("authorization: Bearer {key}\r\n");
        fleet
            .served
            .ask("POST", CHAT, &headers, ASK.as_bytes())
            .await
    };
    assert_eq!(ask("anne").await.text(), "{}");
    assert_eq!(ask("bob").await.text(), "{\"from\":\"a\"}");
}

#[tokio::test]
async fn one_caller_cannot_open_the_breaker_for_another() {
    let fault = vec![Step::Close];
    let mut script = vec![fault; 6];
    script.push(vec![json("{\"from\":\"a\"}")]);
    let fleet = Fleet::start(vec![script, vec![vec![json("{\"from\":\"b\"}")]]]).await;
    let ask = async |key: &str| {
        let headers = format!("authorization: Bearer {key}\r\n");
        fleet
            .served
            .ask("POST", CHAT, &headers, ASK.as_bytes())
            .await
    };
    for _ in 0..8 {
        assert_eq!(ask("anne").await.text(), "{\"from\":\"b\"}");
    }
    assert_eq!(
        fleet.asked(),
        [5, 8],
        "after five failures it is left alone, by her"
    );
    assert_eq!(ask("bob").await.text(), "{\"from\":\"b\"}");
    assert_eq!(
        ask("bob").await.text(),
        "{\"from\":\"a\"}",
        "for him it works"
    );
    assert_eq!(ask("anne").await.text(), "{\"from\":\"b\"}");
}

#[tokio::test]
async fn bad_requests_and_callers_that_leave_count_against_nobody() {
    let mut script = vec![vec![status(400, "")]; 20];
    script.push(vec![json("{\"from\":\"a\"}")]);
    let fleet = Fleet::start(vec![script, vec![vec![json("{\"from\":\"b\"}")]]]).await;
    for _ in 0..20 {
        assert_eq!(fleet.served.post(CHAT, ASK).await.status, 400);
    }
    assert_eq!(
        fleet.served.post(CHAT, ASK).await.text(),
        "{\"from\":\"a\"}"
    );
    assert_eq!(fleet.asked(), [21, 0]);
}

#[tokio::test]
async fn a_changed_configuration_does_not_fill_the_budget() {
    let served = Served::start(&[]);
    let fake = FakeUpstream::start(&served.tasks, vec![vec![Step::Close]]).await;
    let fields = value!({"url": fake.url(), "models": ["m"]});
    let resources = [upstream("a", fields.clone()), upstream("b", fields)];
    let requests = 300;
    for _ in 0..requests {
        served.gateway.publish(&resources).expect("good resources");
        assert_eq!(served.post(CHAT, ASK).await.status, 502);
    }
    let attempts = fake.requests().len();
    assert!(attempts <= requests + 100, "{attempts}");
}
