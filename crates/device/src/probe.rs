use std::fmt;

use parking_lot::Mutex;

use crate::reading::Reading;

/// Asks the devices. Blocking, and some milliseconds long: not for async workers.
pub trait Probe: Send + fmt::Debug {
    fn read(&self) -> Result<Reading, Error>;
}

/// Why devices could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No library: a machine without a GPU, or a container without its driver's files.
    #[error("there is no NVML library: {0}")]
    Missing(String),
    #[error("NVML does not answer: {0}")]
    Failed(String),
    #[error("the recording cannot be read: {0}")]
    Recording(String),
}

/// What a machine said, played back one reading a call; the last one is repeated.
#[derive(Debug)]
pub struct Recording {
    readings: Vec<Reading>,
    next: Mutex<usize>,
}

impl Recording {
    pub fn new(readings: Vec<Reading>) -> Self {
        Self {
            readings,
            next: Mutex::new(0),
        }
    }

    /// From a JSON array of readings, as `kapok doctor --output json` prints one under `gpu`.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        serde_json::from_str(text)
            .map(Self::new)
            .map_err(|error| Error::Recording(error.to_string()))
    }
}

impl Probe for Recording {
    fn read(&self) -> Result<Reading, Error> {
        let mut next = self.next.lock();
        let reading = self.readings.get(*next).or_else(|| self.readings.last());
        *next += 1;
        reading
            .cloned()
            .ok_or_else(|| Error::Recording("it holds no reading".to_owned()))
    }
}
