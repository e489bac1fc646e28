use serde_json::json as value;

use super::client::Client;
use super::upstream::{FakeUpstream, IDLE_MS, Step, chunk, json, send, stream_head};
use super::{Served, booked, eventually};
use crate::snapshot::tests::upstream;

const CHAT: &str = "/v1/chat/completions";

async fn start(scripts: Vec<Vec<Step>>) -> (Served, FakeUpstream) {
    start_with(scripts, value!({})).await
}

async fn start_with(
    scripts: Vec<Vec<Step>>,
    mut fields: serde_json::Value,
) -> (Served, FakeUpstream) {
    let served = Served::start(&[]);
    let fake = FakeUpstream::start(&served.tasks, scripts).await;
    fields["url"] = fake.url().into();
    fields["models"] = value!(["m"]);
    if fields.get("idleTimeoutMs").is_none() {
        fields["idleTimeoutMs"] = IDLE_MS.into();
    }
    served
        .gateway
        .publish(&[upstream("up", fields)])
        .expect("good resources");
    (served, fake)
}

#[tokio::test]
async fn bytes_pass_unchanged_both_ways() {
    let answer = "{\"b\": 1,  \"a\":0.70, \"x_unknown\" : [] }";
    let (served, fake) = start(vec![vec![json(answer)]]).await;
    let body =
        "{\"model\" : \"m\",\"x_unknown\":{\"a\":1e0},\"temperature\":0.70, \"a\":\"\\u00e9\"}";
    let headers = "content-type: application/json\r\nauthorization: Bearer client\r\n\
                   connection: x-hop\r\nx-hop: 1\r\nx-custom: Kept As Is\r\nx-request-id: mine-1\r\n";
    let got = served
        .ask(
            "POST",
            "/v1/chat/completions?x=%20y",
            headers,
            body.as_bytes(),
        )
        .await;
    assert_eq!((got.status, got.text()), (200, answer));
    assert_eq!(got.request_id(), "mine-1");
    assert!(
        got.header("server-timing")
            .expect("a timing")
            .contains("upstream;dur=")
    );

    let request = &fake.requests()[0];
    let (head, sent) = request.split_once("\r\n\r\n").expect("a head");
    assert_eq!(sent, body);
    assert!(
        head.starts_with("POST /v1/chat/completions?x=%20y HTTP/1.1\r\n"),
        "{head}"
    );
    for line in [
        "x-custom: Kept As Is",
        "x-request-id: mine-1",
        "authorization: Bearer client",
        &format!("content-length: {}", body.len()),
    ] {
        assert!(
            head.lines().any(|have| have == line),
            "{line} is missing in {head}"
        );
    }
    assert!(
        !head.contains("x-request-timeout-ms"),
        "our default is not the caller's deadline: {head}"
    );
    assert!(!head.contains("x-hop"), "{head}");

    let record = served.settled("mine-1").await;
    assert_eq!((&*record.target, record.model.as_str()), ("up", "m"));
    assert_eq!(record.reason, "upstream `up` lists the model");
    assert!(record.complete);
    let sum: f64 = record.stages.iter().map(|stage| stage.ms).sum();
    assert!((sum - record.total_ms).abs() < 1e-6, "{record:?}");
}

#[tokio::test]
async fn the_upstreams_own_key_and_id_replace_the_clients() {
    let answer = send("HTTP/1.1 200 OK\r\nx-request-id: theirs\r\ncontent-length: 2\r\n\r\n{}");
    let (served, fake) =
        start_with(vec![vec![answer]], value!({"apiKey": {"value": "secret"}})).await;
    let got = served
        .ask(
            "POST",
            CHAT,
            "authorization: Bearer client\r\n",
            b"{\"model\":\"m\"}",
        )
        .await;
    assert_eq!(got.header("x-upstream-request-id"), Some("theirs"));
    assert!(got.request_id().starts_with("req-"));
    let request = &fake.requests()[0];
    assert!(
        request.contains("authorization: Bearer secret\r\n"),
        "{request}"
    );
    assert!(!request.contains("client"), "{request}");
}

