//! How one scenario went: failoverbench's four verdicts.

use std::fmt;
use std::time::Duration;

use super::{Observed, Scenario};
use crate::chat::End;
use crate::provider::{ANSWER, Fault, Refusal};

/// Something that must be, or should be, true of what was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Advisory: the same provider was asked again.
    PrimaryAtLeast(usize),
    PrimaryAtMost(usize),
    PrimaryExactly(usize),
    /// Advisory: the second attempt came no sooner.
    FirstGapAtLeast(Duration),
    /// At most so many attempts in the first so long.
    PrimaryWithin(Duration, usize),
    /// Advisory: a provider that said nothing is not asked again.
    SilentNotRetried,
    EndsWithin(Duration),
    /// Advisory: nobody waits so long for a first token while there is a fallback.
    FirstTextLimit(Duration),
    /// A healthy model answers right after.
    Alive,
    /// Advisory: the caller was told what it used.
    Usage,
    /// An error about a prefix that the caller never sent.
    PrefixRefusalNotPassedOn,
    /// Every call in the first so long was answered.
    ServedWhileDown(Duration),
    /// After an outage of the first, the primary answered again within the second.
    BackWithin(Duration, Duration),
    /// The caller reads the name of the model that answered.
    FallbackNamed,
}

/// Worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The caller got what there was to get, and nothing else was wrong.
    Pass,
    /// The same, with something that should have been otherwise.
    Partial,
    /// Not rescued, but told the truth in time.
    Safe,
    /// A hang, a part sold as the whole, or a rule broken.
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Partial => "partial",
            Self::Safe => "safe",
            Self::Fail => "FAIL",
        })
    }
}

#[derive(Debug, Clone)]
pub struct Judgement {
    pub verdict: Verdict,
    pub why: String,
}

pub(super) fn judge(scenario: &Scenario, observed: &Observed) -> Judgement {
    let of = |verdict, why: String| Judgement { verdict, why };
    let mut required = Vec::new();
    let mut advised = Vec::new();
    for check in scenario.checks {
        if let Err(why) = check.holds(observed) {
            let list = match check.severity() {
                Severity::Required => &mut required,
                Severity::Advisory => &mut advised,
            };
            list.push(why);
        }
    }
    for call in &observed.calls {
        match &call.told.end {
            End::Hang => return of(Verdict::Fail, format!("hung for {:?}", call.told.took)),
            End::Complete if call.told.text != ANSWER => {
                let words = call.told.text.split_whitespace().count();
                let why = format!("{words} words sold as the whole: {:?}", call.told.text);
                return of(Verdict::Fail, why);
            }
            End::Complete | End::Error { .. } | End::Broken(_) => {}
        }
    }
    if !required.is_empty() {
        return of(Verdict::Fail, required.join("; "));
    }
    let not_answered = observed.calls.iter().find(|call| !call.rescued());
    let ended = match (scenario.wants_an_error(), not_answered) {
        (true, Some(_)) => None,
        (true, None) => return of(Verdict::Partial, "went around the refusal".to_owned()),
        (false, None) => None,
        (false, Some(call)) => Some(format!("{:?}", call.told.end)),
    };
    match ended {
        Some(end) => of(Verdict::Safe, end),
        None if advised.is_empty() => of(Verdict::Pass, observed.summary()),
        None => of(Verdict::Partial, advised.join("; ")),
    }
}

impl Scenario {
    /// A content filter's word is the answer.
    fn wants_an_error(&self) -> bool {
        matches!(
            self.fault,
            Fault::Refuses {
                refusal: Refusal::ContentFilter,
                ..
            }
        )
    }
}

impl Observed {
    fn summary(&self) -> String {
        let took = self.calls.iter().map(|call| call.told.took).max();
        format!(
            "{} + {} attempts, {:.1} s",
            self.primary.len(),
            self.fallback.len(),
            took.unwrap_or_default().as_secs_f64()
        )
    }
}

enum Severity {
    Required,
    Advisory,
}

