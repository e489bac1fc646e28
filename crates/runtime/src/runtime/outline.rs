//! What a model would be, told before it is one.

use protocol::oip::proto::ModelConfig;

use super::Runtime;
use crate::check::{self, Described, Readers};
use crate::engine::Source;
use crate::repository;

impl Runtime {
    /// The configuration that a model of the repositories would have, without loading it. Reads its files: off the
    /// executor's threads.
    pub fn outline(
        &self,
        model: &str,
        describe: &dyn Fn(&Source) -> Described,
    ) -> Result<ModelConfig, String> {
        let settings = &self.0.settings;
        let found = repository::find(&settings.repositories, model)
            .ok_or_else(|| "there is no folder of this name".to_owned())?;
        let readers = Readers {
            engines: self.0.engines.all(),
            describe,
            gpus: &settings.terms.gpus,
            completes: settings.terms.completes,
        };
        check::outline(&found, readers, &settings.terms)
    }
}
