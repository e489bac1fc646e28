use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap, RandomState};
use std::hash::BuildHasher as _;
use std::sync::Arc;

use parking_lot::Mutex;
use protocol::openai::IdScan;

use crate::upstream::Upstream;

/// Ids that are remembered, at some 60 bytes each; the oldest are forgotten, and what they name is looked for as if nobody
/// had made it here.
const IDS_MAX: usize = 1 << 16;

/// Which upstream made what, by the ids that it gave: what one keeps, the others do not have.
#[derive(Debug, Default)]
pub(crate) struct Keepers {
    /// Ids are kept as hashes, with a key that nobody knows: no id can be made to stand for another.
    hasher: RandomState,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    names: HashMap<u64, Arc<str>>,
    oldest_first: VecDeque<u64>,
}

/// Of a request, what is kept where.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    /// It names no model: its path stands for one.
    pub(crate) by_path: bool,
    /// Who made what it is about.
    pub(crate) keeper: Option<Arc<Upstream>>,
    /// Looks for the id of what the answer made.
    pub(crate) scan: Option<IdScan>,
}

impl Keepers {
    pub(crate) fn keep(&self, id: &str, upstream: &Arc<str>) {
        let hash = self.hasher.hash_one(id);
        let mut table = self.table.lock();
        let table = &mut *table;
        match table.names.entry(hash) {
            Entry::Occupied(mut known) => {
                known.insert(Arc::clone(upstream));
            }
            Entry::Vacant(new) => {
                new.insert(Arc::clone(upstream));
                table.oldest_first.push_back(hash);
            }
        }
        if table.oldest_first.len() > IDS_MAX
            && let Some(oldest) = table.oldest_first.pop_front()
        {
            table.names.remove(&oldest);
        }
    }

    /// The name of the upstream that made the first of these that is known.
    pub(crate) fn of<'i>(&self, mut ids: impl Iterator<Item = &'i str>) -> Option<Arc<str>> {
        ids.find_map(|id| {
            let hash = self.hasher.hash_one(id);
            self.table.lock().names.get(&hash).cloned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_ids_are_forgotten_first() {
        let keepers = Keepers::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        keepers.keep("first", &a);
        keepers.keep("first", &b);
        assert_eq!(keepers.of(["none", "first"].into_iter()), Some(b));
        for id in 0..IDS_MAX {
            keepers.keep(&format!("file-{id}"), &a);
        }
        assert_eq!(keepers.of(["first"].into_iter()), None);
        assert_eq!(keepers.of(["file-0"].into_iter()), Some(a));
        assert_eq!(keepers.table.lock().names.len(), IDS_MAX);
    }
}
