//! The model that a multipart form names (audio, images), found while the form arrives.

use crate::ApiError;

/// RFC 2046 allows 70 characters.
const BOUNDARY_BYTES_MAX: usize = 70;

/// A part's own headers; browsers and SDKs write two lines.
const HEADERS_BYTES_MAX: usize = 8 << 10;

/// A longer value is no model's name.
const NAME_BYTES_MAX: usize = 4 << 10;

const FIELD: &str = "model";

/// How far a form has been looked through. The form itself stays with the caller, who shows it again when it has grown.
#[derive(Debug, Clone)]
pub struct FormScan {
    /// `--` and the boundary.
    delimiter: Vec<u8>,
    /// Where the next delimiter may begin at the earliest.
    at: usize,
}

/// What has been seen of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Model(String),
    /// Not in what is there.
    More,
    /// The form has ended without one.
    Nothing,
}

impl FormScan {
    /// None if the `Content-Type` is not a multipart form's; an error if it is, and names no boundary.
    pub fn of(content_type: &[u8]) -> Option<Result<Self, ApiError>> {
        let text = std::str::from_utf8(content_type).ok()?;
        let (kind, parameters) = text.split_once(';').unwrap_or((text, ""));
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let boundary = parameter(parameters, "boundary")
            .filter(|boundary| (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()));
        Some(boundary.map_or_else(
            || {
                Err(ApiError::invalid(
                    "the form's Content-Type names no boundary",
                ))
            },
            |boundary| {
                Ok(Self {
                    delimiter: format!("--{boundary}").into_bytes(),
                    at: 0,
                })
            },
        ))
    }

    /// Looks on through a form of which `form` is the beginning; each byte is looked at once, but for the last part that
    /// had not ended.
    pub fn look(&mut self, form: &[u8]) -> Result<Seen, ApiError> {
        loop {
            let Some(start) = self.delimiter_from(form, self.at) else {
                // A delimiter may be cut at the end.
                self.at = self.at.max(form.len().saturating_sub(self.delimiter.len()));
                return Ok(Seen::More);
            };
            self.at = start;
            let rest = &form[start + self.delimiter.len()..];
            if rest.starts_with(b"--") {
                return Ok(Seen::Nothing);
            }
            let Some(headers_bytes) = find(rest, b"\r\n\r\n") else {
                if rest.len() > HEADERS_BYTES_MAX {
                    return Err(ApiError::invalid(
                        "a part of the form has no end of headers",
                    ));
                }
                return Ok(Seen::More);
            };
            let content = start + self.delimiter.len() + headers_bytes + 4;
            if !names_the_model(&rest[..headers_bytes]) {
                self.at = content;
                continue;
            }
            let value = &form[content..];
            let Some(end) = self.delimiter_from(form, content) else {
                if value.len() > NAME_BYTES_MAX {
                    return Err(too_long());
                }
                return Ok(Seen::More);
            };
            let value = &form[content..end];
            let value = value.strip_suffix(b"\r\n").unwrap_or(value);
            return read(value).map(Seen::Model);
        }
    }

    /// A delimiter stands at the beginning of a line.
    fn delimiter_from(&self, form: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        while let Some(found) = form.get(at..).and_then(|rest| find(rest, &self.delimiter)) {
            let start = at + found;
            if start == 0 || form[..start].ends_with(b"\r\n") {
                return Some(start);
            }
            at = start + 1;
        }
        None
    }
}

fn read(value: &[u8]) -> Result<String, ApiError> {
    if value.len() > NAME_BYTES_MAX {
        return Err(too_long());
    }
    String::from_utf8(value.to_vec())
        .map_err(|_| ApiError::invalid("the form's `model` is not text").with_param(FIELD))
}

fn too_long() -> ApiError {
    let message = format!("the form's `model` is longer than {NAME_BYTES_MAX} bytes");
    ApiError::invalid(message).with_param(FIELD)
}

fn names_the_model(headers: &[u8]) -> bool {
    let Ok(headers) = std::str::from_utf8(headers) else {
        return false;
    };
    headers.split("\r\n").any(|line| {
        let Some((name, value)) = line.split_once(':') else {
            return false;
        };
        name.trim().eq_ignore_ascii_case("content-disposition")
            && parameter(value, "name").as_deref() == Some(FIELD)
    })
}

