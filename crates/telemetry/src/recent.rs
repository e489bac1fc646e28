use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Record;

/// The last finished requests, oldest dropped first. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recent(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    records_max: usize,
    records: Mutex<VecDeque<Arc<Record>>>,
}

impl Recent {
    pub fn new(records_max: usize) -> Self {
        Self(Arc::new(Shared {
            records_max,
            records: Mutex::new(VecDeque::with_capacity(records_max)),
        }))
    }

    pub fn push(&self, record: Arc<Record>) {
        if self.0.records_max == 0 {
            return;
        }
        let mut records = self.0.records.lock();
        if records.len() == self.0.records_max {
            records.pop_front();
        }
        records.push_back(record);
    }

    /// The newest record with this id: clients repeat ids when they retry.
    pub fn find(&self, request_id: &str) -> Option<Arc<Record>> {
        self.0
            .records
            .lock()
            .iter()
            .rev()
            .find(|record| record.request_id == request_id)
            .cloned()
    }

    /// Newest first.
    pub fn latest(&self, count: usize) -> Vec<Arc<Record>> {
        self.0
            .records
            .lock()
            .iter()
            .rev()
            .take(count)
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use base::{Clock, RequestId};

    use super::*;

    #[test]
    fn keeps_the_newest_and_finds_the_latest_of_an_id() {
        let recent = Recent::new(2);
        for (id, status) in [("a", 500), ("b", 200), ("a", 200)] {
            let id = RequestId::from_client(Some(id.as_bytes()));
            let mut record = Record::new(&id, Clock::manual().wall(), "oip infer");
            record.status = status;
            recent.push(Arc::new(record));
        }
        assert_eq!(recent.latest(10).len(), 2);
        assert_eq!(recent.find("a").map(|record| record.status), Some(200));
        assert!(recent.find("c").is_none());
    }
}
