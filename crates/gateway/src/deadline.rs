use std::time::Duration;

use http::{HeaderMap, HeaderName};

use crate::headers::{GRPC_TIMEOUT, STAINLESS_READ_TIMEOUT, TIMEOUT_MS};

/// How long the caller said it would wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Patience {
    /// For the whole answer.
    pub(crate) total: Option<Duration>,
    /// For the next part of it.
    pub(crate) silence: Option<Duration>,
}

/// Longer than any request lives; keeps `Instant` arithmetic far from its end.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// What cannot be understood is taken as not said: a wrong hint must not fail a right request.
pub(crate) fn patience(headers: &HeaderMap) -> Patience {
    let milliseconds = text(headers, &TIMEOUT_MS)
        .and_then(|text| text.parse().ok())
        .map(Duration::from_millis);
    let grpc = text(headers, &GRPC_TIMEOUT).and_then(grpc_timeout);
    let total = match (milliseconds, grpc) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (left, right) => left.or(right),
    };
    let silence = text(headers, &STAINLESS_READ_TIMEOUT)
        .and_then(|text| text.parse::<f64>().ok())
        .filter(|seconds| seconds.is_finite() && *seconds > 0.0)
        .map(|seconds| Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64())));
    Patience {
        total: total.map(|total| total.min(LONGEST)),
        silence,
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// At most eight digits and a unit (the gRPC-over-HTTP/2 specification).
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: &[(&'static str, &str)], total_ms: Option<u64>, silence_ms: Option<u64>) {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.insert(*name, value.parse().expect("a header value"));
        }
        let expected = Patience {
            total: total_ms.map(Duration::from_millis),
            silence: silence_ms.map(Duration::from_millis),
        };
        assert_eq!(patience(&headers), expected, "{given:?}");
    }

    #[test]
    fn each_client_says_it_in_its_own_way() {
        check(&[], None, None);
        check(&[("x-request-timeout-ms", "250")], Some(250), None);
        check(&[("grpc-timeout", "3S")], Some(3000), None);
        check(&[("grpc-timeout", "1500m")], Some(1500), None);
        check(&[("grpc-timeout", "2H")], Some(7_200_000), None);
        check(
            &[("grpc-timeout", "2000u"), ("x-request-timeout-ms", "9")],
            Some(2),
            None,
        );
        check(&[("x-stainless-read-timeout", "0.5")], None, Some(500));
        check(&[("x-stainless-read-timeout", "600")], None, Some(600_000));
    }

    #[test]
    fn nonsense_is_taken_as_not_said() {
        for (name, value) in [
            ("x-request-timeout-ms", "soon"),
            ("x-request-timeout-ms", "-1"),
            ("grpc-timeout", "S"),
            ("grpc-timeout", ""),
            ("grpc-timeout", "123456789S"),
            ("grpc-timeout", "+1S"),
            ("x-stainless-read-timeout", "NaN"),
            ("x-stainless-read-timeout", "-3"),
        ] {
            check(&[(name, value)], None, None);
        }
    }
}
