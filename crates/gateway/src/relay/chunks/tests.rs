use super::*;

fn text(id: &str, content: &str) -> String {
    let content = serde_json::Value::from(content);
    format!(
        "data: {{\"id\":\"{id}\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{content}}}}}]}}\n\n"
    )
}

fn taken(chunks: &mut Chunks, parts: &[&str]) -> (String, Option<&'static str>) {
    let mut out = String::new();
    for part in parts {
        let (bytes, broken) = chunks.take(Bytes::copy_from_slice(part.as_bytes()));
        out.push_str(std::str::from_utf8(&bytes).expect("text"));
        if broken.is_some() {
            return (out, broken);
        }
    }
    (out, None)
}

#[test]
fn what_is_fine_leaves_unchanged_however_it_is_cut() {
    let stream = format!(
        ": a comment\n\ndata: not an object\n\n{}event: x\r\ndata:{{\"choices\":[]}}\r\n\r\n{}data: [DONE]\n\n",
        text("a", "one"),
        text("a", " é \"two\"")
    );
    for size in [1, 2, 3, 7, 64, 4096] {
        let mut chunks = Chunks::default();
        let mut out = Vec::new();
        for part in stream.as_bytes().chunks(size) {
            let (bytes, broken) = chunks.take(Bytes::copy_from_slice(part));
            assert_eq!(broken, None);
            out.extend_from_slice(&bytes);
        }
        assert!(out == stream.as_bytes(), "{size}");
        assert_eq!((chunks.text.as_str(), chunks.pieces), ("one é \"two\"", 2));
        assert!(chunks.done && chunks.begun && !chunks.finished);
    }
    // A part that ends with an event is not copied.
    let part = Bytes::from(text("a", "one"));
    let (out, _) = Chunks::default().take(part.clone());
    assert_eq!(out.as_ptr(), part.as_ptr());
}

#[test]
fn nothing_broken_and_nothing_after_it_reaches_the_client() {
    let fine = text("a", "one");
    for (bad, why) in [
        (
            "data: {\"id\": \"a\", \"choices\": [{\"delta\": {\"content\": \n\n",
            "not JSON",
        ),
        (
            "data: {\"error\":{\"message\":\"dead\",\"code\":500}}\n\n",
            "failed",
        ),
    ] {
        let mut chunks = Chunks::default();
        let (out, broken) = taken(&mut chunks, &[&format!("{fine}{bad}{fine}")]);
        assert_eq!(out, fine);
        assert!(broken.is_some_and(|said| said.contains(why)), "{broken:?}");
    }
    let mut chunks = Chunks::default();
    let (out, broken) = taken(&mut chunks, &[&fine, "data: {\"id\":\"half"]);
    assert_eq!((out, broken), (fine, None));
}

#[test]
fn a_stream_that_goes_on_looks_like_the_first() {
    let mut chunks = Chunks::default();
    taken(&mut chunks, &[&text("first", "one"), "data: {\"half"]);
    chunks.go_on(GoingOn::Continued);
    let role = "data: {\"id\":\"second\",\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
    let usage = "data: {\"id\":\"second\",\"choices\":[],\"usage\":{\"total_tokens\":9}}\n\n";
    let (out, broken) = taken(
        &mut chunks,
        &[role, &text("second", " two"), usage, "data: [DONE]\n\n"],
    );
    let expected = format!(
        "{}{}data: [DONE]\n\n",
        text("first", " two"),
        usage.replace("second", "first")
    );
    assert_eq!((out, broken), (expected, None));
    assert_eq!(chunks.text, "one two");
}

