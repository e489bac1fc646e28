use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::digits::push_hex;

/// Names one request in answers (`x-request-id`), logs and the ledger.
///
/// A client's own id is kept when it is 1 to 128 visible ASCII characters; anything else gets a fresh one, so that
/// an id can always be written to a header and to a log line as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(String);

/// Longest id taken from a client; openai-python sends 36 characters, W3C trace ids are 55.
const CHARS_MAX: usize = 128;

impl RequestId {
    /// A fresh id, unique within a process and unlikely to repeat across processes.
    pub fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        static SEED: std::sync::OnceLock<RandomState> = std::sync::OnceLock::new();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mixed = SEED.get_or_init(RandomState::new).hash_one(number);
        let mut text = String::with_capacity(28);
        text.push_str("req-");
        push_hex(&mut text, mixed, 16);
        push_hex(&mut text, number, 8);
        Self(text)
    }

    /// The client's id if it is safe to repeat, else a fresh one.
    pub fn from_client(text: Option<&[u8]>) -> Self {
        text.filter(|raw| {
            (1..=CHARS_MAX).contains(&raw.len()) && raw.iter().all(u8::is_ascii_graphic)
        })
        .and_then(|raw| std::str::from_utf8(raw).ok())
        .map_or_else(Self::fresh, |text| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_clean_client_id_and_replaces_the_rest() {
        assert_eq!(RequestId::from_client(Some(b"abc-1")).as_str(), "abc-1");
        for bad in [
            &b""[..],
            b"two words",
            b"line\nbreak",
            &[0xff; 4],
            &[b'a'; 129],
        ] {
            assert!(
                RequestId::from_client(Some(bad))
                    .as_str()
                    .starts_with("req-"),
                "{bad:?}"
            );
        }
        assert_ne!(RequestId::fresh(), RequestId::fresh());
    }
}
