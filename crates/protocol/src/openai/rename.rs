use super::{DEPTH_MAX, ScanError};
use crate::json::{Fault, Lone, Reader};

/// The body with another `model`; every other byte stays as it is. Of a name given twice both are replaced, for nobody
/// knows which one the reader takes.
pub fn rename(body: &[u8], model: &str) -> Result<Vec<u8>, ScanError> {
    let mut reader = Reader::new(body, DEPTH_MAX)?;
    let start = body.as_ptr().addr();
    let mut places = Vec::new();
    reader.object(|reader, key| {
        let key = key.unescape(Lone::Replace)?;
        let value = reader.skip()?;
        if key == "model" {
            let at = value.as_ptr().addr() - start;
            places.push(at..at + value.len());
        }
        Ok::<(), Fault>(())
    })?;
    reader.end()?;
    if places.is_empty() {
        return Err(ScanError::NoModel);
    }
    let name = serde_json::Value::from(model).to_string();
    let mut renamed = Vec::with_capacity(body.len() + name.len());
    let mut from = 0;
    for place in places {
        renamed.extend_from_slice(body.get(from..place.start).unwrap_or_default());
        renamed.extend_from_slice(name.as_bytes());
        from = place.end;
    }
    renamed.extend_from_slice(body.get(from..).unwrap_or_default());
    Ok(renamed)
}

/// For the fuzzer: only `model` is another afterwards.
pub(super) fn fuzz(data: &[u8]) {
    const NAME: &str = "another \"model\"";
    let Ok(renamed) = rename(data, NAME) else {
        return;
    };
    let facts = super::scan(&renamed).expect("what was renamed can be scanned");
    assert_eq!(facts.model, NAME);
    let tree = |body: &[u8]| serde_json::from_slice::<serde_json::Map<_, _>>(body);
    if let (Ok(mut before), Ok(after)) = (tree(data), tree(&renamed)) {
        before.insert("model".to_owned(), NAME.into());
        assert_eq!(before, after, "more than the name changed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_changes() {
        let longer = "a/\"b\"";
        for (body, expected) in [
            (r#"{"model":"x"}"#, r#"{"model":"a/\"b\""}"#),
            (
                " {\"top_p\": 0.70 ,\r\n\"model\" :\t\"x\\u0041\" , \"z\":[1e3, {\"model\":\"y\"}]}\n",
                " {\"top_p\": 0.70 ,\r\n\"model\" :\t\"a/\\\"b\\\"\" , \"z\":[1e3, {\"model\":\"y\"}]}\n",
            ),
            (
                r#"{"model":"x","m\u006fdel":null,"n":1}"#,
                r#"{"model":"a/\"b\"","m\u006fdel":"a/\"b\"","n":1}"#,
            ),
        ] {
            let renamed = rename(body.as_bytes(), longer).expect("a body");
            assert_eq!(String::from_utf8(renamed).expect("text"), expected);
        }
    }

    #[test]
    fn what_has_no_model_is_refused() {
        for body in ["{}", "[]", "{\"model\":\"x\"", ""] {
            rename(body.as_bytes(), "m").expect_err(body);
        }
    }
}
