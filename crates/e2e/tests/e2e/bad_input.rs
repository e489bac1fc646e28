//! Bad input: the protocol's own error shape, a message that names the field, no panic, and the next request served.

use e2e::repository::Builtin;
use e2e::{Client, Kapok, Repository, Response};
use serde_json::{Value, json};

use crate::doors::infer_body;

const GIB: usize = 1 << 30;

pub(crate) fn repository() -> Repository {
    let fixed = Builtin {
        dims: "2, 3",
        ..Builtin::default()
    };
    let strings = Builtin {
        dtype: "BYTES",
        ..Builtin::default()
    };
    Repository::new()
        .builtin("identity", &Builtin::default())
        .builtin("fixed", &fixed)
        .builtin("strings", &strings)
}

/// The message of an OIP error, its shape checked.
fn oip_error(answer: &Response) -> String {
    assert!(answer.header("x-request-id").is_some(), "{answer:?}");
    let body = answer.json();
    assert_eq!(
        body.as_object().map(serde_json::Map::len),
        Some(1),
        "{body}"
    );
    body["error"].as_str().expect("a message").to_owned()
}

pub(crate) fn still_serves(client: &Client) {
    let answer = client.post("/v2/models/identity/infer", infer_body(&[1], &json!([7])));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["outputs"][0]["data"], json!([7.0]));
}

struct Case {
    what: &'static str,
    model: &'static str,
    body: String,
    status: &'static [u16],
    /// Each must be in the message.
    names: &'static [&'static str],
}

fn input(name: &str, datatype: &str, shape: &Value, data: &Value) -> String {
    let input = json!({"name": name, "datatype": datatype, "shape": shape, "data": data});
    json!({"inputs": [input]}).to_string()
}

