//! A model's configuration: Triton's `config.pbtxt`, completed from the model and checked against it.
//!
//! Reading order: [`parse`] (text to [`ModelConfig`], every field with its place), [`normalize`] (what Triton fills in
//! before it has seen the model) and [`complete`] (what it asks the model for), [`validate`] (one rule a function; each
//! [`Problem`] names the field, [`ConfigFile`] knows its line) and [`against_model`], [`unsupported`] (the one list of
//! what is refused because nothing does it yet), [`specs`] (what requests look like), [`to_json`] (`GET /v2/models/M/config`), [`from_json`] (a
//! configuration in a load call), [`to_pbtxt`] (a file that people read).
//! Never here: files and folders (runtime), which engine serves the model (runtime).

mod agents;
mod complete;
pub mod ensemble;
mod json;
mod lex;
mod normalize;
mod parse;
mod print;
mod reshape;
mod specs;
#[cfg(test)]
mod tests;
mod types;
mod unsupported;
mod validate;

use std::collections::BTreeMap;

pub use agents::{ChecksumOf, checksums};
pub use complete::{DEFAULT_MAX_BATCH_SIZE, complete};
pub use json::{from_json, to_json};
pub use normalize::{Contents, instances_asked, normalize};
pub use parse::parse;
pub(crate) use parse::pool;
pub use print::to_pbtxt;
pub use reshape::reshaped;
pub use specs::{engine_specs, specs};
pub use types::{data_type, proto_data_type};
pub use validate::{Setting, against_model, validate};

use crate::FileError;
use crate::oip::proto::ModelConfig;

/// What a `config.pbtxt` says, and where it says it.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigFile {
    pub config: ModelConfig,
    file: String,
    text: String,
    /// Field path, such as `input[0].dims`, to the byte offset of its name.
    places: BTreeMap<String, usize>,
}

impl ConfigFile {
    /// The problem at the place of its field; of the nearest field around it when it was completed or is missing.
    pub fn locate(&self, problem: &Problem) -> FileError {
        let mut path = problem.field.as_str();
        loop {
            if let Some(offset) = self.places.get(path) {
                return FileError::at_offset(&self.file, &self.text, *offset, problem.to_string());
            }
            let Some(end) = path.rfind(['.', '[']) else {
                return FileError {
                    file: self.file.clone(),
                    line: 0,
                    column: 0,
                    message: problem.to_string(),
                };
            };
            path = path.get(..end).unwrap_or_default();
        }
    }
}

/// Why a configuration cannot be served. Where Triton has words for it, they are used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", fix.as_ref().map_or_else(String::new, |fix| format!("; {fix}")))]
pub struct Problem {
    /// The field at fault, such as `input[1].dims`.
    pub field: String,
    pub message: String,
    /// What to write instead, in words.
    pub fix: Option<String>,
}

impl Problem {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
            fix: None,
        }
    }

    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self {
            fix: Some(fix.into()),
            ..self
        }
    }
}

/// Feeds arbitrary bytes to the parser and what it accepts to the rest of the room.
pub fn fuzz_pbtxt(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(mut file) = parse("config.pbtxt", text) {
        let _undetermined = normalize(&mut file.config, "fuzz", None);
        let setting = Setting {
            folder: "fuzz",
            gpus: &[],
        };
        let _problems = validate(&file.config, setting);
        let (inputs, outputs) = specs(&file.config);
        let _contradictions = against_model(&file.config, &inputs, &outputs);
        if complete(&mut file.config, &inputs, &outputs, DEFAULT_MAX_BATCH_SIZE).is_ok() {
            assert!(
                to_json(&file.config).starts_with('{'),
                "a configuration is an object"
            );
        }
    }
}

/// Feeds arbitrary bytes to the reader of the JSON form; what it accepts says the same when written in either form.
pub fn fuzz_config_json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(file) = from_json(text) else {
        return;
    };
    let written = to_json(&file.config);
    let read = from_json(&written).map(|file| to_json(&file.config));
    assert_eq!(read.as_ref(), Ok(&written), "changed by being written out");
    let printed = to_pbtxt(&file.config);
    let read = parse("config.pbtxt", &printed).map(|file| to_json(&file.config));
    assert_eq!(read.as_ref(), Ok(&written), "changed by being printed");
}
