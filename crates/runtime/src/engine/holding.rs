use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use protocol::TensorSpec;

use super::{EngineError, Lane, Loaded};

/// The same model, which holds something as long as it is in memory: what it was promised of a device, a folder.
pub fn holding<T: Send + Sync + fmt::Debug + 'static>(
    loaded: Arc<dyn Loaded>,
    held: T,
) -> Arc<dyn Loaded> {
    Arc::new(Holding {
        loaded,
        _held: held,
    })
}

#[derive(Debug)]
struct Holding<T> {
    loaded: Arc<dyn Loaded>,
    _held: T,
}

// Every method, those with a default too: a default here would speak for a model that says otherwise.
impl<T: Send + Sync + fmt::Debug> Loaded for Holding<T> {
    fn inputs(&self) -> &[TensorSpec] {
        self.loaded.inputs()
    }

    fn outputs(&self) -> &[TensorSpec] {
        self.loaded.outputs()
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        self.loaded.lane()
    }

    fn delay(&self) -> Duration {
        self.loaded.delay()
    }

    fn needs_alignment(&self) -> bool {
        self.loaded.needs_alignment()
    }

    fn inline_bytes_max(&self) -> usize {
        self.loaded.inline_bytes_max()
    }

    fn steady(&self) -> bool {
        self.loaded.steady()
    }

    fn takes_absent(&self) -> bool {
        self.loaded.takes_absent()
    }

    fn memory_bytes(&self) -> u64 {
        self.loaded.memory_bytes()
    }
}
