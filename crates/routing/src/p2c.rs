use crate::draw::Draw;
use crate::load::Load;
use crate::notes::{Notes, Verdict};
use crate::policy::{Ask, Members, Policy, sample};

/// Two by chance, and of them the one where a request is expected to wait less: its peak EWMA of latency, times the
/// requests that are there. Without a latency of both, fewer requests decide.
///
/// Two choices keep the busiest near the mean (Mitzenmacher 2001), and as nobody looks for the very least loaded, a
/// report that many read at once sends no herd to one member.
#[derive(Debug, Clone, Copy)]
pub struct PowerOfTwo;

impl Policy for PowerOfTwo {
    fn choose(&self, members: &dyn Members, ask: &Ask<'_>, notes: &mut Notes) -> Option<usize> {
        let mut draw = Draw::new(ask.turn);
        notes.begin("the only one that can be used", "");
        let first = sample(members, &mut draw, None)?;
        let Some(second) = sample(members, &mut draw, Some(first)) else {
            notes.add(first, 0.0, Verdict::Chosen);
            return Some(first);
        };
        let loads = [members.load(first), members.load(second)];
        let scores = match loads.map(|load| load.expected_us()) {
            [Some(first), Some(second)] => {
                notes.begin("two choices: less expected wait", "ms");
                [first / 1000.0, second / 1000.0]
            }
            _ => {
                notes.begin("two choices: fewer requests", "requests");
                loads.map(|load: Load| load.depth())
            }
        };
        let (chosen, other) = if scores[1] < scores[0] {
            (1, 0)
        } else {
            (0, 1)
        };
        let pair = [first, second];
        notes.add(pair[chosen], scores[chosen], Verdict::Chosen);
        notes.add(pair[other], scores[other], Verdict::Worse);
        Some(pair[chosen])
    }
}

#[cfg(test)]
mod tests;
