use crate::json::{Kind, Reader};
use crate::openai::DEPTH_MAX;

/// The body with `stream_options.include_usage` set, and nothing else changed. None if it is set already, if the answer
/// is no stream and so tells anyway, or if what stands there is for the upstream to refuse.
pub fn ask_usage(body: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(body, DEPTH_MAX).ok()?;
    let [stream, options] = reader.fields(["stream", "stream_options"]).ok()?;
    reader.end().ok()?;
    if stream != Some("true") {
        return None;
    }
    let Some(options) = options else {
        // The object's own end is the last thing in the body, and `stream` is in it, so a comma belongs between.
        let end = body.iter().rposition(|byte| *byte == b'}')?;
        return Some(replaced(
            body,
            end..end,
            br#","stream_options":{"include_usage":true}"#,
        ));
    };
    let place = place_of(options, body);
    let mut reader = Reader::over(options, DEPTH_MAX);
    match reader.kind().ok()? {
        Kind::Null => Some(replaced(body, place, br#"{"include_usage":true}"#)),
        Kind::Object => match reader.fields(["include_usage"]).ok()? {
            [Some("false" | "null")] => within(body, options),
            [Some(_)] => None,
            [None] => {
                let inside = options.get(1..)?.trim_ascii_start();
                let text: &[u8] = if inside.starts_with('}') {
                    br#""include_usage":true"#
                } else {
                    br#""include_usage":true,"#
                };
                let start = place.start + 1;
                Some(replaced(body, start..start, text))
            }
        },
        Kind::Array | Kind::Text | Kind::Number | Kind::Bool => None,
    }
}

fn within(body: &[u8], options: &str) -> Option<Vec<u8>> {
    let [value] = Reader::over(options, DEPTH_MAX)
        .fields(["include_usage"])
        .ok()?;
    Some(replaced(body, place_of(value?, body), b"true"))
}

/// Where in the body a slice of it is.
fn place_of(slice: &str, body: &[u8]) -> std::ops::Range<usize> {
    let start = slice.as_ptr() as usize - body.as_ptr() as usize;
    start..start + slice.len()
}

fn replaced(body: &[u8], place: std::ops::Range<usize>, by: &[u8]) -> Vec<u8> {
    let mut spliced = Vec::with_capacity(body.len() - place.len() + by.len());
    spliced.extend_from_slice(&body[..place.start]);
    spliced.extend_from_slice(by);
    spliced.extend_from_slice(&body[place.end..]);
    spliced
}
