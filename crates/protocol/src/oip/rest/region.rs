//! Bodies about shared memory regions.

use serde::Serialize;

use super::DEPTH_MAX;
use super::error::broken;
use crate::ApiError;
use crate::json::{Lone, Reader};

/// What a region is registered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterRegion {
    /// The shared memory object's name.
    pub key: String,
    pub offset: u64,
    pub byte_size: u64,
}

/// One line of a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegionStatus<'a> {
    pub name: &'a str,
    pub key: &'a str,
    pub offset: u64,
    pub byte_size: u64,
}

/// `POST /v2/systemsharedmemory/region/{name}/register`
pub fn read_region(body: &[u8]) -> Result<RegisterRegion, ApiError> {
    let mut reader = Reader::new(body, DEPTH_MAX).map_err(broken)?;
    let fields = reader.fields(["key", "offset", "byte_size"]);
    let [key, offset, byte_size] = fields.map_err(broken)?;
    reader.end().map_err(broken)?;
    let key = key.ok_or_else(|| missing("key"))?;
    let key = Reader::over(key, DEPTH_MAX)
        .text()
        .and_then(|text| text.unescape(Lone::Refuse).map(String::from))
        .map_err(|fault| unreadable("key", &fault.to_string()))?;
    let number = |name: &str, text: &str| {
        text.parse::<u64>().map_err(|_| {
            unreadable(
                name,
                "attempt to access JSON non-unsigned-integer as unsigned-integer",
            )
        })
    };
    Ok(RegisterRegion {
        key,
        offset: offset.map_or(Ok(0), |text| number("offset", text))?,
        byte_size: number("byte_size", byte_size.ok_or_else(|| missing("byte_size"))?)?,
    })
}

/// `GET /v2/systemsharedmemory/status`
pub fn regions(regions: &[RegionStatus<'_>]) -> Vec<u8> {
    serde_json::to_vec(regions).expect("names and numbers always serialise")
}

fn missing(field: &str) -> ApiError {
    let reason = format!("attempt to access non-existing object member '{field}'");
    unreadable(field, &reason)
}

fn unreadable(field: &str, reason: &str) -> ApiError {
    ApiError::invalid(format!("Unable to parse '{field}': {reason}")).with_param(field)
}

/// For the fuzzer: whatever the bytes, an answer.
pub fn fuzz_rest_region(data: &[u8]) {
    if let Ok(region) = read_region(data) {
        let json = serde_json::json!({"key": region.key, "offset": region.offset, "byte_size": region.byte_size});
        assert_eq!(read_region(json.to_string().as_bytes()), Ok(region));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_a_key_a_size_and_perhaps_an_offset() {
        let read = |body: &str| read_region(body.as_bytes()).map_err(|error| error.message);
        let region = |offset| RegisterRegion {
            key: "/a".into(),
            offset,
            byte_size: 64,
        };
        assert_eq!(read(r#"{"key":"/a","byte_size":64}"#), Ok(region(0)));
        assert_eq!(
            read(r#"{"offset":8,"key":"/a","byte_size":64,"more":[]}"#),
            Ok(region(8))
        );
        for (body, part) in [
            ("", "failed to parse the request JSON"),
            ("[]", "failed to parse the request JSON"),
            ("{}", "'key'"),
            (r#"{"key":1,"byte_size":1}"#, "Unable to parse 'key'"),
            (r#"{"key":"/a"}"#, "non-existing object member 'byte_size'"),
            (r#"{"key":"/a","byte_size":-1}"#, "non-unsigned-integer"),
            (
                r#"{"key":"/a","byte_size":1,"offset":"2"}"#,
                "Unable to parse 'offset'",
            ),
        ] {
            let message = read(body).expect_err(body);
            assert!(message.contains(part), "{message}");
        }
        let deep = format!(r#"{{"key":"/a","byte_size":1,"x":{}"#, "[".repeat(200));
        assert!(read(&deep).expect_err("too deep").contains("100"));
    }
}
