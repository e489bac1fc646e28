//! The hidden command that becomes the process of one model (`isolation = "process"`).

use crate::config::Environment;
use crate::exit::{Failure, Outcome};

/// The name of the hidden command; its argument is the engine's name.
pub(crate) const NAME: &str = "run-engine";

/// Returns when kapok has closed its side.
pub(crate) fn run(engine: &str, environment: &Environment) -> Outcome {
    let engine = crate::up::one_engine(engine, environment);
    isolation::serve(engine.as_slice())
        .map_err(|error| Failure::failed(format!("kapok cannot be heard: {error}")))
}
