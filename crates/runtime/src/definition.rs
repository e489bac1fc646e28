//! What a model's folder says about it: `config.pbtxt` and `kapok.toml`, read once per load.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use batch::Settings;
use protocol::config::{self, ConfigFile, Contents, Problem, Setting};
use protocol::oip::proto::model_config::SchedulingChoice;
use protocol::oip::proto::{ModelConfig, ModelParameter};
use protocol::sidecar::{Merged, Sidecar, Threads};
use protocol::{FileError, Parameter, TensorSpec};

use crate::engine::{LoadOptions, Loaded, Source};
use crate::repository::Found;
use crate::request::list;

const CONFIG_FILE: &str = "config.pbtxt";
const SIDECAR_FILE: &str = "kapok.toml";

/// Backends whose model is one file: Triton's name for whatever runs ONNX, and shared libraries.
const FILE_BACKENDS: [&str; 2] = ["onnxruntime", "node"];

/// Of models that hold no core while they run, whose lanes are a few bytes each. Beyond this it is a slip.
const LANES_MAX: usize = 16_384;

/// Something wrong in a model's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The file's name is empty when the fault is in none.
    pub(crate) at: FileError,
    /// What to do about it, in words.
    pub(crate) fix: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.file.is_empty() {
            f.write_str(&self.at.message)?;
        } else {
            write!(f, "{}", self.at)?;
        }
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

/// A model's settings before any engine has seen it.
#[derive(Debug)]
pub(crate) struct Definition {
    model: String,
    pub(crate) folder: PathBuf,
    file: Option<ConfigFile>,
    /// The configuration with all that is filled in before the model is known.
    normalized: ModelConfig,
    pub(crate) sidecar: Sidecar,
    /// What somebody has set of ours, as parameters.
    shown: BTreeMap<String, String>,
    terms: Terms,
}

/// What the node says of every model's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The GPUs that a model may ask for.
    pub(crate) gpus: Vec<i32>,
    /// Whether a configuration is completed from its model, or must be whole.
    pub(crate) completes: bool,
    /// Of a model that batches and does not say how much.
    pub(crate) batch_max: u32,
}

impl Terms {
    /// Those of a node that says no more.
    pub(crate) fn of(gpus: &[i32], completes: bool) -> Self {
        Self {
            gpus: gpus.to_vec(),
            completes,
            batch_max: config::DEFAULT_MAX_BATCH_SIZE,
        }
    }
}

/// How calls share the cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Calls at the same time.
    pub(crate) lanes: usize,
    /// Cores of one call.
    pub(crate) threads: usize,
}

impl Definition {
    /// Reads both files; either may be absent. `instead` is a configuration in JSON that a client gives in place of the
    /// file. The error is for people and names file, line and column.
    pub(crate) fn read(
        found: &Found,
        instead: Option<&str>,
        terms: &Terms,
    ) -> Result<Self, String> {
        let (definition, faults) = Self::inspect(found, instead, terms);
        match definition {
            Some(definition) if faults.is_empty() => Ok(definition),
            _ => Err(join(faults.iter())),
        }
    }

