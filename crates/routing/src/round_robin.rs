use crate::notes::{Notes, Verdict};
use crate::policy::{Ask, Members, Policy};

/// Everybody in turn; who cannot be used is passed over, and the next one has two turns.
#[derive(Debug, Clone, Copy)]
pub struct RoundRobin;

impl Policy for RoundRobin {
    fn choose(&self, members: &dyn Members, ask: &Ask<'_>, notes: &mut Notes) -> Option<usize> {
        notes.begin("round robin: its turn", "");
        let count = members.count();
        let first = usize::try_from(ask.turn.checked_rem(count as u64)?).unwrap_or(0);
        for member in (first..count).chain(0..first) {
            if members.usable(member) {
                notes.add(member, 0.0, Verdict::Chosen);
                return Some(member);
            }
            notes.add(member, 0.0, Verdict::Unusable);
        }
        None
    }
}