#[test]
fn a_stream_that_begins_anew_is_compared_and_left_out() {
    for parts in [
        vec!["one two three"],
        vec!["one", " two", " three"],
        vec!["one t", "wo th", "ree"],
        vec!["one two", " three"],
    ] {
        let mut chunks = Chunks::default();
        taken(
            &mut chunks,
            &[&text("first", "one"), &text("first", " two")],
        );
        chunks.go_on(GoingOn::Repeated { matched: 0 });
        let stream: String = parts.iter().map(|part| text("second", part)).collect();
        let (out, broken) = taken(&mut chunks, &[&stream]);
        assert_eq!(broken, None, "{parts:?}");
        assert!(!out.contains("second") && !out.contains("one"), "{out}");
        assert_eq!(chunks.text, "one two three", "{parts:?}");
    }
    for parts in [vec!["two"], vec!["one", " three"], vec!["one tw0"]] {
        let mut chunks = Chunks::default();
        taken(&mut chunks, &[&text("first", "one two")]);
        chunks.go_on(GoingOn::Repeated { matched: 0 });
        let stream: String = parts.iter().map(|part| text("second", part)).collect();
        let (out, broken) = taken(&mut chunks, &[&stream]);
        assert_eq!(out, "");
        assert!(
            broken.is_some_and(|why| why.contains("otherwise")),
            "{parts:?}"
        );
    }
    // It ends before it has said what the client has.
    let mut chunks = Chunks::default();
    taken(&mut chunks, &[&text("first", "one two")]);
    chunks.go_on(GoingOn::Repeated { matched: 0 });
    let (_, broken) = taken(&mut chunks, &[&text("second", "one"), "data: [DONE]\n\n"]);
    assert!(broken.is_some());
}

#[test]
fn to_a_client_that_has_nothing_any_stream_is_the_first() {
    let mut chunks = Chunks::default();
    taken(&mut chunks, &[": wait\n\n", "data: {\"half"]);
    chunks.go_on(GoingOn::Continued);
    let stream = text("second", "one");
    assert_eq!(taken(&mut chunks, &[&stream]).0, stream);
}

fn usage(prompt: u64, output: u64) -> String {
    format!(
        "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":{prompt},\"completion_tokens\":{output}}}}}\n\n"
    )
}

/// What the client and the books learn of an answer in these parts.
fn used(parts: &[(GoingOn, String)]) -> (String, Option<(u64, u64)>) {
    let mut chunks = Chunks::default();
    let mut seen = String::new();
    for (going_on, part) in parts {
        if *going_on != GoingOn::First {
            chunks.go_on(*going_on);
        }
        let (out, broken) = taken(&mut chunks, &[part]);
        assert_eq!(broken, None, "{part}");
        seen.push_str(&out);
    }
    let told = chunks.said.usage;
    (seen, told.map(|usage| (usage.prompt, usage.output)))
}

#[test]
fn the_usage_of_an_answer_in_parts_is_that_of_the_whole() {
    let (one, two, three) = (text("a", "one"), text("a", " two"), text("a", " three"));
    let first = format!("{one}{two}");
    for (parts, expected) in [
        // Two tokens went before, and were in the second's prompt of 12.
        (
            vec![
                (GoingOn::First, first.clone()),
                (GoingOn::Continued, format!("{three}{}", usage(12, 1))),
            ],
            (10, 3),
        ),
        // The first told that its two pieces were five tokens.
        (
            vec![
                (GoingOn::First, format!("{first}{}", usage(10, 5))),
                (GoingOn::Continued, format!("{three}{}", usage(15, 1))),
            ],
            (10, 6),
        ),
        // Three speakers.
        (
            vec![
                (GoingOn::First, one.clone()),
                (GoingOn::Continued, two.clone()),
                (GoingOn::Continued, format!("{three}{}", usage(12, 1))),
            ],
            (10, 3),
        ),
        // The second makes it all anew, and so it counts.
        (
            vec![
                (GoingOn::First, first.clone()),
                (
                    GoingOn::Repeated { matched: 0 },
                    format!("{first}{three}{}", usage(10, 3)),
                ),
            ],
            (10, 3),
        ),
        // A third goes on from there.
        (
            vec![
                (GoingOn::First, one.clone()),
                (GoingOn::Repeated { matched: 0 }, first.clone()),
                (GoingOn::Continued, format!("{three}{}", usage(12, 1))),
            ],
            (10, 3),
        ),
        // It cannot have counted what it was given.
        (
            vec![
                (GoingOn::First, first.clone()),
                (GoingOn::Continued, format!("{three}{}", usage(1, 1))),
            ],
            (1, 1),
        ),
    ] {
        let (seen, told) = used(&parts);
        assert_eq!(told, Some(expected), "{seen}");
        assert!(seen.ends_with(&usage(expected.0, expected.1)), "{seen}");
    }
}