impl Check {
    fn severity(self) -> Severity {
        match self {
            Self::PrimaryAtLeast(_)
            | Self::FirstGapAtLeast(_)
            | Self::SilentNotRetried
            | Self::FirstTextLimit(_)
            | Self::Usage => Severity::Advisory,
            Self::PrimaryAtMost(_)
            | Self::PrimaryExactly(_)
            | Self::PrimaryWithin(..)
            | Self::EndsWithin(_)
            | Self::Alive
            | Self::PrefixRefusalNotPassedOn
            | Self::ServedWhileDown(_)
            | Self::BackWithin(..)
            | Self::FallbackNamed => Severity::Required,
        }
    }

    /// The reason why not.
    fn holds(self, observed: &Observed) -> Result<(), String> {
        let attempts = observed.primary.len();
        let made = format!("{attempts} attempts at the primary");
        let slowest = observed.calls.iter().map(|call| call.told.took).max();
        let slowest = slowest.unwrap_or_default();
        match self {
            Self::PrimaryAtLeast(least) => ensure(attempts >= least, || made),
            Self::PrimaryAtMost(most) => ensure(attempts <= most, || made),
            Self::PrimaryExactly(count) => ensure(attempts == count, || made),
            Self::SilentNotRetried => ensure(attempts <= 1, || made),
            Self::FirstGapAtLeast(gap) => match observed.primary.as_slice() {
                [first, second, ..] => {
                    let waited = second.at.saturating_sub(first.at);
                    ensure(waited >= gap, || format!("asked again after {waited:?}"))
                }
                _ => Err("not asked again".to_owned()),
            },
            Self::PrimaryWithin(window, most) => {
                let first = observed.primary.first().map(|attempt| attempt.at);
                let until = first.unwrap_or_default() + window;
                let early = observed.primary.iter().filter(|one| one.at < until);
                let early = early.count();
                ensure(early <= most, || format!("{early} attempts in {window:?}"))
            }
            Self::EndsWithin(limit) => ensure(slowest <= limit, || format!("took {slowest:.1?}")),
            Self::FirstTextLimit(limit) => {
                let first = observed
                    .calls
                    .iter()
                    .filter_map(|call| call.told.first_text);
                let first = first.max().unwrap_or(slowest);
                ensure(first <= limit, || format!("first token after {first:.1?}"))
            }
            Self::Alive => ensure(observed.alive != Some(false), || {
                "not well afterwards".to_owned()
            }),
            Self::Usage => {
                let told = observed.calls.iter().all(|call| call.told.usage.is_some());
                ensure(told, || "no usage".to_owned())
            }
            Self::PrefixRefusalNotPassedOn => {
                let refused = observed.fallback.iter().any(|one| one.prefix_refused);
                let failed = observed.calls.iter().any(|call| !call.rescued());
                ensure(!(refused && failed), || {
                    "ended with the refusal of a prefix".to_owned()
                })
            }
            Self::ServedWhileDown(down) => {
                let early = observed.calls.iter().filter(|call| call.began < down);
                let lost = early.filter(|call| !call.rescued()).count();
                ensure(lost == 0, || format!("{lost} lost while it was down"))
            }
            Self::BackWithin(down, limit) => back_within(observed, down, limit),
            Self::FallbackNamed => {
                let Some(fallback) = &observed.fallback_model else {
                    return Ok(());
                };
                let named = |name: &str| name.ends_with(fallback.as_str());
                let told = observed
                    .calls
                    .iter()
                    .filter_map(|call| call.told.model.as_deref());
                let wrong = told.clone().find(|name| !named(name));
                // Where the fallback never answered there is nothing to name.
                let used = observed.fallback.iter().any(|one| one.answered);
                ensure(!used || wrong.is_none(), || {
                    format!("called it {:?}", wrong.unwrap_or_default())
                })
            }
        }
    }
}

fn back_within(observed: &Observed, down: Duration, limit: Duration) -> Result<(), String> {
    let started = observed.primary.first().map(|attempt| attempt.at);
    let recovery = started.unwrap_or_default() + down;
    let answered = observed.primary.iter().find(|attempt| attempt.answered);
    match answered {
        Some(attempt) => {
            let late = attempt.at.saturating_sub(recovery);
            ensure(late <= limit, || format!("back {late:.1?} after recovery"))
        }
        None => Err("the primary was never used again".to_owned()),
    }
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}
