use http::{HeaderMap, HeaderName, HeaderValue};
use policy::{Left, Room};

/// OpenAI's names for limit, remaining and reset.
type Names = [HeaderName; 3];

const REQUESTS: Names = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: Names = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// Writes what is left where clients of OpenAI look for it.
pub(super) fn tell(headers: &mut HeaderMap, room: &Room) {
    if let Some(left) = room.requests {
        tell_one(headers, &REQUESTS, left);
    }
    if let Some(left) = room.tokens {
        tell_one(headers, &TOKENS, left);
    }
}

fn tell_one(headers: &mut HeaderMap, [limit, remaining, reset]: &Names, left: Left) {
    headers.insert(limit, HeaderValue::from(left.limit));
    headers.insert(remaining, HeaderValue::from(left.remaining));
    // As OpenAI writes it: `6m0s`, `1s`, `20ms`. Seconds alone are read by everybody who reads those.
    let ms = left.reset.as_millis();
    let text = if ms < 1000 {
        format!("{ms}ms")
    } else {
        format!("{}s", ms.div_ceil(1000))
    };
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(reset, value);
    }
}
