use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::{Record, Store, StoreError};

/// Gone with the process.
#[derive(Debug, Default)]
pub struct InMemory(Mutex<BTreeMap<u64, Record>>);

impl Store for InMemory {
    fn load(&self) -> Result<Vec<Record>, StoreError> {
        Ok(self.0.lock().values().cloned().collect())
    }

    fn write(&self, changed: &[Record], gone: &[u64]) -> Result<(), StoreError> {
        let mut records = self.0.lock();
        for record in changed {
            records.insert(record.number, record.clone());
        }
        for number in gone {
            records.remove(number);
        }
        Ok(())
    }
}
