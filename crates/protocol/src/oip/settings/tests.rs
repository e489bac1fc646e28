use base::ErrorKind;

use super::*;
use crate::oip::proto::{TraceSettingRequest, trace_setting_request};

#[test]
fn trace_settings_are_set_and_cleared_over_both_wires() {
    let body = br#"{"trace_level": ["TIMESTAMPS"], "trace_rate": "5", "trace_count": "-1", "log_frequency": null}"#;
    let expected = TraceChange {
        level: Change::Set(TraceLevel::Timestamps),
        rate: Change::Set(5),
        count: Change::Set(-1),
        log_frequency: Change::Clear,
    };
    assert_eq!(TraceChange::from_json(body).as_ref(), Ok(&expected));
    let value = |values: &[&str]| trace_setting_request::SettingValue {
        value: values.iter().map(|&value| value.to_owned()).collect(),
    };
    let message = TraceSettingRequest {
        settings: [
            ("trace_level".to_owned(), value(&["TIMESTAMPS"])),
            ("trace_rate".to_owned(), value(&["5"])),
            ("trace_count".to_owned(), value(&["-1"])),
            ("log_frequency".to_owned(), value(&[])),
        ]
        .into(),
        model_name: String::new(),
    };
    assert_eq!(TraceChange::from_grpc(message), Ok(expected));
    assert_eq!(TraceChange::from_json(b""), Ok(TraceChange::default()));
}

#[test]
fn wrong_trace_settings_are_refused_in_tritons_words() {
    for (body, expected) in [
        (
            r#"{"trace_level": ["OFF", "TIMESTAMPS"]}"#,
            "Expect only one trace level 'OFF' is specified",
        ),
        (
            r#"{"trace_level": ["TENSORS"]}"#,
            "trace level 'TENSORS' is not supported",
        ),
        (r#"{"trace_level": ["ALL"]}"#, "unknown trace level 'ALL'"),
        (
            r#"{"trace_rate": "x"}"#,
            "Unable to parse 'trace_rate', got: x",
        ),
        (
            r#"{"trace_rate": "99999999999"}"#,
            "value is out of range [ 0, 4294967295 ], got: 99999999999",
        ),
        (
            r#"{"trace_count": "-2"}"#,
            "Unable to parse 'trace_count'. Expecting value >= -1, got: -2",
        ),
        (
            r#"{"trace_rate": ["1", "2"]}"#,
            "expect only 1 value for 'trace_rate'",
        ),
        (r#"{"trace_rate": {}}"#, "'trace_rate' takes text"),
        (
            r#"{"trace_file": "x"}"#,
            "trace file location can not be updated through network protocol",
        ),
        (
            r#"{"trace_mode": "opentelemetry"}"#,
            "trace mode 'opentelemetry' is not supported",
        ),
        (
            r#"{"trace_speed": "1"}"#,
            "unknown trace setting 'trace_speed'",
        ),
        ("[]", "failed to parse"),
    ] {
        let error = TraceChange::from_json(body.as_bytes()).expect_err(body);
        assert!(error.message.contains(expected), "{body}: {error}");
    }
}

#[test]
fn log_settings_are_read_and_refused() {
    let body = br#"{"log_info": false, "log_verbose_level": 2, "log_format": "default", "log_error": null}"#;
    let expected = LogChange {
        info: Some(false),
        verbose_level: Some(2),
        format: Some(LogFormat::Default),
        ..LogChange::default()
    };
    assert_eq!(LogChange::from_json(body), Ok(expected));
    for (body, expected) in [
        (r#"{"log_info": "x"}"#, "expect boolean for 'log_info'"),
        (
            r#"{"log_verbose_level": -1}"#,
            "expect int32 for 'log_verbose_level'",
        ),
        (
            r#"{"log_format": "json"}"#,
            "invalid argument for log_format, got: json",
        ),
        (r#"{"log_format": 1}"#, "expect string for 'log_format'"),
        (
            r#"{"log_file": "/etc/x"}"#,
            "log file location can not be updated through network protocol",
        ),
        (
            r#"{"log_colour": true}"#,
            "unknown log setting 'log_colour'",
        ),
    ] {
        let error = LogChange::from_json(body.as_bytes()).expect_err(body);
        assert!(error.message.contains(expected), "{body}: {error}");
        let refused = if body.contains("log_file") {
            ErrorKind::Unsupported
        } else {
            ErrorKind::Invalid
        };
        assert_eq!(error.kind, refused);
    }
}

#[test]
fn answers_name_every_setting() {
    let log = LogSettings::default();
    let json: Value = serde_json::from_slice(&log.to_json()).expect("JSON");
    let message = log.to_grpc();
    assert!(message.settings.keys().all(|name| json.get(name).is_some()));
    assert_eq!(message.settings.len(), 6);
    let trace = TraceSettings::default();
    let json: Value = serde_json::from_slice(&trace.to_json()).expect("JSON");
    assert_eq!(
        (&json["trace_level"][0], &json["trace_rate"]),
        (&"OFF".into(), &"1000".into())
    );
    assert_eq!(trace.to_grpc().settings["trace_count"].value, ["-1"]);
}
