//! A relayed body is the client's body, a relayed answer the upstream's, and a cut is never passed off as an end.

use std::io;

use base::Clock;

use e2e::client::Connection;
use e2e::{Answer, FakeUpstream, Gate, Kapok, Response, Running};

const CHAT: &str = "/v1/chat/completions";

fn relay_to(fake: &FakeUpstream) -> Running {
    Kapok::new().upstream("llm", &fake.url()).start()
}

#[test]
fn odd_bodies_reach_the_upstream_byte_for_byte() {
    let fake = FakeUpstream::start(Answer::json("{}"));
    let kapok = relay_to(&fake);
    let long = format!(r#"{{"model":"m","prompt":"{}"}}"#, "木棉 ".repeat(150_000));
    let bodies = [
        r#"{"model":"m"}"#,
        "\n {\t\"model\" :\r\n \"m\" , \"temperature\":0.70, \"top_p\":1.0e0 }  \n",
        r#"{"x":1,"x":2,"model":"m","x":3}"#,
        r#"{"messages":[{"model":"not this one","content":"\u00e9\ud83d\ude00 \"model\":\"nor this\""}],"model":"m"}"#,
        r#"{"\u006dodel":"m","unknown_field":{"deep":[[[{}]]]},"n":12345678901234567890123}"#,
        r#"{"model":"m","seed":-0,"big":1e400,"empty":"","null":null}"#,
        long.as_str(),
    ];
    for (sent, body) in bodies.iter().enumerate() {
        let answer = kapok.http().post(CHAT, body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let received = fake.wait_for_requests(sent + 1);
        assert!(
            received[sent].body == body.as_bytes(),
            "body {sent} was changed: {:.200}",
            received[sent].text()
        );
        assert_eq!(received[sent].path, CHAT);
        assert_eq!(
            received[sent].header("content-type"),
            Some("application/json")
        );
    }
    // A body sent in chunks of the client's own making.
    let mut connection = kapok.http().open().expect("it listens");
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    connection.send(head.as_bytes()).expect("open");
    for piece in ["{\"mo", "del\":", " \"m\", \"a\": 0.70}"] {
        let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
        connection.send(chunk.as_bytes()).expect("open");
    }
    assert_eq!(
        connection.exchange(b"0\r\n\r\n").expect("an answer").status,
        200
    );
    let received = fake.wait_for_requests(bodies.len() + 1);
    assert_eq!(
        received[bodies.len()].text(),
        "{\"model\": \"m\", \"a\": 0.70}"
    );
}

#[test]
fn answers_come_back_as_they_were_said() {
    let odd = "{ \"choices\" : [ ],\"x\":0.70,\"x\":1 }\n\n";
    let large = format!("{{\"text\":\"{}\"}}", "y".repeat(3 << 20));
    let refusal =
        r#"{"error":{"message":"slow down","type":"rate_limit_error","param":null,"code":"x"}}"#;
    let limited = format!(
        "HTTP/1.1 429 Too Many\r\ncontent-type: application/json\r\nretry-after: 7\r\nx-ratelimit-remaining-requests: 0\r\ncontent-length: {}\r\n\r\n{refusal}",
        refusal.len()
    );
    let fake = FakeUpstream::start(Answer::json(odd))
        .route("/v1/completions", Answer::json(&large))
        .route("/v1/embeddings", Answer::new().write(limited));
    let kapok = relay_to(&fake);
    assert_eq!(kapok.http().post(CHAT, r#"{"model":"m"}"#).text(), odd);
    let answer = kapok.http().post("/v1/completions", r#"{"model":"m"}"#);
    assert!(
        answer.text() == large,
        "{} bytes came back",
        answer.body.len()
    );
    let answer = kapok
        .http()
        .post("/v1/embeddings", r#"{"model":"m","input":"x"}"#);
    assert_eq!((answer.status, answer.text().as_str()), (429, refusal));
    assert_eq!(answer.header("retry-after"), Some("7"));
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("0"));
    assert!(answer.header("x-request-id").is_some());
}

#[test]
fn event_streams_are_unchanged_in_any_chunking() {
    let stream = "\u{feff}: a comment\r\nevent: delta\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"木棉\"}}]}\r\n\r\ndata:{\"x\": 0.70}\n\nid: 7\nretry: 10\ndata: line one\ndata: line two\n\ndata: [DONE]\n\n";
    let bytes = stream.as_bytes();
    for size in [1, 2, 3, 7, 64, bytes.len()] {
        let pieces = bytes.chunks(size).fold(Answer::events(), Answer::chunk);
        let fake = FakeUpstream::start(pieces.chunk(""));
        let kapok = relay_to(&fake);
        let answer = kapok.http().post(CHAT, r#"{"model":"m","stream":true}"#);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        assert_eq!(answer.text(), stream, "in chunks of {size}");
    }
}

fn open_stream(kapok: &Running) -> (Connection, Response) {
    let body = r#"{"model":"m","stream":true}"#;
    let client = kapok.http();
    let mut connection = client.open().expect("it listens");
    let mut message = client.head("POST", CHAT, body.len());
    message.extend_from_slice(body.as_bytes());
    connection.send(&message).expect("open");
    let head = connection.receive_head().expect("an answer");
    assert_eq!(head.status, 200);
    (connection, head)
}

#[test]
fn each_event_is_passed_on_before_the_next_is_said() {
    let gates: Vec<Gate> = (0..3).map(|_| Gate::new()).collect();
    let answer = gates
        .iter()
        .enumerate()
        .fold(Answer::events(), |answer, (turn, gate)| {
            answer.event(&format!("turn {turn}")).wait(gate)
        });
    let fake = FakeUpstream::start(answer.done());
    let kapok = relay_to(&fake);
    let (mut connection, mut head) = open_stream(&kapok);
    for (turn, gate) in gates.iter().enumerate() {
        // The upstream says nothing more until we have this one.
        let event = connection.receive_part(&mut head).expect("it streams");
        assert_eq!(
            event.as_deref(),
            Some(format!("data: turn {turn}\n\n").as_bytes())
        );
        gate.open();
    }
    let mut rest = Vec::new();
    while let Some(part) = connection.receive_part(&mut head).expect("a proper end") {
        rest.extend(part);
    }
    assert_eq!(rest, b"data: [DONE]\n\n");
}

#[test]
fn a_client_that_leaves_frees_the_upstream() {
    let fake = FakeUpstream::start(Answer::events().event("one").then_silence());
    let kapok = relay_to(&fake);
    let (mut connection, mut head) = open_stream(&kapok);
    connection.receive_part(&mut head).expect("the first event");
    drop(connection);
    fake.wait_for_disconnect();

    // The same before the answer has begun.
    let silent = FakeUpstream::start(Answer::silent());
    let kapok = relay_to(&silent);
    let client = kapok.http();
    let mut connection = client.open().expect("it listens");
    let mut message = client.head("POST", CHAT, 13);
    message.extend_from_slice(br#"{"model":"m"}"#);
    connection.send(&message).expect("open");
    silent.wait_for_requests(1);
    drop(connection);
    silent.wait_for_disconnect();
}

/// What the client got, and whether the transport called it complete.
fn drain(mut connection: Connection, mut head: Response) -> (String, io::Result<()>) {
    let mut text = Vec::new();
    let end = loop {
        match connection.receive_part(&mut head) {
            Ok(Some(part)) => text.extend(part),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    (String::from_utf8_lossy(&text).into_owned(), end)
}

#[test]
fn a_cut_stream_never_looks_complete() {
    let fake = FakeUpstream::start(Answer::events().event("one").event("two").cut());
    let kapok = Kapok::new()
        .upstream("llm", &fake.url())
        .allow_log("upstream")
        .start();
    let (connection, head) = open_stream(&kapok);
    let (text, end) = drain(connection, head);
    assert!(text.starts_with("data: one\n\ndata: two\n\n"), "{text}");
    assert!(!text.contains("[DONE]"), "{text}");
    let told = text.contains("\"error\"");
    assert!(
        told || end.is_err(),
        "a cut was passed off as an end: {text}"
    );
    println!("told in the stream: {told}; transport: {end:?}");
}

#[test]
fn a_cut_body_never_looks_complete() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    for half in [
        format!("{head}content-length: 1000\r\n\r\n{{\"choices\":["),
        format!("{head}transfer-encoding: chunked\r\n\r\nc\r\n{{\"choices\":[\r\n"),
        // Not even the length of the next chunk.
        format!("{head}transfer-encoding: chunked\r\n\r\nc\r\n{{\"choices\":[\r\n3"),
    ] {
        let fake = FakeUpstream::start(Answer::new().write(&half).cut());
        let kapok = Kapok::new()
            .upstream("llm", &fake.url())
            .allow_log("upstream")
            .start();
        let client = kapok.http();
        let mut connection = client.open().expect("it listens");
        let mut message = client.head("POST", CHAT, 13);
        message.extend_from_slice(br#"{"model":"m"}"#);
        match connection.exchange(&message) {
            // Cut in transit, as it was cut for us.
            Err(error) => assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "{half}: {error}"),
            // Or noticed before the head was passed on.
            Ok(answer) => assert_eq!(answer.status, 502, "{half}: {}", answer.text()),
        }
    }
}

#[test]
fn connections_to_the_upstream_are_kept() {
    let fake = FakeUpstream::start(Answer::json("{}"));
    let kapok = relay_to(&fake);
    for _ in 0..20 {
        assert_eq!(kapok.http().post(CHAT, r#"{"model":"m"}"#).status, 200);
    }
    // One for the calls, one for whatever asks for the model list.
    assert!(
        fake.connections() <= 2,
        "{} connections",
        fake.connections()
    );
}

#[test]
fn the_first_event_does_not_wait_for_an_acknowledgement() {
    const ASKED: usize = 60;
    // Nagle's algorithm against delayed acknowledgements: 40 ms on Linux, on every stream.
    const LATE_MS: u128 = 35;
    let fake = FakeUpstream::start(
        Answer::events()
            .event("{\"choices\":[]}")
            .event("two")
            .done(),
    );
    let kapok = relay_to(&fake);
    let client = kapok.http();
    let mut connection = client.open().expect("it listens");
    let body = r#"{"model":"m","stream":true}"#;
    let clock = Clock::real();
    let mut waits = Vec::new();
    for _ in 0..ASKED {
        let head = client.head("POST", CHAT, body.len());
        let began = clock.now();
        // In two segments, as many clients send it.
        connection.send(&head).expect("open");
        connection.send(body.as_bytes()).expect("open");
        let mut answer = connection.receive_head().expect("an answer");
        connection
            .receive_part(&mut answer)
            .expect("the first event");
        waits.push(clock.now().saturating_duration_since(began));
        while connection
            .receive_part(&mut answer)
            .expect("the rest")
            .is_some()
        {}
    }
    waits.sort();
    println!(
        "first event: median {:?}, slowest {:?}",
        waits[ASKED / 2],
        waits[ASKED - 1]
    );
    let late = waits
        .iter()
        .filter(|wait| wait.as_millis() >= LATE_MS)
        .count();
    assert!(late < ASKED / 2, "{late} of {ASKED} were late: {waits:?}");
}