    /// Everything that is wrong with a model's files, and the definition as far as it can be made.
    pub(crate) fn inspect(
        found: &Found,
        instead: Option<&str>,
        terms: &Terms,
    ) -> (Option<Self>, Vec<Fault>) {
        let mut faults = Vec::new();
        let file = match config_file(found, instead) {
            Ok(None) if !terms.completes => return (None, vec![no_config_file(&found.name)]),
            Ok(file) => file,
            Err(fault) => return (None, vec![fault]),
        };
        let mut normalized = file
            .as_ref()
            .map(|file| file.config.clone())
            .unwrap_or_default();
        let contents = contents(found);
        let undetermined = config::normalize(&mut normalized, &found.name, contents.as_ref());
        let setting = Setting {
            folder: &found.name,
            gpus: &terms.gpus,
        };
        let flat = found
            .versions
            .values()
            .any(|version| *version == found.folder);
        let mut problems: Vec<_> = undetermined
            .err()
            .map(|problem| match flat {
                true => problem.fix("there is no version folder, such as `1`, and no `model.onnx`"),
                false => problem,
            })
            .into_iter()
            .collect();
        problems.extend(config::validate(&normalized, setting));
        let text = sidecar_text(found, &mut faults).unwrap_or_default();
        let merged = Merged::of(&text, &normalized.parameters).unwrap_or_else(|wrong| {
            problems.extend(wrong);
            Merged::default()
        });
        let definition = Self {
            model: found.name.clone(),
            folder: found.folder.clone(),
            file,
            normalized,
            sidecar: merged.sidecar,
            shown: merged.shown,
            terms: terms.clone(),
        };
        let located = problems.iter().map(|problem| definition.fault(problem));
        let faults = located.chain(faults).collect();
        (Some(definition), faults)
    }

    /// The configuration as written; empty without a file.
    pub(crate) fn config(&self) -> ModelConfig {
        self.file
            .as_ref()
            .map(|file| file.config.clone())
            .unwrap_or_default()
    }

    /// The batch size as written; what is filled in for a model without one is no limit of the model.
    pub(crate) fn rows_max(&self) -> Option<usize> {
        let written = self.file.as_ref()?.config.max_batch_size;
        usize::try_from(written).ok().filter(|rows| *rows > 0)
    }

    pub(crate) fn fault(&self, problem: &Problem) -> Fault {
        let message = problem.message.clone();
        let at = match &self.file {
            Some(file) => FileError {
                message,
                ..file.locate(problem)
            },
            None => FileError {
                file: String::new(),
                line: 0,
                column: 0,
                message,
            },
        };
        Fault {
            at,
            fix: problem.fix.clone(),
        }
    }

    /// The configuration with all that is filled in before the model is known.
    pub(crate) fn normalized(&self) -> &ModelConfig {
        &self.normalized
    }

    /// Where the engine finds one version.
    pub(crate) fn source(&self, version_folder: &Path) -> Result<Source, String> {
        let config = self.normalized.clone();
        let backend = match config.backend.as_str() {
            "" => config.platform.clone(),
            backend => backend.to_owned(),
        };
        let on_file = FILE_BACKENDS.contains(&backend.as_str());
        let file = version_folder.join(&config.default_model_filename);
        if on_file && !file.is_file() {
            // As seen from the model's folder: reasons are shown to clients.
            let inside = file.strip_prefix(&self.folder).unwrap_or(&file);
            let inside = inside.display();
            return Err(if version_folder == self.folder {
                format!("there is no version folder, such as `1`, and no `{inside}`")
            } else {
                format!("there is no `{inside}`")
            });
        }
        let (inputs, outputs) = config::engine_specs(&config);
        let parameter =
            |(key, value): (String, ModelParameter)| (key, Parameter::Text(value.string_value));
        Ok(Source {
            model: self.model.clone(),
            path: if on_file {
                file
            } else {
                version_folder.to_owned()
            },
            backend,
            parameters: config.parameters.into_iter().map(parameter).collect(),
            inputs,
            outputs,
            folder: self.folder.clone(),
            // As written, but for the signals that a sequence's model is sure to get.
            config: Arc::new(ModelConfig {
                scheduling_choice: self.normalized.scheduling_choice.clone(),
                ..self.config()
            }),
            sidecar: Arc::new(self.sidecar.clone()),
        })
    }

