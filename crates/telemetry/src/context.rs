use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::from_utf8;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use base::push_hex;

/// A request's place in a distributed trace (<https://www.w3.org/TR/trace-context/>): the trace it belongs to, the caller's
/// span, and the one that stands for our part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    /// None if the trace begins here.
    parent: Option<u64>,
    span: u64,
    sampled: bool,
}

/// `00-` trace `-` parent `-` flags.
const TRACEPARENT_BYTES: usize = 55;

impl TraceContext {
    /// Of what belongs to no trace.
    pub const NONE: Self = Self {
        trace: 0,
        parent: None,
        span: 0,
        sampled: false,
    };

    /// Goes on with the caller's trace. One that is missing or malformed begins a new trace, which nobody records yet.
    pub fn follow(traceparent: Option<&[u8]>) -> Self {
        let span = random().max(1);
        match traceparent.and_then(parse) {
            Some((trace, parent, sampled)) => Self {
                trace,
                parent: Some(parent),
                span,
                sampled,
            },
            None => Self {
                trace: (u128::from(random()) << 64) | u128::from(random().max(1)),
                parent: None,
                span,
                sampled: false,
            },
        }
    }

    /// Whether the trace was begun by the caller, so that its `tracestate` goes on too.
    pub fn inherited(&self) -> bool {
        self.parent.is_some()
    }

    pub fn trace_id(&self) -> [u8; 16] {
        self.trace.to_be_bytes()
    }

    pub fn span_id(&self) -> [u8; 8] {
        self.span.to_be_bytes()
    }

    pub fn parent_id(&self) -> Option<[u8; 8]> {
        self.parent.map(u64::to_be_bytes)
    }

    pub fn sampled(&self) -> bool {
        self.sampled
    }

    /// Records a share of all traces, from 0 to 1: the same ones wherever the share is the same.
    pub fn sample(&mut self, share: f64) {
        let low = u64::try_from(self.trace & u128::from(u64::MAX)).unwrap_or(0);
        let place = low >> 11;
        self.sampled = (place as f64) < share * (1_u64 << 53) as f64;
    }

    /// The span of the `number`th attempt, from 1 on: a child of this one.
    pub fn attempt_id(&self, number: usize) -> [u8; 8] {
        let id = self.span.wrapping_add(number as u64);
        // No span has the id 0.
        id.max(1).to_be_bytes()
    }

    fn push_trace(&self, text: &mut String) {
        for half in [self.trace >> 64, self.trace & u128::from(u64::MAX)] {
            push_hex(text, u64::try_from(half).unwrap_or(0), 16);
        }
    }

    /// What an upstream is told, whose parent is `span`.
    pub fn traceparent(&self, span: [u8; 8]) -> String {
        let mut text = String::with_capacity(TRACEPARENT_BYTES);
        text.push_str("00-");
        self.push_trace(&mut text);
        text.push('-');
        push_hex(&mut text, u64::from_be_bytes(span), 16);
        text.push_str(if self.sampled { "-01" } else { "-00" });
        text
    }
}

impl fmt::Display for TraceContext {
    /// The trace's id in hex.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(32);
        self.push_trace(&mut text);
        f.write_str(&text)
    }
}

/// Trace, parent and whether it is recorded. Later versions may say more behind another hyphen.
fn parse(text: &[u8]) -> Option<(u128, u64, bool)> {
    let (ours, rest) = text.split_at_checked(TRACEPARENT_BYTES)?;
    let version = ours.get(..2)?;
    let well_formed = match version {
        b"00" => rest.is_empty(),
        b"ff" => false,
        _ => rest.first().is_none_or(|next| *next == b'-'),
    };
    let hyphens = [2, 35, 52].iter().all(|at| ours.get(*at) == Some(&b'-'));
    if !well_formed || !hyphens {
        return None;
    }
    let trace = u128::from_str_radix(hex(ours.get(3..35)?)?, 16).ok()?;
    let parent = u64::from_str_radix(hex(ours.get(36..52)?)?, 16).ok()?;
    let flags = u8::from_str_radix(hex(ours.get(53..)?)?, 16).ok()?;
    hex(version)?;
    (trace != 0 && parent != 0).then_some((trace, parent, flags & 1 == 1))
}

/// Lower case only, as the standard says.
fn hex(text: &[u8]) -> Option<&str> {
    let lower = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    from_utf8(text)
        .ok()
        .filter(|text| text.as_bytes().iter().all(lower))
}

/// A keyed hash of a counter: the key is the system's randomness, drawn once.
fn random() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static KEY: OnceLock<RandomState> = OnceLock::new();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    KEY.get_or_init(RandomState::new).hash_one(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";

    #[test]
    fn a_callers_trace_goes_on_and_a_malformed_one_begins_anew() {
        let with = |version: &str, rest: &str| format!("{version}-{TRACE}-{PARENT}-{rest}");
        let zeros = |text: &str| "0".repeat(text.len());
        for (text, follows) in [
            (with("00", "01"), Some(true)),
            (with("00", "00"), Some(false)),
            (with("00", "fe"), Some(false)),
            (with("cc", "01"), Some(true)),
            (with("cc", "01-what-the-future-holds"), Some(true)),
            (with("cc", "01.what-the-future-holds"), None),
            (with("00", "01-more"), None),
            (with("ff", "01"), None),
            (with("0", "01"), None),
            (with("00", "0"), None),
            (with("00", "0G"), None),
            (with("00", "01").to_uppercase(), None),
            (with("00", "01").replace(TRACE, &zeros(TRACE)), None),
            (with("00", "01").replace(PARENT, &zeros(PARENT)), None),
            (with("00", "01").replace('-', "_"), None),
            (with("00", "01").replace("0af7", "+af7"), None),
            (String::new(), None),
            ("é".repeat(28), None),
        ] {
            let context = TraceContext::follow(Some(text.as_bytes()));
            assert_eq!(context.inherited(), follows.is_some(), "{text}");
            assert_eq!(context.to_string() == TRACE, follows.is_some(), "{text}");
            assert_eq!(context.sampled(), follows.unwrap_or(false), "{text}");
        }
    }

    #[test]
    fn what_is_sent_on_is_a_child_in_the_same_trace() {
        let text = format!("00-{TRACE}-{PARENT}-01");
        let context = TraceContext::follow(Some(text.as_bytes()));
        let (first, second) = (context.attempt_id(1), context.attempt_id(2));
        assert_ne!(first, second);
        let sent = context.traceparent(first);
        let next = TraceContext::follow(Some(sent.as_bytes()));
        assert_eq!(
            (next.trace_id(), next.parent_id(), next.sampled()),
            (context.trace_id(), Some(first), true)
        );
    }

    #[test]
    fn about_the_share_asked_for_is_sampled() {
        for (share, fewest, most) in [(0.0, 0, 0), (0.25, 1_500, 2_500), (1.0, 8_000, 8_000)] {
            let mut sampled = 0;
            for _ in 0..8_000 {
                let mut context = TraceContext::follow(None);
                context.sample(share);
                sampled += usize::from(context.sampled());
            }
            assert!((fewest..=most).contains(&sampled), "{share}: {sampled}");
        }
    }
}