fn case(what: &'static str, body: String, names: &'static [&'static str]) -> Case {
    Case {
        what,
        model: "identity",
        body,
        status: &[400],
        names,
    }
}

/// `INPUT0` of FP32.
fn fp32(shape: &Value, data: &Value) -> String {
    input("INPUT0", "FP32", shape, data)
}

fn wrong_tensors() -> Vec<Case> {
    let one = json!([1]);
    let six = json!([1, 2, 3, 4, 5, 6]);
    let fixed = |what, shape: Value| Case {
        model: "fixed",
        ..case(what, fp32(&shape, &six), &["INPUT0"])
    };
    let no_data = json!({"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1]}]});
    vec![
        case(
            "datatype",
            input("INPUT0", "INT32", &one, &one),
            &["INPUT0"],
        ),
        case(
            "unknown datatype",
            input("INPUT0", "FP99", &one, &one),
            &["FP99"],
        ),
        fixed("shape", json!([3, 2])),
        fixed("rank", json!([6])),
        case(
            "too few elements",
            fp32(&json!([3]), &json!([1, 2])),
            &["INPUT0"],
        ),
        case("too many elements", fp32(&json!([3]), &six), &["INPUT0"]),
        case("element type", fp32(&one, &json!(["x"])), &["INPUT0"]),
        case("no data", no_data.to_string(), &["INPUT0"]),
        Case {
            // Triton answers 500 to a negative dimension, and clients' tests expect it.
            status: &[400, 500],
            ..case("negative dimension", fp32(&json!([-1]), &one), &["shape"])
        },
        Case {
            status: &[400, 413],
            ..case("1 GiB shape", fp32(&json!([GIB / 4]), &one), &["INPUT0"])
        },
        case(
            "overflowing shape",
            fp32(&json!([1_u64 << 40, 1_u64 << 40]), &one),
            &["INPUT0"],
        ),
    ]
}

fn wrong_names() -> Vec<Case> {
    let one = json!([1]);
    let tensor = json!({"name": "INPUT0", "datatype": "FP32", "shape": [1], "data": [1]});
    let twice = json!({"inputs": [tensor, tensor]});
    let wanted = json!({"inputs": [tensor], "outputs": [{"name": "WANTED"}]});
    vec![
        case("unknown name", input("NOPE", "FP32", &one, &one), &["NOPE"]),
        case(
            "missing input",
            json!({"inputs": []}).to_string(),
            &["input"],
        ),
        case("no inputs field", "{}".to_owned(), &["inputs"]),
        case("input twice", twice.to_string(), &["INPUT0"]),
        case("unknown output", wanted.to_string(), &["WANTED"]),
        Case {
            model: "nope",
            status: &[404],
            ..case(
                "unknown model",
                fp32(&one, &one),
                &["Request for unknown model: 'nope' is not found"],
            )
        },
        Case {
            model: "identity/versions/9",
            status: &[400, 404],
            ..case("unknown version", fp32(&one, &one), &["identity"])
        },
    ]
}

fn broken_documents() -> Vec<Case> {
    let good = fp32(&json!([1]), &json!([1]));
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let deep_data = format!(
        r#"{{"inputs":[{{"name":"INPUT0","datatype":"FP32","shape":[1],"data":{deep}}}]}}"#
    );
    vec![
        case("deep JSON", deep, &[]),
        case("deep data", deep_data, &[]),
        case("not JSON", "{\"inputs\": oops}".to_owned(), &[]),
        case("empty body", String::new(), &[]),
        case(
            "half a document",
            good.split_at(good.len() / 2).0.to_owned(),
            &[],
        ),
    ]
}

#[test]
fn bad_inference_requests_are_answered_by_name() {
    let repository = repository();
    let kapok = Kapok::new()
        .model_repo(repository.path())
        // Answered with Triton's 500, so it is logged as one.
        .start();
    let cases = [wrong_tensors(), wrong_names(), broken_documents()];
    for case in cases.into_iter().flatten() {
        let path = format!("/v2/models/{}/infer", case.model);
        let answer = kapok.http().post(&path, &case.body);
        let message = oip_error(&answer);
        assert!(
            case.status.contains(&answer.status),
            "{}: {answer:?}",
            case.what
        );
        for name in case.names {
            assert!(
                message.contains(name),
                "{}: `{name}` in {message:?}",
                case.what
            );
        }
        still_serves(&kapok.http());
    }
}

/// A binary request whose JSON part claims `claimed` bytes.
fn binary(client: &Client, claimed: usize, bytes: &[u8]) -> Response {
    let input = json!({"name": "INPUT0", "datatype": "FP32", "shape": [3],
        "parameters": {"binary_data_size": claimed}});
    let head = json!({"inputs": [input]}).to_string();
    let mut body = head.clone().into_bytes();
    body.extend_from_slice(bytes);
    client
        .clone()
        .header("inference-header-content-length", &head.len().to_string())
        .post("/v2/models/identity/infer", body)
}

#[test]
fn bad_binary_tensors_are_answered_by_name() {
    let repository = repository();
    let kapok = Kapok::new().model_repo(repository.path()).start();
    let client = kapok.http();
    assert_eq!(binary(&client, 12, &[0; 12]).status, 200);
    for (what, claimed, given) in [
        ("truncated", 12, 8),
        ("nothing there", 12, 0),
        ("more than claimed", 12, 16),
        ("claims less than its shape", 8, 8),
        ("claims 1 GiB", GIB, 12),
        ("claims more than can be addressed", usize::MAX, 12),
    ] {
        let answer = binary(&client, claimed, &vec![0; given]);
        let message = oip_error(&answer);
        assert!([400, 413].contains(&answer.status), "{what}: {answer:?}");
        let named = message.contains("INPUT0") || message.contains("binary");
        assert!(named || what == "more than claimed", "{what}: {message}");
        still_serves(&client);
    }
    for length in ["5000", "-1", "x", "18446744073709551616"] {
        let answer = client
            .clone()
            .header("inference-header-content-length", length)
            .post("/v2/models/identity/infer", "{\"inputs\":[]}");
        assert_eq!(answer.status, 400, "{length}: {answer:?}");
        let message = oip_error(&answer).to_lowercase();
        assert!(
            message.contains("inference-header-content-length"),
            "{length}: {message}"
        );
    }
    // A string whose length runs past the end.
    let input = json!({"name": "INPUT0", "datatype": "BYTES", "shape": [1],
        "parameters": {"binary_data_size": 8}});
    let head = json!({"inputs": [input]}).to_string();
    let body = [head.as_bytes(), &[255, 255, 255, 255, 0, 0, 0, 0]].concat();
    let answer = client
        .clone()
        .header("inference-header-content-length", &head.len().to_string())
        .post("/v2/models/strings/infer", body);
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(oip_error(&answer).contains("INPUT0"));
    still_serves(&client);
}

#[test]
fn a_body_too_large_is_refused_before_it_is_sent() {
    let repository = repository();
    let kapok = Kapok::new().model_repo(repository.path()).start();
    let client = kapok.http().header("content-length", &GIB.to_string());
    for path in [
        "/v2/models/identity/infer",
        "/v1/embeddings",
        "/v1/chat/completions",
    ] {
        // Only the head is sent: a server that waits for the body would never answer.
        let answer = client.raw(&client.head("POST", path, 0));
        assert!([400, 413].contains(&answer.status), "{path}: {answer:?}");
        still_serves(&kapok.http());
    }
}

#[test]
fn wrong_methods_and_paths_are_told() {
    let repository = repository();
    let kapok = Kapok::new().model_repo(repository.path()).start();
    for (method, path, status) in [
        ("GET", "/v2/models/identity/infer", 405),
        ("DELETE", "/v2/models/identity", 405),
        ("POST", "/v2/nope", 404),
        ("GET", "/v2/models/identity/nope", 404),
    ] {
        let answer = kapok.http().request(method, path, b"");
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        oip_error(&answer);
    }
    for (method, path, status) in [
        ("GET", "/v1/completions", &[405][..]),
        // Kept chats are an upstream's, and there is none.
        ("GET", "/v1/chat/completions", &[404]),
        // A POST there would be relayed to whoever has the model it names.
        ("GET", "/v1/nope", &[404, 405]),
        ("GET", "/nope", &[404]),
    ] {
        let answer = kapok.http().request(method, path, b"");
        assert!(
            status.contains(&answer.status),
            "{method} {path}: {answer:?}"
        );
        assert!(answer.json().get("error").is_some(), "{answer:?}");
    }
}

#[test]
fn bytes_that_are_no_http_close_one_connection_only() {
    let repository = repository();
    let kapok = Kapok::new().model_repo(repository.path()).start();
    let long_header = format!("GET /v2 HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let garbage_frame = [preface.as_slice(), &[0xff; 64]].concat();
    // DATA on stream 1 that no HEADERS opened.
    let orphan = [
        preface.as_slice(),
        &[0, 0, 0, 4, 0, 0, 0, 0, 0],
        &[0, 0, 4, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4],
    ]
    .concat();
    let messages: [&[u8]; 6] = [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"POST /v2/models/identity/infer HTTP/1.1\r\nhost: x\r\ncontent-length: nope\r\n\r\n",
        long_header.as_bytes(),
        &garbage_frame,
        &orphan,
    ];
    for message in messages {
        let mut connection = kapok.http().open().expect("it listens");
        // It may close while we still send, and say what it likes before it does.
        let _closed = connection.send(message);
        let _closed = connection.finish_sending();
        let _reset = connection.read_to_end();
        still_serves(&kapok.http());
    }
}
