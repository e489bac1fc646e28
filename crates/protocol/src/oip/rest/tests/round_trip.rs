//! What is written is read back the same, bit for bit.

use bytes::Bytes;
use proptest::prelude::*;

use crate::oip::rest::{ResponseForm, encode, parse_header};
use crate::{BufferPool, DataType, InferResponse, Tensor};

/// Any tensor that JSON can carry, or any at all.
fn any_tensor(name: usize, json: bool) -> impl Strategy<Value = Tensor> {
    let dtype = proptest::sample::select(&DataType::ALL[..]);
    let shape = proptest::collection::vec(0..4_usize, 0..4);
    (dtype, shape, any::<u64>()).prop_map(move |(dtype, shape, seed)| {
        let dtype = match dtype {
            DataType::Fp16 | DataType::Bf16 if json => DataType::Fp32,
            other => other,
        };
        let count = crate::tensor::element_count(&shape).expect("small");
        let data = elements(dtype, count, seed, json);
        Tensor::new(format!("t{name}"), dtype, shape, Bytes::from(data)).expect("fits")
    })
}

/// Bytes from a small generator, made legal for the type where JSON is to carry them.
fn elements(dtype: DataType, count: usize, seed: u64, json: bool) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        // Knuth's MMIX constants.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state
    };
    let mut data = Vec::new();
    for _ in 0..count {
        let bits = next() ^ next().rotate_left(32);
        match dtype {
            DataType::Bool => data.push(u8::from(bits & 1 == 1)),
            DataType::Fp32 if json => {
                let number = f32::from_bits((bits >> 32) as u32);
                data.extend(if number.is_finite() { number } else { 0.1 }.to_le_bytes());
            }
            DataType::Fp64 if json => {
                let number = f64::from_bits(bits);
                data.extend(if number.is_finite() { number } else { 0.1 }.to_le_bytes());
            }
            DataType::Bytes => {
                let text = String::from_utf8_lossy(&bits.to_le_bytes()).into_owned();
                data.extend(u32::try_from(text.len()).expect("short").to_le_bytes());
                data.extend(text.as_bytes());
            }
            other => data.extend(&bits.to_le_bytes()[..other.size().expect("sized")]),
        }
    }
    data
}

fn round_trip(tensors: Vec<Tensor>, binary: bool) {
    let response = InferResponse {
        model: "m".to_owned(),
        version: "1".to_owned(),
        outputs: tensors.clone(),
        ..InferResponse::default()
    };
    let form = ResponseForm {
        binary,
        ..ResponseForm::default()
    };
    let encoded = encode(&response, &form).expect("legal");
    // An answer's outputs have the form of a request's inputs.
    let json = String::from_utf8(encoded.json)
        .expect("UTF-8")
        .replace("\"outputs\":", "\"inputs\":");
    let header = parse_header(json.as_bytes()).expect("legal");
    let plan: Vec<_> = encoded.binary.iter().map(Bytes::len).collect();
    assert_eq!(header.binary_plan(), plan);
    let (request, _) = header
        .into_request("m", None, encoded.binary, &BufferPool::default())
        .expect("legal");
    assert_eq!(request.inputs, tensors);
}

proptest! {
    #[test]
    fn any_tensors_come_back_the_same_through_json(
        tensors in (any_tensor(0, true), any_tensor(1, true)).prop_map(|(a, b)| vec![a, b])
    ) {
        round_trip(tensors, false);
    }

    #[test]
    fn any_tensors_come_back_the_same_as_binary(
        tensors in (any_tensor(0, false), any_tensor(1, false)).prop_map(|(a, b)| vec![a, b])
    ) {
        round_trip(tensors, true);
    }
}
