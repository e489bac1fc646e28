/// Members that a decision remembers: what two samples of three and a few passed over need.
pub const NOTES_MAX: usize = 6;

/// How a choice came about: who was looked at, what for, and why not the others. Kept in place, so that writing it
/// costs no allocation and reading it may never happen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Notes {
    /// What the policy went by, for people.
    pub rule: &'static str,
    /// What the scores are in; lower is better.
    pub unit: &'static str,
    seen: [Note; NOTES_MAX],
    len: u8,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Note {
    pub member: usize,
    pub score: f32,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verdict {
    #[default]
    Chosen,
    /// Another had a better score.
    Worse,
    /// Down, out of its pool, tried before, or of another protocol.
    Unusable,
    /// Its turn, but it has more than its share already.
    Overloaded,
}

impl Notes {
    /// Forgets who was seen; for a policy that begins anew.
    pub fn begin(&mut self, rule: &'static str, unit: &'static str) {
        (self.rule, self.unit, self.len) = (rule, unit, 0);
    }

    /// Beyond the room there is, later ones are not remembered, except the chosen one in the last place.
    pub fn add(&mut self, member: usize, score: f32, verdict: Verdict) {
        let note = Note {
            member,
            score,
            verdict,
        };
        let last = NOTES_MAX - 1;
        let full = usize::from(self.len) > last;
        if full && verdict != Verdict::Chosen {
            return;
        }
        self.seen[usize::from(self.len).min(last)] = note;
        self.len += u8::from(!full);
    }

    pub fn seen(&self) -> &[Note] {
        self.seen.get(..usize::from(self.len)).unwrap_or_default()
    }
}
