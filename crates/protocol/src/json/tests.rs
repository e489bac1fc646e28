use super::*;

fn check(text: &str) -> Result<&str, Fault> {
    let mut reader = Reader::over(text, 100);
    let value = reader.skip()?;
    reader.end()?;
    assert_eq!(
        Reader::checked(value, 100).skip(),
        Ok(value),
        "once it is checked"
    );
    Ok(value)
}

#[test]
fn brackets_in_strings_are_none() {
    let text = r#"["]\"[",{"[":"}\\","b":[[1.25,-2],[3,4]]},[]]"#;
    assert_eq!(check(text), Ok(text));
}

#[test]
fn what_serde_accepts_is_accepted_and_nothing_else() {
    let texts = [
        "null",
        " true ",
        "false",
        "0",
        "-0",
        "-0.5e+10",
        "1E5",
        "1.5",
        "[]",
        "{}",
        "[[],{}]",
        r#"{"a":[1,{"b":"c"}],"d":null}"#,
        r#""\u00e9\n\/\"""#,
        "\"\u{7f}é🦀\"",
        " [ 1 , 2 ] ",
        r#""12345678\"9012345678""#,
        r#"{"a" : 1 , "a" : 2}"#,
        "",
        " ",
        "nul",
        "tru",
        "truee",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "1e+",
        "+1",
        "0x1",
        "NaN",
        "Infinity",
        "-Infinity",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "[1}",
        "{\"a\":1]",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"a\nb\"",
        "\"abcdefgh\u{1}\"",
        "1 2",
        "[] []",
        "\u{feff}{}",
        "'a'",
        "[1",
        "{",
        "// c\n1",
        "\u{a0}1",
    ];
    for text in texts {
        let serde = serde_json::from_str::<serde_json::Value>(text);
        assert_eq!(
            check(text).is_ok(),
            serde.is_ok(),
            "{text:?}: {:?} {serde:?}",
            check(text)
        );
    }
}

#[test]
fn depth_is_bounded_without_recursion() {
    for depth in [1, 63, 64, 65, 100, 101, 1_000_000] {
        for (open, middle, close) in [("[", "", "]"), ("{\"a\":", "1", "}"), ("[", "\"[\"", "]")] {
            let text = open.repeat(depth) + middle + &close.repeat(depth);
            let expected = if depth <= 100 {
                Ok(text.as_str())
            } else {
                Err(Fault::Depth { max: 100 })
            };
            assert_eq!(check(&text), expected, "{depth} {open}");
        }
        assert!(check(&"[".repeat(depth)).is_err());
    }
}

#[test]
fn strings_end_where_they_end() {
    // Every place of the special byte against the eight-byte steps.
    for before in 0..20 {
        for after in 0..20 {
            let (before, after) = ("é".repeat(before), "x".repeat(after));
            let text = format!("\"{before}\\\"{after}\"");
            assert_eq!(check(&text), Ok(text.as_str()));
            assert!(check(&format!("\"{before}\u{1f}{after}\"")).is_err());
            assert!(check(&format!("\"{before}\\\\{after}\"")).is_ok());
        }
    }
}

#[test]
fn strings_are_unescaped_as_serde_does() {
    for text in [
        r#""plain""#,
        r#""\"\\\/\b\f\n\r\t""#,
        r#""a\u00e9b""#,
        r#""\ud83e\udd80!""#,
        r#""é\u0000""#,
        r#""\uD83E\uDD80""#,
    ] {
        let read = Reader::over(text, 1)
            .text()
            .and_then(|text| text.unescape(Lone::Refuse));
        let serde: String = serde_json::from_str(text).expect("legal");
        assert_eq!(read.as_deref(), Ok(serde.as_str()), "{text}");
    }
    for (text, replaced) in [
        (r#""\ud800""#, "\u{fffd}"),
        (r#""\udc00x""#, "\u{fffd}x"),
        (r#""\ud800\u0041""#, "\u{fffd}A"),
        (r#""\ud800\ud83e\udd80""#, "\u{fffd}🦀"),
        (r#""\ud83e\n""#, "\u{fffd}\n"),
    ] {
        let read = Reader::over(text, 1).text().expect("a string");
        assert!(
            matches!(read.unescape(Lone::Refuse), Err(Fault::Surrogate { .. })),
            "{text}"
        );
        assert_eq!(
            read.unescape(Lone::Replace).as_deref(),
            Ok(replaced),
            "{text}"
        );
    }
}

#[test]
fn of_a_name_given_twice_the_last_counts() {
    let mut reader = Reader::over(r#"{"a":1,"b":{"a":3},"\u0061":2,"c":4}"#, 10);
    assert_eq!(reader.fields(["a", "z"]), Ok([Some("2"), None]));
}
