//! Everything that is wrong in repositories, found without loading a model: what `kapok models check` prints.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::config::{Problem, ensemble};
use protocol::oip::proto::ModelConfig;
use protocol::{FileError, TensorSpec};

use crate::agents;
use crate::choose::no_backend;
use crate::definition::{Definition, Fault, Terms, join};
use crate::engine::{Engine, Source};
use crate::error::Error;
use crate::repository::{Found, scan, select};

/// One mistake, at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub model: String,
    /// The file, or the model's folder when no file is at fault.
    pub file: PathBuf,
    /// From 1; 0 when the whole file is at fault.
    pub line: usize,
    pub column: usize,
    pub message: String,
    /// What to do about it, in words.
    pub fix: Option<String>,
}

/// What was looked at, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    pub models: Vec<String>,
    pub findings: Vec<Finding>,
}

/// The inputs and outputs that a model's file declares, batch dimension included.
pub type Described = Result<(Vec<TensorSpec>, Vec<TensorSpec>), String>;

/// Whose models can be served, and who reads a model's file without loading it.
#[derive(Clone, Copy)]
pub struct Readers<'a> {
    pub engines: &'a [Arc<dyn Engine>],
    pub describe: &'a dyn Fn(&Source) -> Described,
    /// As [`crate::Config::gpus`].
    pub gpus: &'a [i32],
    /// As [`crate::Config::complete_configs`].
    pub completes: bool,
}

impl std::fmt::Debug for Readers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

/// Looks at every model of the repositories; only a repository that cannot be read is an error.
pub fn check(repositories: &[PathBuf], readers: Readers<'_>) -> Result<Checked, Error> {
    let all = scan(repositories)?;
    let mut checked = Checked::default();
    let mut whole = BTreeMap::new();
    for found in &all {
        checked.models.push(found.name.clone());
        let looked = look(found, readers, &Terms::of(readers.gpus, readers.completes));
        checked
            .findings
            .extend(looked.faults.into_iter().map(|fault| finding(found, fault)));
        if let Some(member) = looked.member {
            whole.insert(found.name.as_str(), member);
        }
    }
    for found in &all {
        if let Some(member) = whole.get(found.name.as_str()) {
            let faults = across(member, &whole);
            checked
                .findings
                .extend(faults.into_iter().map(|fault| finding(found, fault)));
        }
    }
    Ok(checked)
}

fn finding(found: &Found, fault: Fault) -> Finding {
    Finding {
        model: found.name.clone(),
        file: match fault.at.file.as_str() {
            "" => found.folder.clone(),
            file => found.folder.join(file),
        },
        line: fault.at.line,
        column: fault.at.column,
        message: fault.at.message,
        fix: fault.fix,
    }
}

/// A model that could be loaded, as far as its files tell.
struct Whole {
    definition: Definition,
    config: ModelConfig,
    versions: Vec<u64>,
}

struct Looked {
    faults: Vec<Fault>,
    member: Option<Whole>,
}

fn plain(message: String) -> Fault {
    Fault {
        at: FileError {
            file: String::new(),
            line: 0,
            column: 0,
            message,
        },
        fix: None,
    }
}

/// The configuration that a model would have, completed from its files without loading it.
pub(crate) fn outline(
    found: &Found,
    readers: Readers<'_>,
    terms: &Terms,
) -> Result<ModelConfig, String> {
    let looked = look(found, readers, terms);
    match looked.member {
        Some(member) if looked.faults.is_empty() => Ok(member.config),
        _ => Err(join(looked.faults.iter())),
    }
}

fn look(found: &Found, readers: Readers<'_>, terms: &Terms) -> Looked {
    if let Some(problem) = &found.problem {
        return Looked {
            faults: vec![plain(problem.clone())],
            member: None,
        };
    }
    let (definition, mut faults) = Definition::inspect(found, None, terms);
    let Some(definition) = definition else {
        return Looked {
            faults,
            member: None,
        };
    };
    faults.extend(definition.missing());
    let objections = agents::objections(definition.normalized(), &found.folder);
    faults.extend(objections.iter().map(|problem| definition.fault(problem)));
    // Files are looked up by what the configuration says: a wrong one leads nowhere.
    if !faults.is_empty() {
        return Looked {
            faults,
            member: None,
        };
    }
    let policy = definition.normalized().version_policy.as_ref();
    let versions = match select(&found.versions, policy) {
        Ok(versions) => versions,
        Err(reason) => {
            return Looked {
                faults: vec![plain(reason)],
                member: None,
            };
        }
    };
    let mut config = None;
    for version in &versions {
        let Some(folder) = found.versions.get(version) else {
            continue;
        };
        match version_of(&definition, folder, readers) {
            Ok(completed) => config = Some(completed),
            Err(wrong) => faults.extend(wrong),
        }
    }
    let member = config.map(|config| Whole {
        definition,
        config,
        versions,
    });
    Looked { faults, member }
}

