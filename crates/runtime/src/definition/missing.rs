//! Files that a configuration or a sidecar names and that are not there.

use std::path::Path;

use protocol::FileError;
use protocol::config::Problem;
use protocol::oip::proto::model_config::SchedulingChoice;
use protocol::oip::proto::model_sequence_batching::initial_state::StateData;
use protocol::oip::proto::model_warmup::input::InputDataType;

use super::{Definition, Fault, SIDECAR_FILE};

impl Definition {
    pub(crate) fn missing(&self) -> Vec<Fault> {
        let missing = |(field, file): (String, String)| {
            let there = file.is_empty() || self.folder.join(&file).is_file();
            let message = format!("there is no `{file}`, which `{field}` names");
            let fix = "put the file there, or correct the name";
            (!there).then(|| self.fault(&Problem::new(field, message).fix(fix)))
        };
        let mut faults: Vec<_> = self.named().into_iter().filter_map(missing).collect();
        if let Some(text) = &self.sidecar.text
            && !self.folder.join(&text.tokenizer).is_file()
        {
            faults.push(Fault {
                at: FileError {
                    file: SIDECAR_FILE.to_owned(),
                    line: 0,
                    column: 0,
                    message: format!(
                        "there is no `{}`, which `text.tokenizer` names",
                        text.tokenizer.display()
                    ),
                },
                fix: Some("copy the model's tokenizer.json beside it".to_owned()),
            });
        }
        faults
    }

    /// Fields and the files they name, as seen from the model's folder.
    fn named(&self) -> Vec<(String, String)> {
        let config = &self.normalized;
        let mut named = Vec::new();
        let inside = |folder: &str, file: &str| Path::new(folder).join(file).display().to_string();
        for (index, output) in config.output.iter().enumerate() {
            let field = format!("output[{index}].label_filename");
            named.push((field, output.label_filename.clone()));
        }
        for (index, sample) in config.model_warmup.iter().enumerate() {
            for (input, data) in &sample.inputs {
                if let Some(InputDataType::InputDataFile(file)) = &data.input_data_type {
                    let field = format!("model_warmup[{index}].inputs[{input}].input_data_file");
                    named.push((field, inside("warmup", file)));
                }
            }
        }
        if let Some(SchedulingChoice::SequenceBatching(batching)) = &config.scheduling_choice {
            for (index, state) in batching.state.iter().enumerate() {
                for initial in &state.initial_state {
                    if let Some(StateData::DataFile(file)) = &initial.state_data {
                        let field = format!("sequence_batching.state[{index}].initial_state");
                        named.push((field, inside("initial_state", file)));
                    }
                }
            }
        }
        let operations = config.model_operations.iter();
        for (index, file) in operations
            .flat_map(|all| &all.op_library_filename)
            .enumerate()
        {
            let field = format!("model_operations.op_library_filename[{index}]");
            named.push((field, file.clone()));
        }
        named
    }
}
