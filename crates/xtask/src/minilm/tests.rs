use std::collections::BTreeMap;

use super::*;

/// A reader of what `protobuf.rs` writes: (field, value) in order.
enum Value<'a> {
    Int(u64),
    Bytes(&'a [u8]),
    Float(f32),
}

fn varint(data: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (byte, rest) = data.split_first().unwrap();
        *data = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

fn fields(mut data: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut out = Vec::new();
    while !data.is_empty() {
        let key = varint(&mut data);
        let value = match key & 7 {
            0 => Value::Int(varint(&mut data)),
            2 => {
                let length = usize::try_from(varint(&mut data)).unwrap();
                let (value, rest) = data.split_at(length);
                data = rest;
                Value::Bytes(value)
            }
            5 => {
                let (value, rest) = data.split_first_chunk().unwrap();
                data = rest;
                Value::Float(f32::from_le_bytes(*value))
            }
            other => panic!("wire type {other}"),
        };
        out.push((key >> 3, value));
    }
    out
}

fn all_bytes(message: &[u8], field: u64) -> Vec<&[u8]> {
    fields(message)
        .into_iter()
        .filter_map(|(number, value)| match value {
            Value::Bytes(bytes) if number == field => Some(bytes),
            _ => None,
        })
        .collect()
}

fn all_texts(message: &[u8], field: u64) -> Vec<String> {
    all_bytes(message, field)
        .into_iter()
        .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
        .collect()
}

const TINY: Shape = Shape {
    layers: 2,
    heads: 2,
    width: 4,
    inner: 6,
    vocabulary: 5,
    positions: 3,
    segments: 2,
};

/// A safetensors file with every weight a network of this shape has, counting up from 0.
fn weights(shape: Shape) -> Vec<u8> {
    let Shape { width, inner, .. } = shape;
    let mut all: Vec<(String, Vec<usize>)> = vec![
        (
            "embeddings.word_embeddings.weight".into(),
            vec![shape.vocabulary, width],
        ),
        (
            "embeddings.position_embeddings.weight".into(),
            vec![shape.positions, width],
        ),
        (
            "embeddings.token_type_embeddings.weight".into(),
            vec![shape.segments, width],
        ),
    ];
    let mut norm = vec!["embeddings.LayerNorm".to_owned()];
    for layer in 0..shape.layers {
        let at = |part: &str| format!("encoder.layer.{layer}.{part}");
        for (part, out, from) in [
            ("attention.self.query", width, width),
            ("attention.self.key", width, width),
            ("attention.self.value", width, width),
            ("attention.output.dense", width, width),
            ("intermediate.dense", inner, width),
            ("output.dense", width, inner),
        ] {
            all.push((at(part) + ".weight", vec![out, from]));
            all.push((at(part) + ".bias", vec![out]));
        }
        norm.push(at("attention.output.LayerNorm"));
        norm.push(at("output.LayerNorm"));
    }
    for name in norm {
        all.push((format!("{name}.weight"), vec![width]));
        all.push((format!("{name}.bias"), vec![width]));
    }
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, dims) in all {
        let start = data.len();
        for _ in 0..dims.iter().product() {
            data.extend(((data.len() / 4) as f32).to_le_bytes());
        }
        let described =
            serde_json::json!({"dtype": "F32", "shape": dims, "data_offsets": [start, data.len()]});
        header.insert(name, described);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    file
}

#[test]
fn the_written_model_reads_back_as_a_connected_graph() {
    let model = build_with(&weights(TINY), TINY).unwrap();
    let graph = all_bytes(&model, 7)[0];
    assert_eq!(all_texts(&model, 2), ["kapok"]);
    let opset = fields(all_bytes(&model, 8)[0]);
    assert!(
        opset
            .iter()
            .any(|(n, v)| *n == 2 && matches!(v, Value::Int(17)))
    );

    let names = |field| -> Vec<String> {
        let values = all_bytes(graph, field);
        values
            .iter()
            .map(|value| all_texts(value, 1)[0].clone())
            .collect()
    };
    assert_eq!(names(11), ["input_ids", "attention_mask", "token_type_ids"]);
    assert_eq!(names(12), ["last_hidden_state"]);

    let mut known = names(11);
    known.extend(
        all_bytes(graph, 5)
            .iter()
            .map(|t| all_texts(t, 8)[0].clone()),
    );
    let mut operators = BTreeMap::new();
    for node in all_bytes(graph, 1) {
        for input in all_texts(node, 1) {
            assert!(
                known.contains(&input),
                "`{input}` is read before it is made"
            );
        }
        known.extend(all_texts(node, 2));
        *operators.entry(all_texts(node, 4)[0].clone()).or_insert(0) += 1;
    }
    assert!(known.contains(&"last_hidden_state".to_owned()));
    assert_eq!(operators["LayerNormalization"], 1 + 2 * TINY.layers);
    assert_eq!(operators["Softmax"], TINY.layers);
    assert_eq!(operators["MatMul"], 8 * TINY.layers);
}

#[test]
fn attributes_and_weights_keep_their_values() {
    let model = build_with(&weights(TINY), TINY).unwrap();
    let graph = all_bytes(&model, 7)[0];
    let norm = all_bytes(graph, 1)
        .into_iter()
        .find(|node| all_texts(node, 4) == ["LayerNormalization"])
        .unwrap();
    let attributes = all_bytes(norm, 5);
    let mut values = attributes.iter().flat_map(|a| fields(a));
    assert!(
        values.any(|(n, v)| n == 3 && matches!(v, Value::Int(u64::MAX))),
        "axis -1"
    );
    assert!(values.any(|(n, v)| n == 2 && matches!(v, Value::Float(EPSILON))));

    let dense = all_bytes(graph, 5)
        .into_iter()
        .find(|t| all_texts(t, 8) == ["encoder.layer.0.intermediate.dense.weight"])
        .unwrap();
    let dims: Vec<_> = fields(dense)
        .into_iter()
        .filter_map(|(n, v)| match v {
            Value::Int(dim) if n == 1 => Some(dim),
            _ => None,
        })
        .collect();
    assert_eq!(dims, [TINY.width as u64, TINY.inner as u64], "turned");
}

#[test]
fn equal_input_gives_equal_bytes() {
    let weights = weights(TINY);
    assert_eq!(
        build_with(&weights, TINY).unwrap(),
        build_with(&weights, TINY).unwrap()
    );
}

#[test]
fn turning_a_matrix_swaps_rows_and_columns() {
    let bytes =
        |values: &[u32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    assert_eq!(
        transpose(&bytes(&[1, 2, 3, 4, 5, 6]), 2, 3),
        bytes(&[1, 4, 2, 5, 3, 6])
    );
}

#[test]
fn a_file_that_is_not_this_model_is_refused_by_name() {
    let good = weights(TINY);
    let error = build(&good).unwrap_err().to_string();
    assert!(error.contains("word_embeddings"), "{error}");
    for broken in [
        &good[..4],
        &good[..40],
        &[0xff; 64],
        &good[..good.len() - 8],
    ] {
        assert!(build_with(broken, TINY).is_err());
    }
}
