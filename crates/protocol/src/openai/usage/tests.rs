use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;

#[test]
fn usage_is_asked_for_by_one_field_and_nothing_else_changes() {
    for (body, expected) in [
        (
            r#"{"model":"m","stream":true, "temperature":0.70 }"#,
            Some(
                r#"{"model":"m","stream":true, "temperature":0.70 ,"stream_options":{"include_usage":true}}"#,
            ),
        ),
        (
            r#"{"stream":true,"stream_options":null}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        ),
        (
            r#"{"stream_options":{ },"stream":true}"#,
            Some(r#"{"stream_options":{"include_usage":true },"stream":true}"#),
        ),
        (
            r#"{"stream_options":{"x":1},"stream":true}"#,
            Some(r#"{"stream_options":{"include_usage":true,"x":1},"stream":true}"#),
        ),
        (
            r#"{"stream_options":{"include_usage" : false},"stream":true}"#,
            Some(r#"{"stream_options":{"include_usage" : true},"stream":true}"#),
        ),
        (
            r#"{"stream_options":{"include_usage":true},"stream":true}"#,
            None,
        ),
        (
            r#"{"stream_options":{"include_usage":1},"stream":true}"#,
            None,
        ),
        (r#"{"stream_options":"all","stream":true}"#, None),
        (r#"{"stream":false}"#, None),
        (r#"{"model":"m"}"#, None),
    ] {
        let spliced = ask_usage(body.as_bytes());
        let spliced = spliced.map(|body| String::from_utf8(body).expect("UTF-8"));
        assert_eq!(spliced.as_deref(), expected, "{body}");
    }
}

#[test]
fn a_body_says_how_much_it_allows() {
    let demand = |body: &str| {
        let demand = demand(body.as_bytes());
        (demand.output_max, demand.choices, demand.bytes)
    };
    for (body, max, choices) in [
        (r#"{"max_tokens":5}"#, Some(5), 1),
        (r#"{"max_tokens":5,"max_completion_tokens":7}"#, Some(7), 1),
        (r#"{"max_output_tokens":9,"n":2}"#, Some(9), 2),
        (r#"{"max_tokens":null,"n":2,"best_of":3}"#, None, 3),
        (r#"{"prompt":["a","b"],"max_tokens":5,"n":2}"#, Some(5), 4),
        (r#"{"prompt":[1,2,3]}"#, None, 1),
        (r#"{"prompt":[[1,2],[3]]}"#, None, 2),
        (r#"{"max_tokens":-1,"n":"two"}"#, None, 1),
        (r"not json", None, 0),
    ] {
        assert_eq!(demand(body), (max, choices, body.len() as u64), "{body}");
    }
    let image = format!(
        r#"{{"url":"data:image/png;base64,{}"}}"#,
        "A".repeat(10_000)
    );
    assert_eq!(demand(&image), (None, 1, 8), "a file is no text");
}

fn chunk(delta: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n")
}

fn answer() -> (String, String) {
    let text: String = [
        chunk(r#"{"role":"assistant","content":""}"#),
        chunk(r#"{"content":"He"}"#),
        ": ping\n\n".to_owned(),
        chunk(r#"{"content":"llo"}"#),
        chunk("{}"),
    ]
    .concat();
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":11}}\n\n";
    let done = "data: [DONE]\n\n";
    (format!("{text}{usage}{done}"), format!("{text}{done}"))
}

fn pass(unasked: Unasked, parts: impl Iterator<Item = Vec<u8>>) -> (String, Option<Usage>, u64) {
    let mut events = EventUsage::new(unasked);
    let mut passed = BytesMut::new();
    for part in parts {
        passed.extend_from_slice(&events.pass(Bytes::from(part)));
    }
    passed.extend_from_slice(&events.end());
    let text = String::from_utf8(passed.to_vec()).expect("UTF-8");
    (text, events.usage(), events.events())
}

proptest! {
    #[test]
    fn a_stream_is_the_same_however_it_is_cut_and_its_usage_is_found(
        cuts in prop::collection::vec(1usize..40, 0..60),
        crlf in any::<bool>(),
    ) {
        let (mut sent, mut without) = answer();
        if crlf {
            sent = sent.replace('\n', "\r\n");
            without = without.replace('\n', "\r\n");
        }
        let mut rest = sent.clone().into_bytes();
        let mut parts = Vec::new();
        for cut in cuts {
            let after = rest.split_off(cut.min(rest.len()));
            parts.push(std::mem::replace(&mut rest, after));
        }
        parts.push(rest);
        let usage = Some(Usage { prompt: 9, output: 2 });
        prop_assert_eq!(pass(Unasked::Keep, parts.clone().into_iter()), (sent, usage, 2));
        prop_assert_eq!(pass(Unasked::Drop, parts.into_iter()), (without, usage, 2));
    }
}

#[test]
fn whole_events_are_passed_on_without_a_copy() {
    let (sent, _) = answer();
    let text = Bytes::from(
        sent.split("data: {\"choices\":[],")
            .next()
            .expect("text")
            .to_owned(),
    );
    let mut events = EventUsage::new(Unasked::Drop);
    let passed = events.pass(text.clone());
    assert_eq!(passed.as_ptr(), text.as_ptr());
    assert_eq!(passed, text);
}

#[test]
fn only_what_was_not_asked_for_is_dropped() {
    for kept in [
        "data: {\"choices\":[{\"delta\":{}}],\"usage\":{\"prompt_tokens\":1}}\n\n",
        "data: {\"choices\":[],\"usage\":null}\n\n",
        "data: {\"choices\":[]}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":1}}\n\n",
        "data: {\"error\":{\"message\":\"no\"}}\n\n",
        "data: half",
    ] {
        let (passed, ..) = pass(Unasked::Drop, std::iter::once(kept.as_bytes().to_vec()));
        assert_eq!(passed, kept);
    }
}

#[test]
fn each_protocol_tells_usage_in_its_own_way() {
    for (stream, prompt, output, events) in [
        (
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n\
             event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"x\"}}\n\n\
             event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":15}}\n\n",
            25,
            15,
            1,
        ),
        (
            "data: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n\
             data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":4,\"output_tokens\":6}}}\n\n",
            4,
            6,
            1,
        ),
        (
            "data: {\"choices\":[{\"text\":\"x\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n\
             data: {\"choices\":[{\"text\":\"y\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n",
            3,
            2,
            2,
        ),
    ] {
        let (_, usage, counted) = pass(Unasked::Keep, std::iter::once(stream.as_bytes().to_vec()));
        assert_eq!(usage, Some(Usage { prompt, output }), "{stream}");
        assert_eq!(counted, events, "{stream}");
    }
}

#[test]
fn an_event_without_end_is_given_up_and_passed_on() {
    let part = Bytes::from(vec![b'x'; 600 << 10]);
    let mut events = EventUsage::new(Unasked::Drop);
    let mut passed = 0;
    for _ in 0..4 {
        passed += events.pass(part.clone()).len();
    }
    assert_eq!(passed, 4 * part.len());
    assert!(events.end().is_empty());
}

#[test]
fn an_answer_in_one_piece_tells_too() {
    for (body, expected) in [
        (
            r#"{"choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":7}"}}],"usage":{"prompt_tokens":9,"completion_tokens":2,"details":{"x":[1]}},"z":1}"#,
            Some((9, 2)),
        ),
        (
            r#"{"usage" : {"prompt_tokens":5,"total_tokens":5},"data":[]}"#,
            Some((5, 0)),
        ),
        (r#"{"usage":{"total_tokens":5}}"#, Some((0, 5))),
        (r#"{"a":"usage","b":{"usage":{"prompt_tokens":1}}}"#, None),
        (r#"{"usage":null}"#, None),
    ] {
        for cut in [1, 2, 3, 7, 1000] {
            let mut usage = BodyUsage::default();
            for part in body.as_bytes().chunks(cut) {
                usage.pass(part);
            }
            let expected = expected.map(|(prompt, output)| Usage { prompt, output });
            assert_eq!(usage.usage(), expected, "{body} by {cut}");
        }
    }
}
