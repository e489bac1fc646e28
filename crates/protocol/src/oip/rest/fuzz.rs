use bytes::Bytes;

use super::{Header, InputData, encode, parse_header};
use crate::{BufferPool, InferResponse};

/// More than this many promised bytes are not made up for the fuzzer.
const BINARY_MAX: usize = 1 << 20;

/// For the fuzzer: whatever the bytes, an answer; and an accepted request's tensors can be sent back.
///
/// The first line feed, if any, stands for the border between JSON and binary.
pub fn fuzz_rest_infer(data: &[u8]) {
    let border = data.iter().position(|byte| *byte == b'\n');
    let (json, rest) = data.split_at(border.unwrap_or(data.len()));
    let Ok(mut header) = parse_header(json) else {
        return;
    };
    if let Ok(places) = header.shared_plan("m") {
        // As if each region were there, up to a size that is worth it.
        let read = places.iter().map(|place| {
            let bytes = usize::try_from(place.bytes).unwrap_or(usize::MAX);
            Bytes::from(vec![0; bytes.min(BINARY_MAX >> 8)])
        });
        header.set_shared(read.collect());
    }
    let plan = header.binary_plan();
    if plan.iter().sum::<usize>() > BINARY_MAX {
        return;
    }
    let binary = cut(&plan, rest.get(1..).unwrap_or_default());
    check(header, binary);
}

fn cut(plan: &[usize], mut rest: &[u8]) -> Vec<Bytes> {
    let mut parts = Vec::new();
    for bytes in plan {
        let (part, after) = rest.split_at(rest.len().min(*bytes));
        parts.push(Bytes::copy_from_slice(part));
        rest = after;
    }
    parts
}

fn check(header: Header<'_>, binary: Vec<Bytes>) {
    let json_inputs = header
        .inputs
        .iter()
        .filter(|input| matches!(input.data, InputData::Json(_)))
        .count();
    let pool = BufferPool::default();
    let Ok((request, form)) = header.into_request("m", None, binary, &pool) else {
        return;
    };
    assert!(json_inputs <= request.inputs.len(), "an input was lost");
    let response = InferResponse {
        model: request.model,
        version: "1".to_owned(),
        id: request.id,
        parameters: request.parameters,
        outputs: request.inputs,
    };
    if let Ok(encoded) = encode(&response, &form) {
        assert_eq!(
            encoded.header_length.is_some(),
            !encoded.binary.is_empty(),
            "binary tensors need a border"
        );
    }
}