/// One version's file against the configuration.
fn version_of(
    definition: &Definition,
    folder: &Path,
    readers: Readers<'_>,
) -> Result<ModelConfig, Vec<Fault>> {
    if ensemble::steps(definition.normalized()).is_some() {
        return definition.completed(&[], &[]);
    }
    let one = |message: String| vec![plain(message)];
    let source = definition.source(folder).map_err(one)?;
    let named = definition.sidecar.engine.name();
    let known = named.is_none_or(|name| readers.engines.iter().any(|engine| engine.name() == name));
    if known && !readers.engines.iter().any(|engine| engine.accepts(&source)) {
        return Err(one(no_backend(&source.backend)));
    }
    if !source.path.is_file() {
        return definition.completed(&source.inputs, &source.outputs);
    }
    let (inputs, outputs) = (readers.describe)(&source).map_err(one)?;
    let warmup = definition.check_warmup(&inputs).map_err(|message| {
        let mut fault = plain(message);
        "kapok.toml".clone_into(&mut fault.at.file);
        vec![fault]
    });
    match (warmup, definition.completed(&inputs, &outputs)) {
        (Ok(()), completed) => completed,
        (Err(faults), Ok(_)) => Err(faults),
        (Err(mut faults), Err(more)) => {
            faults.extend(more);
            Err(faults)
        }
    }
}

/// An ensemble against the models beside it.
fn across(ensemble: &Whole, all: &BTreeMap<&str, Whole>) -> Vec<Fault> {
    let Some(steps) = ensemble::steps(&ensemble.config) else {
        return Vec::new();
    };
    let name = &ensemble.config.name;
    let mut problems = Vec::new();
    let mut missing = BTreeSet::new();
    for (index, step) in steps.iter().enumerate() {
        let field = format!("ensemble_scheduling.step[{index}]");
        match all.get(step.model_name.as_str()) {
            None => {
                if missing.insert(step.model_name.as_str()) {
                    let message = format!(
                        "ensemble {name} contains models that are not available or ambiguous: {}",
                        step.model_name
                    );
                    let fix = "add the model's folder, correct its name, or repair it";
                    problems.push(Problem::new(format!("{field}.model_name"), message).fix(fix));
                }
            }
            Some(member) => {
                let wanted = u64::try_from(step.model_version).ok();
                let served = wanted.is_some_and(|wanted| member.versions.contains(&wanted));
                if step.model_version != -1 && !served {
                    let message = format!(
                        "ensemble '{name}' depends on '{}' whose required version {} is not loaded",
                        step.model_name, step.model_version
                    );
                    let fix = format!(
                        "use -1 for the latest, or widen the `version_policy` of '{}'",
                        step.model_name
                    );
                    problems.push(Problem::new(format!("{field}.model_version"), message).fix(fix));
                }
            }
        }
    }
    problems.extend(circle(name, all));
    // Which tensors fan out is said in the sidecar, and changes what fits what.
    let fans_out = !ensemble.definition.sidecar.pipeline.fan_out.is_empty();
    if problems.is_empty() && !fans_out {
        let member = |step: &protocol::oip::proto::model_ensembling::Step| {
            let whole = all.get(step.model_name.as_str())?;
            Some(ensemble::Member {
                config: &whole.config,
                over: &[],
            })
        };
        let members: Vec<_> = steps.iter().map(member).collect();
        problems.extend(ensemble::check_members(&ensemble.config, name, &members).err());
    }
    problems
        .iter()
        .map(|problem| ensemble.definition.fault(problem))
        .collect()
}

/// Ensembles that contain each other never become ready.
fn circle(start: &str, all: &BTreeMap<&str, Whole>) -> Option<Problem> {
    let members = |name: &str| {
        let config = all.get(name).map(|whole| &whole.config);
        let steps = config.and_then(ensemble::steps).unwrap_or_default();
        steps.iter().map(|step| step.model_name.as_str()).collect()
    };
    let message = crate::ensemble::circle(start, members)?;
    Some(Problem::new("ensemble_scheduling", message))
}

#[cfg(test)]
mod tests;
