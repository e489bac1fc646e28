//! The engines of a runtime: the built-ins, and others that are looked for when the first model needs one.

use std::fmt;
use std::sync::{Arc, LazyLock};

use crate::Builtin;
use crate::engine::{Engine, Source};

type Find = Box<dyn FnOnce() -> Vec<Arc<dyn Engine>> + Send>;

/// Loading ONNX Runtime and OpenVINO costs 30 MB and tens of milliseconds: not for who only relays, or only serves what is
/// built in.
pub struct Engines {
    builtin: [Arc<dyn Engine>; 1],
    /// The built-ins last.
    all: LazyLock<Vec<Arc<dyn Engine>>, Find>,
}

impl Engines {
    /// `find` answers in the order of preference, the most complete first. It is called at most once; who needs an engine
    /// meanwhile waits for it.
    pub fn new(find: impl FnOnce() -> Vec<Arc<dyn Engine>> + Send + 'static) -> Self {
        let builtin: Arc<dyn Engine> = Arc::new(Builtin);
        let last = Arc::clone(&builtin);
        let all = move || on_a_thread(find).into_iter().chain([last]).collect();
        Self {
            builtin: [builtin],
            all: LazyLock::new(Box::new(all)),
        }
    }

    /// Whoever could serve this, in the order of preference; `named` is the engine its owner wants.
    pub(crate) fn of(&self, source: &Source, named: Option<&str>) -> &[Arc<dyn Engine>] {
        let [builtin] = &self.builtin;
        let wanted = named.is_none_or(|name| name == builtin.name());
        if wanted && builtin.accepts(source) {
            return &self.builtin;
        }
        self.all()
    }

    pub(crate) fn all(&self) -> &[Arc<dyn Engine>] {
        &self.all
    }
}

/// Threads that a library starts have the name of the one that loads it, and outlive it: they are not a loader's.
fn on_a_thread(
    find: impl FnOnce() -> Vec<Arc<dyn Engine>> + Send + 'static,
) -> Vec<Arc<dyn Engine>> {
    let thread = std::thread::Builder::new().name("engine".to_owned());
    match thread.spawn(find) {
        Ok(thread) => thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        Err(error) => {
            tracing::error!(%error, "cannot start a thread to look for engines: only built-in backends are served");
            Vec::new()
        }
    }
}

impl fmt::Debug for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whether they were looked for is not asked: that would look for them.
        f.debug_struct("Engines")
            .field("builtin", &self.builtin)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
