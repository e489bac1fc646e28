use protocol::ModelDescription;

use crate::catalogue::Version;

/// One version, for operators.
pub(super) fn describe(name: &str, number: u64, version: &Version) -> ModelDescription {
    let mut description = ModelDescription {
        name: name.to_owned(),
        version: number.to_string(),
        state: version.state(),
        reason: version.reason().to_owned(),
        engine: String::new(),
        engine_version: String::new(),
        candidates: Vec::new(),
        lanes: 0,
        load_ms: 0.0,
        text: false,
    };
    if let Some(model) = version.model() {
        description.load_ms = model.load_ms;
        description.text = model.text().is_some();
        if let Some(engine) = model.by_engine() {
            engine.engine.clone_into(&mut description.engine);
            description
                .engine_version
                .clone_from(&engine.engine_version);
            description.candidates.clone_from(&engine.candidates);
            description.lanes = engine.lanes;
        } else {
            "ensemble".clone_into(&mut description.engine);
        }
    }
    description
}
