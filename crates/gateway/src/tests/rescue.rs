//! A conversation's stream that stops in the middle is ended by another upstream, or with an error.

use serde_json::{Value, json as value};

use super::eventually;
use super::failover::Fleet;
use super::upstream::{Step, chunk, json, send, stream_head};

const CHAT: &str = "/v1/chat/completions";
const ASK: &str =
    "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true}";

fn event(id: &str, delta: &Value) -> String {
    format!(
        "data: {}\n\n",
        value!({"id": id, "choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
    )
}

fn word(id: &str, text: &str) -> String {
    event(id, &value!({"content": text}))
}

fn role(id: &str) -> String {
    event(id, &value!({"role": "assistant", "content": ""}))
}

fn last(id: &str) -> String {
    format!(
        "data: {}\n\n",
        value!({"id": id, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    )
}

const DONE: &str = "data: [DONE]\n\n";

/// A stream of these events, and what happens then.
fn stream(events: &[String], then: &[Step]) -> Vec<Step> {
    let mut steps = vec![stream_head()];
    steps.extend(events.iter().map(|event| chunk(event)));
    steps.extend_from_slice(then);
    steps
}

fn end() -> Vec<Step> {
    vec![chunk(DONE), send("0\r\n\r\n")]
}

fn half(then: &[Step]) -> Vec<Step> {
    stream(&[role("a"), word("a", "one"), word("a", " two")], then)
}

fn whole(id: &str) -> Vec<Step> {
    let events = [role(id), word(id, "one two"), word(id, " three"), last(id)];
    stream(&events, &end())
}

fn refusal() -> Step {
    let body = "{\"error\":{\"message\":\"no prefill\",\"type\":\"invalid_request_error\"}}";
    let length = body.len();
    send(&format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
}

/// The text that a client puts together, the ids that it saw, and the error, if one came.
fn read(answer: &str) -> (String, Vec<String>, Option<String>) {
    let (mut text, mut ids, mut error) = (String::new(), Vec::new(), None);
    for line in answer
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
    {
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            assert_eq!(line, "[DONE]");
            assert_eq!(error, None, "[DONE] after an error");
            continue;
        };
        if let Some(message) = event["error"]["message"].as_str() {
            error = Some(message.to_owned());
            continue;
        }
        text.push_str(
            event["choices"][0]["delta"]["content"]
                .as_str()
                .unwrap_or_default(),
        );
        let id = event["id"].as_str().expect("an id").to_owned();
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    (text, ids, error)
}

async fn rescued(scripts: Vec<Vec<Vec<Step>>>, of_route: &Value, kind: &str) -> (Fleet, String) {
    let fleet = Fleet::with(scripts, of_route, &value!({"kind": kind})).await;
    let got = fleet.served.post(CHAT, ASK).await;
    assert_eq!((got.status, got.whole), (200, true), "{}", got.text());
    let text = got.text().to_owned();
    (fleet, text)
}

#[tokio::test]
async fn whatever_stops_a_stream_another_ends_it() {
    let malformed = "data: {\"id\": \"a\", \"choices\": [{\"delta\": {\"content\": \n\n";
    let dead = "data: {\"error\":{\"message\":\"engine died\",\"code\":500}}\n\n";
    for (name, then) in [
        ("cut", vec![Step::Close]),
        (
            "cut within an event",
            vec![send("ff\r\ndata: {\"id"), Step::Close],
        ),
        ("ended without done", vec![send("0\r\n\r\n")]),
        (
            "an event that is no JSON",
            vec![
                chunk(malformed),
                chunk(&word("a", " lost")),
                Step::UntilGone,
            ],
        ),
        (
            "an error of the upstream's own",
            vec![chunk(dead), chunk(DONE), send("0\r\n\r\n")],
        ),
        ("a stall", vec![Step::UntilGone]),
    ] {
        let stall = value!({"rescue": {"stallMs": 50}});
        // A server that begins anew: what it repeats is left out.
        let (fleet, text) =
            rescued(vec![vec![half(&then)], vec![whole("b")]], &stall, "openai").await;
        let (said, ids, error) = read(&text);
        assert_eq!(
            (said.as_str(), error),
            ("one two three", None),
            "{name}: {text}"
        );
        assert_eq!(ids, ["a"], "{name}");
        assert!(
            text.ends_with(DONE) && text.matches("assistant").count() == 1,
            "{name}: {text}"
        );
        assert_eq!(fleet.asked(), [1, 1], "{name}");
        assert!(
            fleet.fakes[1].requests()[0].ends_with(ASK),
            "the request is the client's"
        );
    }
}

#[tokio::test]
async fn a_server_that_can_is_asked_for_the_rest_only() {
    let rest = stream(&[role("b"), word("b", " three"), last("b")], &end());
    for (kind, fields) in [
        ("vllm", "\"continue_final_message\":true"),
        ("sglang", "\"add_generation_prompt\":false"),
    ] {
        let scripts = vec![vec![half(&[Step::Close])], vec![rest.clone()]];
        let (fleet, text) = rescued(scripts, &value!({}), kind).await;
        let (said, ids, error) = read(&text);
        assert_eq!((said.as_str(), error), ("one two three", None), "{text}");
        assert_eq!(ids, ["a"]);
        let request = fleet.fakes[1].requests().remove(0);
        let message = "{\"role\":\"assistant\",\"content\":\"one two\"}]";
        assert!(
            request.contains(message) && request.contains(fields),
            "{request}"
        );
        let id = fleet.served.recent.latest(1)[0].reason.clone();
        assert!(id.contains("`a` was asked before: stopped"), "{id}");
    }
}

#[tokio::test]
async fn who_refuses_to_continue_is_asked_anew() {
    let scripts = vec![
        vec![half(&[Step::Close])],
        vec![vec![refusal()], whole("b")],
    ];
    let (fleet, text) = rescued(scripts, &value!({}), "vllm").await;
    assert_eq!(read(&text).0, "one two three");
    assert_eq!(read(&text).2, None);
    assert_eq!(fleet.asked(), [1, 2]);
}

#[tokio::test]
async fn what_nobody_can_continue_ends_with_an_error_that_says_why() {
    let other = stream(&[word("b", "something else")], &end());
    let tool = value!({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{"}}]});
    let tool = stream(&[event("a", &tool)], &[Step::Close]);
    let cut = half(&[Step::Close]);
    for (name, first, second, fields, part, asked) in [
        (
            "another answer",
            &cut,
            &other,
            "",
            "answered otherwise",
            [1, 1],
        ),
        ("a tool call", &tool, &other, "", "calls a tool", [1, 0]),
        (
            "several answers",
            &cut,
            &other,
            ",\"n\":2",
            "several answers",
            [1, 0],
        ),
        (
            "a structure",
            &cut,
            &other,
            ",\"response_format\":{\"type\":\"json_object\"}",
            "structure",
            [1, 0],
        ),
        (
            "log probabilities",
            &cut,
            &other,
            ",\"logprobs\":true",
            "log probabilities",
            [1, 0],
        ),
    ] {
        let scripts = vec![vec![first.clone()], vec![second.clone()]];
        let fleet = Fleet::start(scripts).await;
        let body = ASK.replacen("{\"model\"", &format!("{{\"x\":0{fields},\"model\""), 1);
        let got = fleet.served.post(CHAT, &body).await;
        let (_, _, error) = read(got.text());
        let error = error.expect(name);
        assert!(error.starts_with("upstream `a` stopped"), "{name}: {error}");
        assert!(error.contains(part), "{name}: {error}");
        assert_eq!(fleet.asked(), asked, "{name}");
        assert!(
            !fleet.served.settled(got.request_id()).await.complete,
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_stream_whose_last_word_is_missing_is_whole() {
    for then in [vec![send("0\r\n\r\n")], vec![Step::Close]] {
        let steps = stream(&[word("a", "all"), last("a")], &then);
        let (fleet, text) =
            rescued(vec![vec![steps], vec![whole("b")]], &value!({}), "openai").await;
        assert_eq!(read(&text), ("all".to_owned(), vec!["a".to_owned()], None));
        assert!(text.ends_with(DONE), "{text}");
        assert_eq!(fleet.asked(), [1, 0]);
    }
}

#[tokio::test]
async fn a_stream_that_had_not_begun_is_anothers_from_the_start() {
    for then in [vec![Step::Close], vec![Step::UntilGone]] {
        let scripts = vec![vec![stream(&[], &then)], vec![whole("b")]];
        let fleet = Fleet::start(scripts).await;
        let headers = "x-stainless-read-timeout: 0.6\r\n";
        let got = fleet
            .served
            .ask("POST", CHAT, headers, ASK.as_bytes())
            .await;
        let expected = [
            role("b"),
            word("b", "one two"),
            word("b", " three"),
            last("b"),
            DONE.to_owned(),
        ];
        assert_eq!(got.text(), expected.concat());
        eventually("the first is let go", || {
            fleet.served.gateway.upstreams()[0].in_flight == 0
        })
        .await;
    }
}

#[tokio::test]
async fn who_stalls_and_speaks_again_first_is_heard() {
    let mut steps = half(&[Step::Wait]);
    steps.extend([chunk(&word("a", " three")), chunk(&last("a"))]);
    steps.extend(end());
    let scripts = vec![vec![steps], vec![vec![Step::UntilGone]]];
    let fleet = Fleet::with(scripts, &value!({"rescue": {"stallMs": 20}}), &value!({})).await;
    let mut client = fleet.served.client().await;
    client.send("POST", CHAT, "", ASK.as_bytes()).await;
    eventually("another is asked", || fleet.asked() == [1, 1]).await;
    fleet.fakes[0].proceed();
    let got = client.answer().await;
    assert_eq!(read(got.text()).0, "one two three");
    eventually("the other is let go", || fleet.fakes[1].gone() == 1).await;
}

#[tokio::test]
async fn an_idle_stream_gets_comments() {
    let mut steps = half(&[Step::Wait]);
    steps.extend(end());
    let route = value!({"rescue": {"heartbeatMs": 10}});
    let fleet = Fleet::with(vec![vec![steps]], &route, &value!({})).await;
    let mut client = fleet.served.client().await;
    client.send("POST", CHAT, "", ASK.as_bytes()).await;
    client.head().await;
    let mut heard = Vec::new();
    while heard.iter().filter(|byte| **byte == b':').count() < 40 {
        heard.extend(client.chunk().await.expect("the stream goes on"));
    }
    fleet.fakes[0].proceed();
    while let Some(part) = client.chunk().await.filter(|part| !part.is_empty()) {
        heard.extend(part);
    }
    let text = String::from_utf8(heard).expect("text");
    assert!(text.contains("\n\n: waiting\n\n: waiting\n\n"), "{text}");
    assert!(text.ends_with(DONE), "{text}");
    assert_eq!(read(&text).0, "one two");
}

#[tokio::test]
async fn a_completion_goes_on_from_its_prompt() {
    let text = |id: &str, text: &str| {
        format!(
            "data: {}\n\n",
            value!({"id": id, "choices": [{"index": 0, "text": text}]})
        )
    };
    let first = stream(&[text("a", "once"), text("a", " upon")], &[Step::Close]);
    let rest = stream(&[text("b", " a time")], &end());
    let fleet = Fleet::start(vec![vec![first], vec![rest]]).await;
    let ask = "{\"model\":\"m\",\"prompt\":\"Tell: \",\"max_tokens\":10,\"stream\":true}";
    let got = fleet.served.post("/v1/completions", ask).await;
    let expected = [
        text("a", "once"),
        text("a", " upon"),
        text("a", " a time"),
        DONE.to_owned(),
    ];
    assert_eq!(got.text(), expected.concat());
    let request = fleet.fakes[1].requests().remove(0);
    assert!(
        request.ends_with(
            "{\"model\":\"m\",\"prompt\":\"Tell: once upon\",\"max_tokens\":8,\"stream\":true}"
        ),
        "{request}"
    );
}

#[tokio::test]
async fn a_route_may_want_no_rescue() {
    let route = value!({"rescue": {"streams": false}});
    let (fleet, text) = rescued(
        vec![vec![half(&[Step::Close])], vec![whole("b")]],
        &route,
        "openai",
    )
    .await;
    assert!(
        read(&text)
            .2
            .is_some_and(|error| error.contains("does not want"))
    );
    assert_eq!(fleet.asked(), [1, 0]);
    let (_, text) = rescued(vec![vec![vec![json("{}")]]], &route, "openai").await;
    assert_eq!(text, "{}");
}

#[tokio::test]
async fn a_rescued_answer_is_told_and_charged_as_a_whole() {
    let usage = |prompt: u64, output: u64| {
        let usage = value!({"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output});
        let event = value!({"id": "b", "choices": [], "usage": usage});
        format!("data: {event}\n\n")
    };
    let rest = [role("b"), word("b", " three"), last("b"), usage(12, 1)];
    let anew = [
        role("b"),
        word("b", "one two"),
        word("b", " three"),
        last("b"),
        usage(10, 3),
    ];
    for (kind, events) in [("vllm", &rest[..]), ("openai", &anew[..])] {
        let scripts = vec![vec![half(&[Step::Close])], vec![stream(events, &end())]];
        let limits = value!({"limits": {"tokens": 1000}});
        let fleet = Fleet::with(scripts, &limits, &value!({"kind": kind})).await;
        let body = "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":9,\
                    \"stream\":true,\"stream_options\":{\"include_usage\":true}}";
        let got = fleet.served.post(CHAT, body).await;
        let (said, _, error) = read(got.text());
        assert_eq!((said.as_str(), error), ("one two three", None), "{kind}");
        let line = got
            .text()
            .lines()
            .find(|line| line.contains("prompt_tokens"));
        let event: Value = line
            .and_then(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
            .expect("usage");
        let expected = value!({"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13});
        assert_eq!(event["usage"], expected, "{kind}");
        let record = fleet.served.settled(got.request_id()).await;
        let generation = record.generation.as_ref().expect("an answer");
        let tokens = (generation.input_tokens, generation.output_tokens);
        assert_eq!(tokens, (Some(10), Some(3)), "{kind}");
        let metrics = fleet.served.get("/metrics").await;
        for (kind, count) in [("prompt", 10), ("output", 3)] {
            let charged = metrics.text().lines().any(|line| {
                line.starts_with("kapok_gateway_tokens_total{")
                    && line.contains(&format!("kind=\"{kind}\""))
                    && line.ends_with(&format!(" {count}"))
            });
            assert!(charged, "{kind}: {}", metrics.text());
        }
    }
}