#[tokio::test]
async fn what_is_left_of_the_callers_deadline_is_passed_on() {
    let (served, fake) = start(vec![vec![json("{}")]]).await;
    let headers = "x-request-timeout-ms: 60000\r\n";
    let got = served
        .ask("POST", CHAT, headers, b"{\"model\":\"m\"}")
        .await;
    assert_eq!(got.status, 200);
    let request = &fake.requests()[0];
    let said = request
        .lines()
        .find_map(|line| line.strip_prefix("x-request-timeout-ms: "));
    let left: u64 = said.and_then(|text| text.parse().ok()).expect("a number");
    assert!((1..=60_000).contains(&left), "{left}");
}

#[tokio::test]
async fn a_chunked_answer_with_a_wrong_length_beside_it_is_relayed_whole() {
    let both = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\
                transfer-encoding: chunked\r\n\r\n7\r\n{\"a\":1}\r\n0\r\n\r\n";
    let (served, _fake) = start(vec![vec![send(both)]]).await;
    let got = served.post(CHAT, "{\"model\":\"m\"}").await;
    assert_eq!(got.text(), "{\"a\":1}");
    assert_eq!(got.header("content-length"), None);
    assert!(got.whole);
}

#[tokio::test]
async fn events_arrive_one_by_one_as_they_were_sent() {
    let steps = vec![
        stream_head(),
        chunk("data: {\"n\":1}\n\n"),
        Step::Wait,
        chunk("data: {\"n\""),
        Step::Wait,
        chunk(":2}\n\ndata: [DONE]\n\n"),
        send("0\r\n\r\n"),
    ];
    let (served, fake) = start(vec![steps]).await;
    let mut client = served.client().await;
    client
        .send("POST", CHAT, "", b"{\"model\":\"m\",\"stream\":true}")
        .await;
    let head = client.head().await;
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    let timings: Vec<_> = head
        .headers
        .iter()
        .filter(|(name, _)| name == "server-timing")
        .collect();
    assert_eq!(timings.len(), 2, "the upstream's and ours");
    // Each part is here before the next is sent.
    assert_eq!(client.chunk().await.expect("1"), b"data: {\"n\":1}\n\n");
    // An event that is cut could not be taken back, so it leaves when it is whole.
    fake.proceed();
    fake.proceed();
    let rest = b"data: {\"n\":2}\n\ndata: [DONE]\n\n";
    assert_eq!(client.chunk().await.expect("2"), rest);
    assert_eq!(client.chunk().await.expect("end"), b"");
    assert!(served.settled(head.request_id()).await.complete);
}

#[tokio::test]
async fn a_cut_stream_ends_with_an_error_and_without_done() {
    let event = "data: {\"n\":1}\n\n";
    for (name, steps) in [
        (
            "cut between events",
            vec![stream_head(), chunk(event), Step::Close],
        ),
        (
            "cut in a chunk",
            vec![
                stream_head(),
                chunk(event),
                send("ff\r\ndata: "),
                Step::Close,
            ],
        ),
        (
            "ended without done",
            vec![stream_head(), chunk(event), send("0\r\n\r\n")],
        ),
    ] {
        let (served, _fake) = start(vec![steps]).await;
        let got = served.post(CHAT, "{\"model\":\"m\",\"stream\":true}").await;
        let text = got.text();
        assert!(text.starts_with(event), "{name}: {text}");
        assert!(!text.contains("[DONE]\n"), "{name}: {text}");
        let last = text.trim_end().rsplit("data: ").next().expect("an event");
        let error: serde_json::Value = serde_json::from_str(last).expect(name);
        let message = error["error"]["message"].as_str().expect("a message");
        assert!(message.contains("upstream `up`"), "{name}: {message}");
        let record = served.settled(got.request_id()).await;
        assert!(!record.complete, "{name}");
        assert_eq!(record.error.as_deref(), Some(message), "{name}");
    }
}

#[tokio::test]
async fn a_cut_answer_of_known_length_is_cut_for_the_client_too() {
    let steps = vec![
        send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"half\":"),
        Step::Wait,
        Step::Close,
    ];
    let (served, fake) = start(vec![steps]).await;
    let mut client = served.client().await;
    client.send("POST", CHAT, "", b"{\"model\":\"m\"}").await;
    let head = client.head().await;
    assert_eq!(head.header("content-length"), Some("100"));
    fake.proceed();
    assert!(client.closed().await, "before the 100 bytes are there");
    let record = served.settled(head.request_id()).await;
    assert!(!record.complete);
    assert!(
        record
            .error
            .as_deref()
            .is_some_and(|error| error.contains("in the middle"))
    );
}