    /// Lanes and threads within the core budget. An artificial delay holds a lane without computing, so such a model
    /// has Triton's one instance unless told otherwise; all others get a lane per core.
    ///
    /// `threads` is what a call was given when the model was loaded; none before that.
    pub(crate) fn layout(&self, cores: usize, loaded: Option<(&dyn Loaded, usize)>) -> Layout {
        let asked_threads = match (loaded, self.threads()) {
            (Some((_, threads)), _) | (None, Threads::Fixed(threads)) => threads,
            (None, Threads::Auto) => 1,
        };
        let threads = asked_threads.clamp(1, cores);
        let loaded = loaded.map(|(loaded, _)| loaded);
        let asked = self
            .sidecar
            .lanes
            .or_else(|| config::instances_asked(&self.config()));
        let delays = loaded.is_some_and(|loaded| !loaded.delay().is_zero());
        let inline = loaded.is_some_and(|loaded| loaded.inline_bytes_max() > 0);
        let fitting = (cores / threads).max(1);
        let allowed = if delays || inline { LANES_MAX } else { fitting };
        let lanes = asked.unwrap_or(if delays { 1 } else { fitting });
        if lanes > allowed || asked_threads > cores {
            tracing::warn!(
                model = self.model,
                asked_lanes = lanes,
                asked_threads,
                lanes = lanes.min(allowed),
                threads,
                cores,
                "more lanes or threads than cores; using what fits"
            );
        }
        Layout {
            lanes: lanes.clamp(1, allowed),
            threads,
        }
    }

    /// How requests are queued and batched, by the completed configuration and the sidecar.
    pub(crate) fn batching(&self, config: &ModelConfig, waiting_max: usize) -> Settings {
        let target = self.sidecar.slo.target();
        let batch = &self.sidecar.batch;
        let base = Settings {
            buckets: if batch.pad {
                batch.buckets.clone()
            } else {
                Vec::new()
            },
            // The lanes are counted when they are made.
            ..Settings::single(0, waiting_max)
        };
        let mut settings = Settings::of(config, target, base);
        if !self.prefers_sizes() {
            // The largest, filled in as Triton does: nobody has said that it is worth its while.
            settings.preferred.clear();
        }
        settings
    }

    /// Whether the file says what batches are worth.
    fn prefers_sizes(&self) -> bool {
        let written = self
            .file
            .as_ref()
            .and_then(|file| file.config.scheduling_choice.as_ref());
        match written {
            Some(SchedulingChoice::DynamicBatching(batching)) => {
                !batching.preferred_batch_size.is_empty()
            }
            _ => false,
        }
    }

    pub(crate) fn options(&self, cores: usize) -> LoadOptions {
        let layout = self.layout(cores, None);
        LoadOptions {
            threads: layout.threads,
            lanes: layout.lanes,
            ..LoadOptions::default()
        }
    }

    /// The other way to use the cores, for who asked to have it measured: one lane on all of them.
    pub(crate) fn alternative(&self, cores: usize) -> Option<LoadOptions> {
        let free = self.sidecar.lanes.is_none() && self.threads() == Threads::Auto;
        (free && cores > 1).then(|| LoadOptions {
            threads: cores,
            ..LoadOptions::default()
        })
    }

    /// Ours, then Triton's name for it, of which 0 is its default.
    fn threads(&self) -> Threads {
        let named = || {
            let parameters = &self.file.as_ref()?.config.parameters;
            let count = parameters.get("intra_op_thread_count")?;
            let count = count.string_value.trim().parse().ok()?;
            (count > 0).then_some(Threads::Fixed(count))
        };
        self.sidecar
            .threads
            .or_else(named)
            .unwrap_or(Threads::Fixed(1))
    }

    /// Warm-up shapes for inputs that do not exist are a slip, and would be ignored in silence.
    pub(crate) fn check_warmup(&self, inputs: &[TensorSpec]) -> Result<(), String> {
        let names = || inputs.iter().map(|spec| spec.name.as_str());
        for name in self.sidecar.warmup.shapes.keys() {
            if !names().any(|known| known == name) {
                return Err(format!(
                    "[warmup] shapes: the model has no input `{name}`, its inputs are {}",
                    list(names())
                ));
            }
        }
        Ok(())
    }

