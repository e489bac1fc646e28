//! Where jobs rest: they are there again when kapok is.

mod embedded;
mod memory;
#[cfg(test)]
mod tests;

use std::fmt;

use protocol::resource::Job;
use scheduler::queue::Entry;
use serde::{Deserialize, Serialize};

pub use embedded::Embedded;
pub use memory::InMemory;

/// A job and what the queue knows of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Grows with every submission.
    pub number: u64,
    pub job: Job,
    /// None once it is over, and while it rests before a restart. Read leniently: a queue of another version decides
    /// anew.
    #[serde(default, deserialize_with = "known_entry")]
    pub entry: Option<Entry>,
}

fn known_entry<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Entry>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open; it may end.
    #[error("the jobs in `{folder}` are in another process's hands")]
    Busy { folder: String },
    #[error("the jobs in `{folder}` cannot be read or written: {reason}")]
    Broken { folder: String, reason: String },
}

/// Blocking: called off the executor's threads.
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Everything that was written, by number.
    fn load(&self) -> Result<Vec<Record>, StoreError>;

    /// All of it or nothing; kept when it returns.
    fn write(&self, changed: &[Record], gone: &[u64]) -> Result<(), StoreError>;
}
