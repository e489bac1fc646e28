//! What a model's folder says about it: `config.pbtxt` and `kapok.toml`, read once per load.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::config::{self, ConfigFile, ModelFile, Problem};
use protocol::oip::proto::ModelConfig;
use protocol::sidecar::Sidecar;
use protocol::{Parameter, TensorSpec};

use crate::engine::{LoadOptions, Loaded, Source};
use crate::repository::Found;
use crate::request::list;

const CONFIG_FILE: &str = "config.pbtxt";
const SIDECAR_FILE: &str = "kapok.toml";
const MODEL_FILE: &str = "model.onnx";

/// Triton's name for whatever runs ONNX files; here, any engine that does.
const ONNX_BACKEND: &str = "onnxruntime";

/// Lanes beyond this are a slip: each holds an engine's working memory.
const LANES_MAX: usize = 1024;

/// A model's settings before any engine has seen it.
#[derive(Debug)]
pub(crate) struct Definition {
    model: String,
    pub(crate) folder: PathBuf,
    file: Option<ConfigFile>,
    pub(crate) sidecar: Sidecar,
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
    /// Reads both files; either may be absent. The error is for people and names file, line and column.
    pub(crate) fn read(found: &Found) -> Result<Self, String> {
        let file = read(&found.folder.join(CONFIG_FILE))?
            .map(|(name, text)| config::parse(&name, &text))
            .transpose()
            .map_err(|error| error.to_string())?;
        let sidecar = read(&found.folder.join(SIDECAR_FILE))?
            .map(|(name, text)| Sidecar::parse(&text, &name))
            .transpose()
            .map_err(|errors| join(errors.iter()))?
            .unwrap_or_default();
        let definition = Self {
            model: found.name.clone(),
            folder: found.folder.clone(),
            file,
            sidecar,
        };
        definition.check()?;
        Ok(definition)
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

    /// What cannot be served whatever the model turns out to be; said before an engine spends time on it.
    fn check(&self) -> Result<(), String> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        self.all(&config::validate(&file.config, &self.model, &[], &[]))
    }

    fn all(&self, problems: &[Problem]) -> Result<(), String> {
        if problems.is_empty() {
            return Ok(());
        }
        Err(join(problems.iter().map(|problem| self.locate(problem))))
    }

    fn locate(&self, problem: &Problem) -> String {
        match &self.file {
            Some(file) => file.locate(problem).to_string(),
            None => problem.message.clone(),
        }
    }

    /// Where the engine finds one version.
    pub(crate) fn source(&self, version_folder: &Path) -> Result<Source, String> {
        let mut config = self.config();
        let silent = config.backend.is_empty() && config.platform.is_empty();
        let named = match config.default_model_filename.as_str() {
            "" => MODEL_FILE,
            named => named,
        };
        let found = if version_folder.join(named).is_file() {
            ModelFile::Found
        } else {
            ModelFile::Missing
        };
        // Without the model's own inputs this fills in names only: the backend, its file.
        config::complete(&mut config, &self.model, found, &[], &[])
            .map_err(|problem| self.locate(&problem))?;
        let named = Some(config.default_model_filename.as_str()).filter(|name| !name.is_empty());
        let file = version_folder.join(named.unwrap_or(MODEL_FILE));
        let backend = match config.backend.as_str() {
            "" if silent => ONNX_BACKEND,
            "" => config.platform.as_str(),
            backend => backend,
        }
        .to_owned();
        let on_file = backend == ONNX_BACKEND;
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
        let parameter = |(key, value): (String, protocol::oip::proto::ModelParameter)| {
            (key, Parameter::Text(value.string_value))
        };
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
            config: Arc::new(self.config()),
            sidecar: Arc::new(self.sidecar.clone()),
        })
    }

    /// Lanes and threads within the core budget. An artificial delay holds a lane without computing, so such a model
    /// has Triton's one instance unless told otherwise; all others get a lane per core.
    pub(crate) fn layout(&self, cores: usize, loaded: Option<&dyn Loaded>) -> Layout {
        let threads = self.sidecar.threads.clamp(1, cores);
        let asked = self
            .sidecar
            .lanes
            .or_else(|| config::instances_asked(&self.config()));
        let delays = loaded.is_some_and(|loaded| !loaded.delay().is_zero());
        let inline = loaded.is_some_and(|loaded| loaded.inline_bytes_max() > 0);
        let fitting = (cores / threads).max(1);
        let allowed = if delays || inline { LANES_MAX } else { fitting };
        let lanes = asked.unwrap_or(if delays { 1 } else { fitting });
        if lanes > allowed || self.sidecar.threads > cores {
            tracing::warn!(
                model = self.model,
                asked_lanes = lanes,
                asked_threads = self.sidecar.threads,
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

    pub(crate) fn options(&self, cores: usize) -> LoadOptions {
        LoadOptions {
            threads: self.layout(cores, None).threads,
        }
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
        source: &Source,
        inputs: &[TensorSpec],
        outputs: &[TensorSpec],
    ) -> Result<ModelConfig, String> {
        let mut config = self.config();
        // As `source` decided: what it made ONNX had its file.
        let found = if source.backend == ONNX_BACKEND {
            ModelFile::Found
        } else {
            ModelFile::Missing
        };
        config::complete(&mut config, &self.model, found, inputs, outputs)
            .map_err(|problem| self.locate(&problem))?;
        self.all(&config::validate(&config, &self.model, inputs, outputs))?;
        Ok(config)
    }
}

/// A file's name for messages, without its folders because clients see them, and its text; none when it does not exist.
fn read(path: &Path) -> Result<Option<(String, String)>, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some((name.into_owned(), text))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read `{name}`: {error}")),
    }
}

fn join(errors: impl Iterator<Item = impl ToString>) -> String {
    let lines: Vec<_> = errors.map(|error| error.to_string()).collect();
    lines.join("; ")
}