#[tokio::test]
async fn silence_is_bounded_before_and_within_an_answer() {
    let (served, fake) =
        start_with(vec![vec![Step::UntilGone]], value!({"idleTimeoutMs": 20})).await;
    let got = served.post(CHAT, "{\"model\":\"m\"}").await;
    assert_eq!(got.status, 504);
    assert_eq!(
        got.json()["error"]["message"],
        "upstream `up` did not answer within 20 ms"
    );
    let record = served.settled(got.request_id()).await;
    let waited = booked(&record, telemetry::Stage::Upstream);
    assert!(waited >= 19.0, "{record:?}");
    eventually("the upstream is let go", || fake.gone() == 1).await;

    let steps = vec![stream_head(), chunk("data: {}\n\n"), Step::UntilGone];
    let (served, fake) = start_with(vec![steps], value!({"idleTimeoutMs": 20})).await;
    let got = served.post(CHAT, "{\"model\":\"m\",\"stream\":true}").await;
    assert!(
        got.text().contains("sent nothing for 20 ms"),
        "{}",
        got.text()
    );
    eventually("the upstream is let go", || fake.gone() == 1).await;
}

#[tokio::test]
async fn the_callers_own_deadline_counts() {
    for (header, part) in [
        ("x-request-timeout-ms: 20\r\n", "did not answer within"),
        (
            "x-stainless-read-timeout: 0.02\r\n",
            "did not answer within 20 ms",
        ),
    ] {
        let (served, _fake) = start(vec![vec![Step::UntilGone]]).await;
        let got = served.ask("POST", CHAT, header, b"{\"model\":\"m\"}").await;
        assert_eq!(got.status, 504, "{header}");
        assert!(got.text().contains(part), "{}", got.text());
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_the_upstream_call_with_it() {
    for steps in [
        vec![Step::UntilGone],
        vec![stream_head(), chunk("data: {}\n\n"), Step::UntilGone],
    ] {
        let streaming = steps.len() > 1;
        let (served, fake) = start(vec![steps]).await;
        let mut client = served.client().await;
        client
            .send("POST", CHAT, "x-request-id: left\r\n", b"{\"model\":\"m\"}")
            .await;
        if streaming {
            client.head().await;
            client.chunk().await.expect("the first event");
        }
        eventually("the upstream is asked", || fake.requests().len() == 1).await;
        drop(client);
        eventually("the upstream is let go", || fake.gone() == 1).await;
        let record = served.settled("left").await;
        assert!(!record.complete);
        assert_eq!(record.status, if streaming { 200 } else { 499 });
        assert_eq!(served.gateway.upstreams()[0].in_flight, 0);
    }
}

#[tokio::test]
async fn connections_are_used_again_unless_the_upstream_closed_them() {
    let (served, fake) = start(vec![vec![json("{}")]]).await;
    for _ in 0..5 {
        assert_eq!(served.post(CHAT, "{\"model\":\"m\"}").await.status, 200);
    }
    assert_eq!(fake.connections(), 1);
    assert_eq!(served.gateway.upstreams()[0].idle_connections, 1);

    // It closes after each answer without having said so.
    let (served, fake) = start(vec![vec![json("{}"), Step::Close]]).await;
    for _ in 0..5 {
        assert_eq!(served.post(CHAT, "{\"model\":\"m\"}").await.status, 200);
    }
    assert_eq!((fake.connections(), fake.requests().len()), (5, 5));

    // An answer that asks for it is believed, whatever its framing.
    let closing = send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}");
    let (served, _fake) = start(vec![vec![closing]]).await;
    let got = served.post(CHAT, "{\"model\":\"m\"}").await;
    assert_eq!((got.status, got.header("connection")), (200, None));
    assert_eq!(served.gateway.upstreams()[0].idle_connections, 0);
}

#[tokio::test]
async fn nothing_that_was_written_is_sent_twice() {
    let (served, fake) = start(vec![vec![json("{}")], vec![Step::Close]]).await;
    assert_eq!(served.post(CHAT, "{\"model\":\"m\"}").await.status, 200);
    // The second goes over the pooled connection, is read, and gets no answer.
    let got = served.post(CHAT, "{\"model\":\"m\"}").await;
    assert_eq!(got.status, 502);
    assert!(got.text().contains("without answering"), "{}", got.text());
    assert_eq!(fake.requests().len(), 2);
}

#[tokio::test]
async fn what_the_upstream_refuses_is_the_clients_to_read() {
    let refusal = "{\"error\":{\"message\":\"slow down\"}}";
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: {}\r\n\r\n{refusal}",
        refusal.len()
    );
    let (served, fake) = start(vec![vec![send(&answer)]]).await;
    let got = served.post(CHAT, "{\"model\":\"m\"}").await;
    assert_eq!((got.status, got.text()), (429, refusal));
    assert_eq!(got.header("retry-after"), Some("7"));
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_named_without_its_key() {
    // A port that was free a moment ago, and that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let fields = value!({"url": url, "models": ["m"], "apiKey": {"value": "hunter2"}});
    let served = Served::start(&[upstream("gone", fields)]);
    let got = served.post(CHAT, "{\"model\":\"m\"}").await;
    assert_eq!(got.status, 502);
    let error = &got.json()["error"];
    assert_eq!(error["code"], "upstream_error");
    let message = error["message"].as_str().expect("a message");
    assert!(
        message.starts_with("upstream `gone` is not reachable"),
        "{message}"
    );
    assert!(!message.contains("hunter2"));

    let metrics = served.get("/metrics").await;
    let line = "kapok_gateway_upstream_errors_total{upstream=\"gone\",kind=\"connect\"} 1";
    assert!(metrics.text().contains(line), "{}", metrics.text());
}

#[tokio::test]
async fn something_that_is_not_http_is_a_bad_upstream() {
    let (served, _fake) = start(vec![vec![send("SSH-2.0-OpenSSH_9.2\r\n\r\n")]]).await;
    let got = served.post(CHAT, "{\"model\":\"m\"}").await;
    assert_eq!(got.status, 502);
    assert!(got.text().contains("is not HTTP"), "{}", got.text());
}

#[tokio::test]
async fn a_large_body_and_a_large_answer_pass_whole() {
    let text = "x".repeat(700_000);
    let body = format!("{{\"model\":\"m\",\"text\":\"{text}\"}}");
    let (served, fake) = start(vec![vec![json(&body)]]).await;
    // In chunks, so that no length is announced.
    let mut client = Client::connect(served.public).await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    client.write(head.as_bytes()).await;
    for part in body.as_bytes().chunks(50_000) {
        let size = format!("{:x}\r\n", part.len());
        client
            .write(&[size.as_bytes(), part, b"\r\n"].concat())
            .await;
    }
    client.write(b"0\r\n\r\n").await;
    let got = client.answer().await;
    assert!(got.whole && got.body == body.as_bytes());
    let request = fake.requests().remove(0);
    let (_, sent) = request.split_once("\r\n\r\n").expect("a head");
    assert!(sent == body);
}

#[tokio::test]
async fn bodies_beyond_the_memory_for_them_are_refused_until_one_is_sent() {
    let config = crate::Config {
        body_bytes_total_max: 150_000,
        ..crate::Config::default()
    };
    let served = Served::with(config, &[]);
    let streamed = vec![Step::Wait, stream_head(), Step::UntilGone];
    let fake = FakeUpstream::start(&served.tasks, vec![streamed, vec![json("{}")]]).await;
    let fields = value!({"url": fake.url(), "idleTimeoutMs": IDLE_MS});
    served
        .gateway
        .publish(&[upstream("up", fields)])
        .expect("good resources");
    let text = "x".repeat(100_000);
    let body = format!("{{\"model\":\"m\",\"text\":\"{text}\"}}");
    let mut first = served.client().await;
    first.send("POST", CHAT, "", body.as_bytes()).await;
    eventually("the upstream is asked", || fake.requests().len() == 1).await;

    let got = served.post(CHAT, &body).await;
    assert_eq!((got.status, got.header("retry-after")), (503, Some("1")));
    assert_eq!(got.json()["error"]["code"], "body_memory_full");
    let small = served.post(CHAT, "{\"model\":\"m\"}").await;
    assert_eq!(small.status, 200);

    // Its answer goes on, its body is gone.
    fake.proceed();
    assert_eq!(first.head().await.status, 200);
    assert_eq!(served.post(CHAT, &body).await.status, 200);
}