/// The value of a parameter of a header, without its quotes.
fn parameter(text: &str, wanted: &str) -> Option<String> {
    text.split(';').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        let value = value.trim();
        let bare = value
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        name.trim()
            .eq_ignore_ascii_case(wanted)
            .then(|| bare.unwrap_or(value).to_owned())
    })
}

/// Where `part` begins: jumps from one occurrence of its first byte to the next.
fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    let first = *part.first()?;
    let mut at = 0;
    loop {
        at += text.get(at..)?.iter().position(|byte| *byte == first)?;
        if text[at..].starts_with(part) {
            return Some(at);
        }
        at += 1;
    }
}

/// For the fuzzer: a form is found to say the same however its bytes arrive.
pub fn fuzz_openai_form(data: &[u8]) {
    let scan = || FormScan {
        delimiter: b"--x".to_vec(),
        at: 0,
    };
    let whole = scan().look(data);
    let mut growing = scan();
    let mut found = Ok(Seen::More);
    for end in 0..=data.len() {
        found = growing.look(&data[..end]);
        if found != Ok(Seen::More) {
            break;
        }
    }
    // What follows the end of a refused or found part is not looked at by who was shown less.
    match (&whole, &found) {
        (Ok(Seen::Model(whole)), Ok(Seen::Model(found))) => assert_eq!(whole, found),
        (Ok(Seen::More), found) => assert_eq!(found, &Ok(Seen::More), "more was seen in less"),
        (Ok(Seen::Nothing), found) => assert!(
            matches!(found, Ok(Seen::Nothing) | Err(_)),
            "the end was missed"
        ),
        (Ok(Seen::Model(_)), found) => assert!(found.is_err(), "the model was missed"),
        (Err(_), _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(content_type: &str) -> FormScan {
        FormScan::of(content_type.as_bytes())
            .expect("a form")
            .expect("a boundary")
    }

    fn part(disposition: &str, content: &str) -> String {
        format!("--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n")
    }

    #[test]
    fn the_model_is_found_whatever_stands_before_it_and_however_it_arrives() {
        let file = part(
            "name=\"file\"; filename=\"model.wav\"",
            "RIFF--b--not\r\n--bb",
        );
        for (parts, expected) in [
            (vec![part("name=\"model\"", "whisper-1")], Some("whisper-1")),
            (vec![part("name=model", "m")], Some("m")),
            (vec![file.clone(), part("name=\"model\"", "m")], Some("m")),
            (vec![part("name=\"model\"", "")], Some("")),
            (vec![file, part("name=\"language\"", "model")], None),
        ] {
            let form = parts.concat() + "--b--\r\n";
            let form = form.as_bytes();
            let mut growing = scan("multipart/form-data; boundary=b");
            let seen = (0..=form.len())
                .map(|end| growing.look(&form[..end]).expect("a legal form"))
                .find(|seen| *seen != Seen::More);
            let expected = expected.map_or(Seen::Nothing, |model| Seen::Model(model.to_owned()));
            assert_eq!(seen, Some(expected), "{parts:?}");
        }
    }

    #[test]
    fn a_large_file_before_the_model_is_passed_over_once() {
        let mut growing = scan("multipart/form-data; boundary=\"b\"");
        let head = part("name=\"file\"; filename=\"f\"", "");
        let mut form = head.trim_end().as_bytes().to_vec();
        form.extend_from_slice(b"\r\n\r\n");
        for _ in 0..64 {
            form.extend_from_slice(&[b'-'; 1024]);
            assert_eq!(growing.look(&form), Ok(Seen::More));
            assert!(growing.at + 16 > form.len(), "looks at it again");
        }
    }

    #[test]
    fn what_is_no_form_is_said() {
        assert!(FormScan::of(b"application/json").is_none());
        for text in ["multipart/form-data", "multipart/form-data; boundary="] {
            let refused = FormScan::of(text.as_bytes()).expect("a form");
            assert!(refused.is_err(), "{text}");
        }
        let endless = format!("--b\r\n{}", "x".repeat(HEADERS_BYTES_MAX + 1));
        let refused =
            scan("Multipart/Form-Data; charset=utf-8; boundary=b").look(endless.as_bytes());
        assert!(refused.is_err());
        let long = part("name=\"model\"", &"m".repeat(NAME_BYTES_MAX + 1));
        assert!(
            scan("multipart/form-data; boundary=b")
                .look(long.as_bytes())
                .is_err()
        );
    }
}
