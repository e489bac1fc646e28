use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName};

use crate::headers::RETRY_AFTER_MS;

/// A server that says no more than "not now" is left alone for a moment, so that the next request does not find it as
/// busy.
const UNSAID: Duration = Duration::from_secs(1);

/// How long a server that refused wants to be left alone: `retry-after-ms`, else `Retry-After` in seconds or as a date,
/// in the order in which openai-python reads them.
pub(super) fn wanted(headers: &HeaderMap, wall: SystemTime) -> Duration {
    said(headers, wall).unwrap_or(UNSAID)
}

/// The same; none if it does not say, or not so that it can be understood.
pub(crate) fn said(headers: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
    let seconds = |text: &str| text.parse().ok().filter(|number: &f64| *number >= 0.0);
    let from = |seconds: f64| Duration::try_from_secs_f64(seconds).ok();
    if let Some(ms) = text(RETRY_AFTER_MS).and_then(seconds) {
        return from(ms / 1000.0);
    }
    let said = text(RETRY_AFTER)?;
    if let Some(seconds) = seconds(said) {
        return from(seconds);
    }
    let date = httpdate::parse_http_date(said).ok()?;
    Some(date.duration_since(wall).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn each_server_says_it_in_its_own_way() {
        // 1994-11-06 08:49:37, RFC 9110's example.
        let wall = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (given, expected_ms) in [
            (&[][..], 1000),
            (&[("retry-after", "2")], 2000),
            (&[("retry-after", "0.5")], 500),
            (&[("retry-after-ms", "250")], 250),
            (&[("retry-after-ms", "250"), ("retry-after", "9")], 250),
            (&[("retry-after-ms", "soon"), ("retry-after", "9")], 9000),
            (&[("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT")], 60_000),
            (&[("retry-after", "Sun, 06 Nov 1994 08:40:00 GMT")], 0),
            (&[("retry-after", "soon")], 1000),
            (&[("retry-after", "-3")], 1000),
            (&[("retry-after", "NaN")], 1000),
            (&[("retry-after", "1e400")], 1000),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.insert(*name, value.parse().expect("a header value"));
            }
            let expected = Duration::from_millis(expected_ms);
            assert_eq!(wanted(&headers, wall), expected, "{given:?}");
        }
    }
}
