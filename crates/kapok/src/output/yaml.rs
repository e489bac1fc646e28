//! Writes a JSON value as YAML in block style. Any string that YAML could read as something else is quoted.

use serde_json::Value;

pub(super) fn to_string(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(&mut text, value, 0),
        Value::Array(items) if !items.is_empty() => block(&mut text, value, 0),
        scalar => {
            text.push_str(&inline(scalar));
            text.push('\n');
        }
    }
    text
}

/// A non-empty map or sequence, each line indented; the first line's indent is the caller's when it follows `- `.
fn block(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (index, (key, item)) in map.iter().enumerate() {
                if index > 0 || depth == 0 || !text.ends_with("- ") {
                    text.push_str(&indent);
                }
                text.push_str(&string(key));
                text.push(':');
                entry(text, item, depth + 1);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 || depth == 0 || !text.ends_with("- ") {
                    text.push_str(&indent);
                }
                text.push_str("- ");
                if is_block(item) {
                    block(text, item, depth + 1);
                } else {
                    text.push_str(&inline(item));
                    text.push('\n');
                }
            }
        }
        scalar => text.push_str(&inline(scalar)),
    }
}

/// What stands behind `key:`.
fn entry(text: &mut String, item: &Value, depth: usize) {
    if is_block(item) {
        text.push('\n');
        block(text, item, depth);
    } else {
        text.push(' ');
        text.push_str(&inline(item));
        text.push('\n');
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        // Vectors and shapes read better on one line.
        Value::Array(items) => !items.is_empty() && !items.iter().all(Value::is_number),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(_) => "{}".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Plain only when it cannot be mistaken: starts with a letter, holds harmless characters, is no YAML 1.1 or 1.2 keyword.
fn string(text: &str) -> String {
    const KEYWORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .chars()
            .all(|each| each.is_ascii_alphanumeric() || "_-./ ".contains(each))
        && !text.ends_with(' ')
        && !KEYWORDS.contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { quoted(text) }
}

/// JSON's escapes are valid between YAML's double quotes; what YAML calls unprintable is escaped besides.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for each in text.chars() {
        match each {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => out.push_str(&format!("\\u{:04x}", u32::from(each))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_as_a_person_would_write_it() {
        let value = json!({
            "models": [
                {"name": "identity", "shape": [-1, 3], "tags": ["a", "b"], "reason": ""},
                {"name": "on", "empty": {}, "none": null},
            ],
            "ready": true,
        });
        assert_eq!(
            to_string(&value),
            "models:\n  - name: identity\n    reason: \"\"\n    shape: [-1, 3]\n    tags:\n      - a\n      - b\n  - empty: {}\n    name: \"on\"\n    none: null\nready: true\n"
        );
    }

    #[test]
    fn a_yaml_reader_gets_the_same_value_back() {
        let awkward = [
            "",
            " ",
            "-",
            "- a",
            "a: b",
            "a #b",
            "#",
            "yes",
            "No",
            "NULL",
            "~",
            "1",
            "1e3",
            "0x10",
            ".inf",
            "1_000",
            "2026-01-01",
            "12:30:45",
            "'",
            "\"",
            "\\",
            "a\nb",
            "\t",
            "\u{0}",
            "\u{7f}",
            "\u{85}",
            "\u{2028}",
            "\u{feff}",
            "größe",
            "🌸",
            "&a",
            "*a",
            "!a",
            "|",
            ">",
            "%",
            "@",
            "`",
            "{",
            "[",
            "a,b",
            "? a",
            "---",
            "...",
            "=",
            "<<",
            "a ",
        ];
        let mut cases: Vec<Value> = awkward.iter().map(|text| json!(text)).collect();
        cases.push(json!(awkward.to_vec()));
        cases.push(json!({"list": awkward.to_vec(), "nested": [[1, 2], [["x"], []], [{}], [{"a": [{"b": 1}]}]]}));
        cases.extend(awkward.iter().map(|text| json!({ *text: {*text: *text} })));
        cases.push(json!([1, -2, 0.5, 1e300, u64::MAX, i64::MIN, true, null]));
        for case in cases {
            let text = to_string(&case);
            let back: Value = serde_saphyr::from_str(&text)
                .unwrap_or_else(|error| panic!("{case}: {error}\n{text}"));
            assert_eq!(back, case, "\n{text}");
        }
    }
}
