//! Tokens that are kept, told, counted and charged.

use serde_json::json as value;

use super::{CHAT, KEY, key, number, serve};
use crate::tests::eventually;
use crate::tests::upstream::{Step, chunk, json, send, stream_head};

fn whole(prompt: u64, output: u64) -> Vec<Step> {
    vec![json(&format!(
        "{{\"choices\":[{{}}],\"usage\":{{\"prompt_tokens\":{prompt},\"completion_tokens\":{output}}}}}"
    ))]
}

#[tokio::test]
async fn tokens_are_kept_and_what_was_not_used_is_given_back() {
    let limits = value!({"limits": {"tokens": 1000}});
    let scripts = vec![
        whole(20, 100),
        whole(20, 30),
        whole(20, 400),
        whole(20, 400),
    ];
    let (served, _fake) = serve(scripts, value!({}), vec![key(limits)]).await;
    let mut client = served.client().await;
    let body =
        br#"{"model":"m","max_tokens":400,"messages":[{"role":"user","content":"hello, hello"}]}"#;
    let mut left = Vec::new();
    for _ in 0..4 {
        let answer = client.ask("POST", CHAT, KEY, body).await;
        left.push((
            answer.status,
            number(&answer, "x-ratelimit-remaining-tokens"),
        ));
        served.settled(answer.request_id()).await;
    }
    // A head says what is left while as much is kept as may be used: 400, and what the prompt is taken for.
    let kept = 1000 - left[0].1;
    assert!((410..500).contains(&kept), "{left:?}");
    assert_eq!(left[0].0, 200);
    assert!(
        (1000 - 120 - 500..1000 - 120 - 410).contains(&left[1].1),
        "{left:?}"
    );
    assert!(left[2].1 < 1000 - 170 - 410, "{left:?}");
    // 590 were used; what the fourth may use is not there.
    assert_eq!(left[3], (429, 410), "{left:?}");
}

fn content(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}

const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":30,\"completion_tokens\":2,\"total_tokens\":32}}\n\n";

fn streamed() -> Vec<Step> {
    let usage = USAGE.split_at(40);
    vec![
        stream_head(),
        chunk(&content("a")),
        chunk(&content("b")),
        chunk(usage.0),
        chunk(&format!("{}data: [DONE]\n\n", usage.1)),
        send("0\r\n\r\n"),
    ]
}

#[tokio::test]
async fn usage_is_asked_of_the_upstream_and_shown_to_whom_asked() {
    let limits = || vec![key(value!({"limits": {"tokens": 100_000}}))];
    let told = format!("{}{}data: [DONE]\n\n", content("a"), content("b"));
    let with_usage = format!("{}{}{USAGE}data: [DONE]\n\n", content("a"), content("b"));
    for (asked, sent, got) in [
        (
            r#"{"model":"m", "stream":true,"temperature":0.70 }"#,
            r#"{"model":"m", "stream":true,"temperature":0.70 ,"stream_options":{"include_usage":true}}"#,
            &told,
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
            &with_usage,
        ),
    ] {
        let (served, fake) = serve(vec![streamed()], value!({}), limits()).await;
        let mut client = served.client().await;
        let headers = format!("{KEY}accept-encoding: gzip\r\n");
        let answer = client.ask("POST", CHAT, &headers, asked.as_bytes()).await;
        assert_eq!(
            (answer.status, answer.text(), answer.whole),
            (200, got.as_str(), true)
        );
        let request = &fake.requests()[0];
        let (head, body) = request.split_once("\r\n\r\n").expect("a head");
        assert_eq!(body, sent);
        assert!(!head.contains("accept-encoding"), "{head}");
        let record = served.settled(answer.request_id()).await;
        assert!(record.complete);
        let next = client
            .ask("POST", CHAT, KEY, br#"{"model":"m","max_tokens":0}"#)
            .await;
        let left = number(&next, "x-ratelimit-remaining-tokens");
        assert!((100_000 - 32 - 40..=100_000 - 32).contains(&left), "{left}");
    }
    // Where nobody counts tokens, nobody asks.
    let (served, fake) = serve(
        vec![streamed()],
        value!({}),
        vec![key(value!({"limits": {"requests": 9}}))],
    )
    .await;
    let body = r#"{"model":"m","stream":true}"#;
    let answer = served
        .client()
        .await
        .ask("POST", CHAT, KEY, body.as_bytes())
        .await;
    assert_eq!(answer.text(), with_usage);
    assert!(fake.requests()[0].ends_with(body));
}

#[tokio::test]
async fn a_stream_that_is_left_is_charged_what_was_delivered() {
    let steps = vec![
        stream_head(),
        chunk(&content("a")),
        chunk(&content("b")),
        chunk(&content("c")),
        Step::UntilGone,
    ];
    let limits = value!({"limits": {"tokens": 10_000}});
    let (served, fake) = serve(vec![steps, whole(0, 0)], value!({}), vec![key(limits)]).await;
    let mut client = served.client().await;
    client
        .send(
            "POST",
            CHAT,
            KEY,
            br#"{"model":"m","stream":true,"max_tokens":5000}"#,
        )
        .await;
    let head = client.head().await;
    assert!(number(&head, "x-ratelimit-remaining-tokens") < 5_000);
    for _ in 0..3 {
        client.chunk().await.expect("an event");
    }
    drop(client);
    eventually("the upstream is left", || fake.gone() == 1).await;
    served.settled(head.request_id()).await;
    let next = served
        .client()
        .await
        .ask("POST", CHAT, KEY, br#"{"model":"m","max_tokens":0}"#)
        .await;
    let left = number(&next, "x-ratelimit-remaining-tokens");
    // Three tokens and a prompt of fifty bytes; and what the new request's prompt is taken for.
    assert!((9_900..9_997).contains(&left), "{left}");
}

#[tokio::test]
async fn failures_cost_no_tokens() {
    let failed =
        send("HTTP/1.1 500 Oops\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}");
    let limits = value!({"limits": {"tokens": 10_000}});
    let scripts = vec![vec![failed], whole(0, 0)];
    let (served, _fake) = serve(scripts, value!({}), vec![key(limits)]).await;
    let mut client = served.client().await;
    let body = br#"{"model":"m","max_tokens":9000}"#;
    let answer = client.ask("POST", CHAT, KEY, body).await;
    assert!(answer.status >= 500);
    served.settled(answer.request_id()).await;
    let next = client.ask("POST", CHAT, KEY, body).await;
    assert_eq!(next.status, 200);
}
