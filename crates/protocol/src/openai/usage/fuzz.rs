use bytes::{Bytes, BytesMut};
use serde_json::Value;

use super::{BodyUsage, EventUsage, Unasked, Usage, ask_usage, demand};

/// For the fuzzer: whatever is spliced, only that field differs, and all other bytes are the client's.
pub fn fuzz_ask_usage(data: &[u8]) {
    let bounds = demand(data);
    assert!(bounds.bytes <= data.len() as u64, "more text than there is");
    let Some(spliced) = ask_usage(data) else {
        return;
    };
    let same_start = data
        .iter()
        .zip(&spliced)
        .take_while(|(a, b)| a == b)
        .count();
    let ends = data.iter().rev().zip(spliced.iter().rev());
    let same_end = ends.take_while(|(a, b)| a == b).count();
    // What lies between was written: at most the longest text of ours, in place of `false` or `null`.
    assert!(
        same_start + same_end + 5 >= data.len(),
        "more than a value was replaced"
    );
    assert!(
        ask_usage(&spliced).is_none(),
        "what was asked for is asked for again"
    );
    let (Ok(mut before), Ok(mut after)) = (
        serde_json::from_slice::<Value>(data),
        serde_json::from_slice::<Value>(&spliced),
    ) else {
        // Deeper than serde goes, or numbers that it refuses.
        return;
    };
    let asked = after.pointer("/stream_options/include_usage");
    assert_eq!(asked, Some(&Value::Bool(true)), "nothing was asked for");
    for tree in [&mut before, &mut after] {
        if let Some(options) = tree.get_mut("stream_options") {
            if let Some(fields) = options.as_object_mut() {
                fields.remove("include_usage");
            }
            if options.is_null() {
                *options = serde_json::json!({});
            }
        }
    }
    if let (Some(before), Some(after)) = (before.as_object_mut(), after.as_object_mut()) {
        before
            .entry("stream_options")
            .or_insert_with(|| serde_json::json!({}));
        assert_eq!(before, after, "another field changed");
    }
}

/// For the fuzzer: how an answer is cut changes neither what is read of it nor what goes on.
pub fn fuzz_usage(data: &[u8]) {
    let Some((cut, data)) = data.split_first() else {
        return;
    };
    let cut = usize::from(*cut).max(1);
    for unasked in [Unasked::Keep, Unasked::Drop] {
        let whole = stream(unasked, data, data.len().max(1));
        assert_eq!(
            stream(unasked, data, cut),
            whole,
            "cut by {cut} it is another stream"
        );
        if unasked == Unasked::Keep {
            assert_eq!(whole.0, data, "bytes of the client's stream changed");
        }
    }
    let whole = body(data, data.len().max(1));
    assert_eq!(body(data, cut), whole, "cut by {cut} it is another answer");
    let Ok(Value::Object(tree)) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    // serde too takes the last of several.
    let told = tree
        .get("usage")
        .and_then(|usage| Usage::read(&usage.to_string()));
    // A name with escapes in it is one that nobody writes.
    if !data.contains(&b'\\') {
        assert_eq!(
            told.is_some(),
            whole.is_some(),
            "usage was not found, or where there is none"
        );
    }
}

fn stream(unasked: Unasked, data: &[u8], cut: usize) -> (Vec<u8>, Option<Usage>, u64) {
    let mut events = EventUsage::new(unasked);
    let mut passed = BytesMut::new();
    for part in data.chunks(cut) {
        passed.extend_from_slice(&events.pass(Bytes::copy_from_slice(part)));
    }
    passed.extend_from_slice(&events.end());
    (passed.to_vec(), events.usage(), events.events())
}

fn body(data: &[u8], cut: usize) -> Option<Usage> {
    let mut usage = BodyUsage::default();
    for part in data.chunks(cut) {
        usage.pass(part);
    }
    usage.usage()
}
