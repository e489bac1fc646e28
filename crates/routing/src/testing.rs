use crate::load::Load;
use crate::notes::Notes;
use crate::policy::{Ask, Members, Policy};

/// Members as a test wants them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    pub(crate) loads: Vec<Load>,
    pub(crate) down: Vec<usize>,
}

impl Given {
    pub(crate) fn in_flight(counts: &[u32]) -> Self {
        let load = |count: &u32| Load {
            in_flight: *count,
            ..Load::default()
        };
        Self {
            loads: counts.iter().map(load).collect(),
            down: Vec::new(),
        }
    }

    pub(crate) fn without(mut self, down: &[usize]) -> Self {
        self.down = down.to_vec();
        self
    }
}

impl Members for Given {
    fn count(&self) -> usize {
        self.loads.len()
    }

    fn usable(&self, member: usize) -> bool {
        !self.down.contains(&member)
    }

    fn load(&self, member: usize) -> Load {
        self.loads[member]
    }
}

/// How often each member is chosen in so many turns.
pub(crate) fn counts(policy: &dyn Policy, given: &Given, turns: u64) -> Vec<u32> {
    let mut counts = vec![0; given.loads.len()];
    for turn in 0..turns {
        let ask = Ask {
            turn,
            ..Ask::default()
        };
        let chosen = policy.choose(given, &ask, &mut Notes::default());
        counts[chosen.expect("somebody")] += 1;
    }
    counts
}
