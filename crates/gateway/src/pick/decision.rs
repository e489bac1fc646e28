use std::fmt;
use std::sync::Arc;

use routing::{NOTES_MAX, Notes, Verdict};

use crate::snapshot::Cell;

/// How somebody was chosen, kept as it was found and put into words only for whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    pub(crate) claim: Claim,
    /// The one who was chosen.
    pub(crate) chosen: Arc<str>,
    /// Of a route with several targets: whose turn it was, and among how many.
    pub(crate) turn: Option<(Arc<str>, usize)>,
    /// How often the fallback chain was gone down, from 1 on.
    pub(crate) fallback: Option<usize>,
    /// Whether that was because the request is longer than the context of whoever was asked.
    pub(crate) longer: bool,
    /// The request's colour, and whether upstreams without one answer for want of any that has it.
    pub(crate) colour: Option<(String, bool)>,
    /// Requests at the best of its own region, which sent this one elsewhere.
    pub(crate) spilled: Option<f32>,
    pub(crate) rule: &'static str,
    pub(crate) unit: &'static str,
    /// In place: most are never read.
    pub(crate) candidates: [Option<Candidate>; NOTES_MAX],
}

/// By which right anybody was asked.
#[derive(Debug, Default)]
pub(crate) enum Claim {
    Route(Arc<str>),
    #[default]
    Here,
    HereNotReady,
    Listed,
    /// It is listed, and the model here is not ready.
    ListedInstead,
    CatchAll,
    /// It made what the request is about.
    Kept,
}

/// Somebody who was looked at.
#[derive(Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) upstream: Arc<str>,
    /// Lower is better.
    pub(crate) score: f32,
    pub(crate) verdict: Verdict,
}

impl Decision {
    /// Takes over what a policy noted.
    pub(super) fn note(&mut self, cell: &Cell, notes: &Notes) {
        (self.rule, self.unit) = (notes.rule, notes.unit);
        for (slot, note) in self.candidates.iter_mut().zip(notes.seen()) {
            *slot = cell.members.get(note.member).map(|member| Candidate {
                upstream: Arc::clone(&member.name),
                score: note.score,
                verdict: note.verdict,
            });
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.chosen;
        match &self.claim {
            Claim::Here => write!(f, "the model is in this process")?,
            Claim::HereNotReady => write!(f, "the model is in this process, though not ready")?,
            Claim::Listed => write!(f, "upstream `{name}` lists the model")?,
            Claim::ListedInstead => write!(
                f,
                "the model here is not ready, and upstream `{name}` lists it"
            )?,
            Claim::CatchAll => {
                write!(f, "nobody lists the model, and upstream `{name}` takes any")?
            }
            Claim::Kept => write!(f, "upstream `{name}` made what is asked for")?,
            Claim::Route(route) => self.routed(route, f)?,
        }
        if let Some((colour, false)) = &self.colour {
            write!(f, "; of colour `{colour}`")?;
        }
        if let Some((colour, true)) = &self.colour {
            write!(f, "; nobody of colour `{colour}` can be used")?;
        }
        if let Some(depth) = self.spilled {
            write!(f, "; its own region has {depth:.0} requests at its best")?;
        }
        self.scores(f)
    }
}

impl Decision {
    fn routed(&self, route: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.chosen;
        match (&self.turn, self.fallback) {
            (_, Some(step)) if self.longer => write!(
                f,
                "route `{route}`: the request is longer than the context of who was asked, and fallback {step} is `{name}`"
            ),
            (_, Some(step)) => write!(
                f,
                "route `{route}`: no target can answer, and fallback {step} is `{name}`"
            ),
            (Some((branch, count)), None) if branch == name => write!(
                f,
                "route `{route}`: `{name}` had its turn among {count} targets"
            ),
            (Some((branch, count)), None) => write!(
                f,
                "route `{route}`: `{branch}` had its turn among {count} targets and sends it to `{name}`"
            ),
            (None, None) => write!(f, "route `{route}` sends it to `{name}`"),
        }
    }

    fn scores(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rule.is_empty() {
            return Ok(());
        }
        write!(f, "; {}", self.rule)?;
        if self.candidates.iter().flatten().count() < 2 {
            return Ok(());
        }
        for (index, candidate) in self.candidates.iter().flatten().enumerate() {
            let border = if index == 0 { ": " } else { ", " };
            let name = &candidate.upstream;
            write!(f, "{border}`{name}`")?;
            match candidate.verdict {
                Verdict::Unusable => write!(f, " cannot be used")?,
                _ if self.unit.is_empty() => {}
                _ => write!(f, " {:.1} {}", candidate.score, self.unit)?,
            }
            if candidate.verdict == Verdict::Overloaded {
                write!(f, ", above its share")?;
            }
        }
        Ok(())
    }
}