    /// The whole configuration: what the file leaves open is taken from the model, and the two must agree.
    pub(crate) fn complete(
        &self,
        inputs: &[TensorSpec],
        outputs: &[TensorSpec],
    ) -> Result<ModelConfig, String> {
        self.completed(inputs, outputs)
            .map_err(|faults| join(faults.iter()))
    }

    /// The same, with every fault by itself.
    pub(crate) fn completed(
        &self,
        inputs: &[TensorSpec],
        outputs: &[TensorSpec],
    ) -> Result<ModelConfig, Vec<Fault>> {
        let mut config = self.normalized.clone();
        if self.terms.completes {
            config::complete(&mut config, inputs, outputs, self.terms.batch_max)
                .map_err(|problem| vec![self.fault(&problem)])?;
        }
        let setting = Setting {
            folder: &self.model,
            gpus: &self.terms.gpus,
        };
        let mut problems = config::validate(&config, setting);
        problems.extend(config::against_model(&config, inputs, outputs));
        if config.output.is_empty() && !self.terms.completes {
            let message = "no output is configured, and configurations are not completed here";
            problems.push(Problem::new("output", message).fix("name the model's outputs"));
        }
        if !problems.is_empty() {
            return Err(problems.iter().map(|problem| self.fault(problem)).collect());
        }
        for (key, value) in &self.shown {
            let string_value = value.clone();
            let parameter = ModelParameter { string_value };
            config.parameters.insert(key.clone(), parameter);
        }
        Ok(config)
    }
}

/// The configuration as it was written, by a file or by a client.
fn config_file(found: &Found, instead: Option<&str>) -> Result<Option<ConfigFile>, Fault> {
    let plain = |error: FileError| Fault {
        at: error,
        fix: None,
    };
    if let Some(json) = instead {
        return config::from_json(json).map(Some).map_err(plain);
    }
    let text = read(&found.folder.join(CONFIG_FILE)).map_err(plain)?;
    text.map(|text| config::parse(CONFIG_FILE, &text))
        .transpose()
        .map_err(plain)
}

fn no_config_file(model: &str) -> Fault {
    Fault {
        at: FileError {
            file: CONFIG_FILE.to_owned(),
            line: 0,
            column: 0,
            message: format!("model configuration is not provided for model '{model}'"),
        },
        fix: Some(
            "write the file, or let the node complete configurations: `completeConfigs: true`"
                .to_owned(),
        ),
    }
}

/// None when the file does not exist or is wrong.
fn sidecar_text(found: &Found, faults: &mut Vec<Fault>) -> Option<String> {
    let text = match read(&found.folder.join(SIDECAR_FILE)) {
        Ok(text) => text?,
        Err(error) => {
            faults.push(Fault {
                at: error,
                fix: None,
            });
            return None;
        }
    };
    match Sidecar::parse(&text, SIDECAR_FILE) {
        Ok(_) => Some(text),
        Err(errors) => {
            faults.extend(errors.into_iter().map(|at| Fault { at, fix: None }));
            None
        }
    }
}

/// What lies in the versions' folders; none when there is none to look into. Every version is made of the same files,
/// so one that is still incomplete does not hide what the others are.
fn contents(found: &Found) -> Option<Contents> {
    let mut contents = Contents::default();
    for entry in found
        .versions
        .values()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
    {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            contents.folders.insert(name);
        } else {
            contents.files.insert(name);
        }
    }
    (!found.versions.is_empty()).then_some(contents)
}

/// A file's text; none when it does not exist. Messages show its name without its folders, because clients see them.
fn read(path: &Path) -> Result<Option<String>, FileError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError {
            file: path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            line: 0,
            column: 0,
            message: format!("cannot be read: {error}"),
        }),
    }
}

pub(crate) fn join(errors: impl Iterator<Item = impl ToString>) -> String {
    let lines: Vec<_> = errors.map(|error| error.to_string()).collect();
    lines.join("; ")
}

mod missing;
#[cfg(test)]
mod tests;
