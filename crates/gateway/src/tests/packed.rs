//! Bodies in gzip and deflate, in and out.

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};

use super::Served;
use crate::Config;

fn pack(coding: &str, data: &[u8]) -> Vec<u8> {
    let level = Compression::default();
    if coding == "gzip" {
        let mut encoder = GzEncoder::new(Vec::new(), level);
        encoder.write_all(data).expect("memory");
        encoder.finish().expect("memory")
    } else {
        let mut encoder = ZlibEncoder::new(Vec::new(), level);
        encoder.write_all(data).expect("memory");
        encoder.finish().expect("memory")
    }
}

fn unpack(coding: &str, data: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    let read = if coding == "gzip" {
        GzDecoder::new(data).read_to_end(&mut found)
    } else {
        ZlibDecoder::new(data).read_to_end(&mut found)
    };
    read.expect("packed as it says");
    found
}

fn request(elements: u32) -> (String, Bytes) {
    let tensor: Vec<u8> = (0..elements)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let body = json!({
        "parameters": {"binary_data_output": true},
        "inputs": [{"name": "x", "shape": [elements], "datatype": "UINT32",
                    "parameters": {"binary_data_size": tensor.len()}}],
    });
    (body.to_string(), tensor.into())
}

#[tokio::test]
async fn a_packed_request_is_read_and_its_answer_packed_as_the_client_likes() {
    let served = Served::start(&[]);
    // The second is too large to be packed in one part, so it is sent in chunks.
    for elements in [3, 100_000] {
        for coding in ["gzip", "deflate"] {
            let (json, tensor) = request(elements);
            let body = pack(coding, &[json.as_bytes(), &tensor].concat());
            let headers = format!(
                "content-encoding: {coding}\r\naccept-encoding: {coding}\r\n\
                 inference-header-content-length: {}\r\n",
                json.len()
            );
            let got = served
                .ask("POST", "/v2/models/echo/infer", &headers, &body)
                .await;
            assert_eq!(got.status, 200, "{:?}", got);
            assert!(got.whole);
            assert_eq!(got.header("content-encoding"), Some(coding));
            let answer = unpack(coding, &got.body);
            let border = got.header("inference-header-content-length");
            let border: usize = border.and_then(|text| text.parse().ok()).expect("a border");
            let head: Value = serde_json::from_slice(&answer[..border]).expect("JSON");
            assert_eq!(head["outputs"][0]["shape"], json!([elements]));
            assert_eq!(answer[border..], tensor);
        }
    }
}

#[tokio::test]
async fn json_answers_are_packed_and_refusals_are_not() {
    let served = Served::start(&[]);
    let body = br#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1.5]}]}"#;
    let headers = "accept-encoding: br, gzip;q=0.5\r\n";
    let got = served
        .ask("POST", "/v2/models/echo/infer", headers, body)
        .await;
    assert_eq!(got.header("content-encoding"), Some("gzip"));
    let answer: Value = serde_json::from_slice(&unpack("gzip", &got.body)).expect("JSON");
    assert_eq!(answer["outputs"][0]["data"], json!([1.5]));
    let got = served
        .ask("POST", "/v2/models/echo/infer", headers, b"{")
        .await;
    assert_eq!((got.status, got.header("content-encoding")), (400, None));
}

#[tokio::test]
async fn a_bomb_is_cut_at_the_limit() {
    let config = Config {
        body_bytes_max: 64 << 10,
        ..Config::default()
    };
    let served = Served::with(config, &[]);
    let bomb = pack("gzip", &vec![b' '; 40 << 20]);
    assert!(bomb.len() < 64 << 10);
    let headers = "content-encoding: gzip\r\n";
    let got = served
        .ask("POST", "/v2/models/echo/infer", headers, &bomb)
        .await;
    assert_eq!(got.status, 400);
    assert!(
        got.text().contains("maximum allowed input size of 65536"),
        "{}",
        got.text()
    );
}

#[tokio::test]
async fn what_cannot_be_unpacked_is_refused() {
    let served = Served::start(&[]);
    let good = pack("gzip", b"{}");
    for (coding, body, status, part) in [
        ("gzip", &b"{}"[..], 400, "it is not gzip"),
        ("deflate", &good, 400, "it is not deflate"),
        ("gzip", &good[..good.len() - 1], 400, "end too early"),
        ("br", b"x", 415, "`br` is not supported"),
        ("gzip, gzip", b"x", 415, "not supported"),
        ("identity", b"{}", 400, "inputs"),
    ] {
        let headers = format!("content-encoding: {coding}\r\n");
        let got = served
            .ask("POST", "/v2/models/echo/infer", &headers, body)
            .await;
        assert_eq!(got.status, status, "{coding}: {}", got.text());
        assert!(got.text().contains(part), "{coding}: {}", got.text());
    }
}

#[tokio::test]
async fn a_body_of_too_many_chunks_is_refused() {
    let served = Served::start(&[]);
    let mut client = served.client().await;
    let head =
        "POST /v2/models/echo/infer HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
    client.write(head.as_bytes()).await;
    client.write(&b"1\r\n \r\n".repeat(65_537)).await;
    client.write(b"0\r\n\r\n").await;
    let got = client.answer().await;
    assert_eq!(got.status, 400);
    assert!(got.text().contains("65536 chunks"), "{}", got.text());
}
