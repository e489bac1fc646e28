//! What the end of an attempt means: for the request (may another upstream be asked?) and for the upstream (was it at
//! fault?). The two questions have different answers, so they are two functions.

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nothing of the request was written: no connection, or one that was closed before.
    Unsent,
    /// It was written, and no byte of an answer came: the connection broke.
    Lost,
    /// It was written, and nothing came for as long as an upstream may be silent.
    Silent,
    /// The answer has this status.
    Status(u16),
    /// The answer says that the request is longer than the model's context, and another's is said to be larger.
    TooLong,
    /// The answer began and did not come to its end, or was not what it says it is.
    Broken,
    /// The caller left, or its own deadline passed.
    GivenUp,
}

/// Whether running a request twice may do harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// An inference changes nothing but a bill: twice costs more than once, and that is all.
    Safe,
    /// It may create or change something.
    Unsafe,
}

/// What is to blame for an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The upstream works.
    Praise,
    /// The upstream is broken.
    Upstream,
    /// Says nothing of the upstream: a bad request, a busy server, a caller that left.
    Nobody,
}

/// Whether the request may be sent to another upstream. What an upstream refused was not done; what it never got was
/// not done; of anything else nobody knows.
pub fn again(end: End, replay: Replay) -> bool {
    match end {
        End::Unsent | End::TooLong => true,
        End::Status(status) if refused(status) => true,
        End::Lost | End::Silent => replay == Replay::Safe,
        End::Status(500 | 502 | 504) => replay == Replay::Safe,
        End::Status(_) | End::Broken | End::GivenUp => false,
    }
}

/// "Not now": too many requests, overloaded. 529 is Anthropic's word for it.
pub fn refused(status: u16) -> bool {
    matches!(status, 429 | 503 | 529)
}

/// A status that a caller can bring about (4xx, 501, 505) or that means "busy" says nothing of the upstream's health.
pub fn blame(end: End) -> Blame {
    match end {
        End::Unsent | End::Lost | End::Silent | End::Broken => Blame::Upstream,
        End::Status(200..=399) => Blame::Praise,
        End::Status(501 | 503 | 505 | 529) => Blame::Nobody,
        End::Status(500..) => Blame::Upstream,
        End::Status(_) | End::TooLong | End::GivenUp => Blame::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_post_is_replayed_only_when_unsent_refused_or_safe() {
        for (end, unsafely, safely) in [
            (End::Unsent, true, true),
            (End::Status(429), true, true),
            (End::Status(503), true, true),
            (End::Status(529), true, true),
            (End::TooLong, true, true),
            (End::Lost, false, true),
            (End::Silent, false, true),
            (End::Status(500), false, true),
            (End::Status(502), false, true),
            (End::Status(504), false, true),
            (End::Status(200), false, false),
            (End::Status(400), false, false),
            (End::Status(401), false, false),
            (End::Status(404), false, false),
            (End::Status(408), false, false),
            (End::Status(422), false, false),
            (End::Status(501), false, false),
            (End::Broken, false, false),
            (End::GivenUp, false, false),
        ] {
            assert_eq!(again(end, Replay::Unsafe), unsafely, "{end:?}");
            assert_eq!(again(end, Replay::Safe), safely, "{end:?}");
        }
    }

    #[test]
    fn only_faults_of_the_transport_and_server_errors_are_blamed() {
        for (end, expected) in [
            (End::Unsent, Blame::Upstream),
            (End::Lost, Blame::Upstream),
            (End::Silent, Blame::Upstream),
            (End::Broken, Blame::Upstream),
            (End::Status(500), Blame::Upstream),
            (End::Status(502), Blame::Upstream),
            (End::Status(504), Blame::Upstream),
            (End::Status(599), Blame::Upstream),
            (End::Status(200), Blame::Praise),
            (End::Status(204), Blame::Praise),
            (End::Status(304), Blame::Praise),
            (End::Status(400), Blame::Nobody),
            (End::Status(401), Blame::Nobody),
            (End::Status(404), Blame::Nobody),
            (End::Status(422), Blame::Nobody),
            (End::Status(429), Blame::Nobody),
            (End::Status(501), Blame::Nobody),
            (End::Status(503), Blame::Nobody),
            (End::Status(529), Blame::Nobody),
            (End::TooLong, Blame::Nobody),
            (End::GivenUp, Blame::Nobody),
        ] {
            assert_eq!(blame(end), expected, "{end:?}");
        }
    }
}
