use base64::Engine as _;

use super::*;
use crate::{ApiError, EmbedInputs, Embeddings};

fn facts(body: &str) -> Result<(String, bool, Option<String>), String> {
    scan(body.as_bytes())
        .map(|facts| {
            let user = facts.user.map(String::from);
            (facts.model.into_owned(), facts.stream, user)
        })
        .map_err(|error| error.to_string())
}

#[test]
fn the_scan_finds_the_top_level_fields_and_only_those() {
    let user = |name: &str| Some(name.to_owned());
    for (body, model, stream, found) in [
        (r#"{"model":"m"}"#, "m", false, None),
        (
            r#" { "stream" : true , "model" : "m" , "user":"u" } "#,
            "m",
            true,
            user("u"),
        ),
        (
            r#"{"messages":[{"model":"inner","stream":true}],"model":"outer"}"#,
            "outer",
            false,
            None,
        ),
        (r#"{"model":"a","x":"\"model\":\"b\""}"#, "a", false, None),
        (
            r#"{"model":"a","model":"b","stream":true,"stream":false}"#,
            "b",
            false,
            None,
        ),
        (
            r#"{"mod\u0065l":"caf\u00e9","us\u0065r":"\n"}"#,
            "café",
            false,
            user("\n"),
        ),
        (r#"{"model":"m","stream":null,"user":7}"#, "m", false, None),
        (r#"{"model":"m","stream":"true"}"#, "m", false, None),
        (r#"{"model":"\ud800x"}"#, "\u{fffd}x", false, None),
        (
            r#"{"a":{"b":[[],{},[{"model":1}]]},"n":-1.5e-3,"model":""}"#,
            "",
            false,
            None,
        ),
    ] {
        assert_eq!(facts(body), Ok((model.to_owned(), stream, found)), "{body}");
    }
}

#[test]
fn what_cannot_be_routed_says_why() {
    for (body, expected) in [
        (
            "",
            "we could not parse the JSON body of your request: not valid JSON at byte 0: the text ends where a value should be",
        ),
        (
            "{",
            "we could not parse the JSON body of your request: not valid JSON at byte 1: expected a member's name in quotes",
        ),
        (
            "{\"model\":\"m\"} x",
            "we could not parse the JSON body of your request: not valid JSON at byte 14: there is more after the end",
        ),
        (
            "[1]",
            "the JSON body of your request must be an object, and is an array",
        ),
        ("{}", "you must provide a model parameter"),
        (
            r#"{"a":{"model":"m"}}"#,
            "you must provide a model parameter",
        ),
        (
            r#"{"model":7}"#,
            "you must provide a model parameter that is a string, and it is a number",
        ),
        (
            r#"{"model":null}"#,
            "you must provide a model parameter that is a string, and it is null",
        ),
    ] {
        assert_eq!(facts(body), Err(expected.to_owned()), "{body}");
    }
    let deep = format!(
        "{{\"model\":\"m\",\"x\":{}{}}}",
        "[".repeat(5000),
        "]".repeat(5000)
    );
    let error = facts(&deep).expect_err("too deep");
    assert!(
        error.ends_with("JSON nesting depth exceeds maximum allowed limit (1000)"),
        "{error}"
    );
    let error = ApiError::from(ScanError::NoModel);
    assert_eq!(error.param.as_deref(), Some("model"));
    assert!(scan(b"{\"model\":\"\xff\"}").is_err());
}

fn parsed(body: &str) -> Result<(crate::EmbedRequest, EncodingFormat), ApiError> {
    parse_embeddings(body.as_bytes())
}

#[test]
fn all_four_shapes_of_input_are_read() {
    let texts =
        |texts: &[&str]| EmbedInputs::Texts(texts.iter().map(|&text| text.to_owned()).collect());
    for (input, expected) in [
        (r#""one""#, texts(&["one"])),
        (r#"["one","t\u0077o"]"#, texts(&["one", "two"])),
        ("[1,2,3]", EmbedInputs::Tokens(vec![vec![1, 2, 3]])),
        (
            "[[1],[4294967295, 0]]",
            EmbedInputs::Tokens(vec![vec![1], vec![u32::MAX, 0]]),
        ),
    ] {
        let body = format!(r#"{{"model":"m","input":{input},"user":"u","extra":[{{}}]}}"#);
        let (request, format) = parsed(&body).expect("legal");
        assert_eq!(
            (request.inputs, request.dimensions, format),
            (expected, None, EncodingFormat::Float),
            "{body}"
        );
    }
    let (request, format) =
        parsed(r#"{"model":"m","input":"x","dimensions":64,"encoding_format":"base64"}"#)
            .expect("legal");
    assert_eq!(
        (request.dimensions, format),
        (Some(64), EncodingFormat::Base64)
    );
    let (request, format) =
        parsed(r#"{"model":"m","input":"x","dimensions":null,"encoding_format":null}"#)
            .expect("legal");
    assert_eq!((request.dimensions, format), (None, EncodingFormat::Float));
}

#[test]
fn bad_embedding_requests_name_the_parameter() {
    let many = format!("[{}]", vec!["\"x\""; 2049].join(","));
    for (fields, param, message) in [
        ("", "input", "you must provide an input"),
        (r#","input":"""#, "input", "empty string"),
        (r#","input":["a",""]"#, "input", "empty string"),
        (r#","input":[]"#, "input", "empty list"),
        (r#","input":[[]]"#, "input", "empty list"),
        (r#","input":{}"#, "input", "must be a string"),
        (r#","input":null"#, "input", "must be a string"),
        (r#","input":[1,"a"]"#, "input", "must be a string"),
        (r#","input":[["a"]]"#, "input", "must be a string"),
        (r#","input":[true]"#, "input", "must be a string"),
        (r#","input":[-1]"#, "input", "token id"),
        (r#","input":[1.5]"#, "input", "token id"),
        (r#","input":[4294967296]"#, "input", "token id"),
        (&format!(r#","input":{many}"#), "input", "2048"),
        (r#","input":"x","dimensions":0"#, "dimensions", "from 1 up"),
        (
            r#","input":"x","dimensions":"8""#,
            "dimensions",
            "from 1 up",
        ),
        (
            r#","input":"x","encoding_format":"int8""#,
            "encoding_format",
            "float",
        ),
    ] {
        let error = parsed(&format!(r#"{{"model":"m"{fields}}}"#)).expect_err(fields);
        assert_eq!(error.param.as_deref(), Some(param), "{fields}");
        assert!(error.message.contains(message), "{fields}: {error}");
    }
    assert_eq!(
        parsed("{\"input\":\"x\"}")
            .expect_err("no model")
            .param
            .as_deref(),
        Some("model")
    );
}

#[test]
fn vectors_are_written_so_that_every_bit_comes_back() {
    let vectors = vec![
        vec![0.1_f32, -1.0, 1e-30, f32::MAX, f32::MIN_POSITIVE],
        vec![0.0; 5],
    ];
    let embeddings = Embeddings {
        model: "m\"".to_owned(),
        vectors: vectors.clone(),
        tokens: 7,
    };
    let float = encode_embeddings(&embeddings, EncodingFormat::Float);
    let text = String::from_utf8(float.clone()).expect("UTF-8");
    assert!(
        text.starts_with(
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,-1.0,"#
        ),
        "{text}"
    );
    assert!(
        text.ends_with(r#""model":"m\"","usage":{"prompt_tokens":7,"total_tokens":7}}"#),
        "{text}"
    );
    let tree: serde_json::Value = serde_json::from_slice(&float).expect("JSON");
    let read: Vec<Vec<f32>> = (0..2)
        .map(|row| serde_json::from_value(tree["data"][row]["embedding"].clone()).expect("numbers"))
        .collect();
    assert_eq!(read, vectors);

    let tree: serde_json::Value =
        serde_json::from_slice(&encode_embeddings(&embeddings, EncodingFormat::Base64))
            .expect("JSON");
    let text = tree["data"][0]["embedding"].as_str().expect("a string");
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text)
        .expect("base64");
    let (words, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    let read: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    assert_eq!(read, vectors[0]);
}

#[test]
fn models_are_listed_as_openai_lists_them() {
    let entry = ModelEntry {
        id: "m".to_owned(),
        created: 5,
        owned_by: "kapok".to_owned(),
    };
    let one = r#"{"id":"m","object":"model","created":5,"owned_by":"kapok"}"#;
    assert_eq!(model(&entry), one.as_bytes());
    assert_eq!(
        models(&[entry]),
        format!(r#"{{"object":"list","data":[{one}]}}"#).as_bytes()
    );
    assert_eq!(models(&[]), br#"{"object":"list","data":[]}"#);
}
