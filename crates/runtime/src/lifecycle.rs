//! A model's life: found, loaded, replaced, put to sleep, taken out, forgotten. One thing at a time for a model, several
//! models at once, all of it on loader threads.
//!
//! ```text
//! start, a change on disk, a client, a first request ─► jobs ─► load ─► plan (what is wanted) ─► verify ─► build
//!                                                                ├─► compare ─► flip ─► retire what was there before
//!                                                                └─► refused: what serves goes on, the index says why
//! ```
//! Reading order: `jobs`, `load`, `plan`, `members` (an ensemble brings its own); then `swap` (what a new version must pass, and the way back), `residency` (who
//! is in memory under a budget), `retire` (freeing what no request holds any more).

mod jobs;
mod leave;
mod load;
mod members;
mod plan;
mod residency;
mod retire;
mod stamp;
mod swap;
mod warm;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::ErrorKind;
use protocol::resource::ModelControl;
use protocol::sidecar::Memory;
use protocol::{ApiError, LoadRequest};
use tokio::sync::oneshot;

use crate::catalogue::{Entry, Ready, Version, Versions, Woken};
use crate::definition::Terms;
use crate::error::Error;
use crate::repository::{self, Found};
use crate::runtime::Inner;

pub(crate) use jobs::{Done, Job, Jobs, Task};
pub(crate) use plan::Override;
pub(crate) use residency::{Residency, Weight, calls_begin};
pub(crate) use retire::Retired;
pub(crate) use stamp::{Stamp, files, hash_file, hash_into};
pub(crate) use swap::{Ended, Track, judge};
pub(crate) use warm::{Warm, warm};

/// What the lifecycle is told; see [`crate::Config`].
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) repositories: Vec<PathBuf>,
    pub(crate) control: ModelControl,
    pub(crate) load_models: Vec<String>,
    pub(crate) settle: Duration,
    pub(crate) poll: Duration,
    pub(crate) public_key: Option<String>,
    pub(crate) terms: Terms,
    /// Where the files of overridden models are kept while they are loaded.
    pub(crate) scratch: PathBuf,
}

/// What is remembered of a model between jobs.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// The folder as it was when it was last loaded or refused.
    pub(crate) seen: Option<Stamp>,
    /// A client's configuration and files, in force until the next load.
    pub(crate) over: Option<Arc<Override>>,
    /// A client took it out, or nobody asked for it: changes on disk do not bring it back.
    pub(crate) out: bool,
    pub(crate) previous: Option<Previous>,
    pub(crate) memory: Memory,
    /// What it took when it was in memory last, by version.
    pub(crate) weights: BTreeMap<u64, Weight>,
}

/// What served before, still in memory.
#[derive(Debug)]
pub(crate) struct Previous {
    pub(crate) versions: Arc<Versions>,
    pub(crate) until: Instant,
}

impl Settings {
    pub(crate) fn watches(&self) -> bool {
        matches!(self.control, ModelControl::Auto | ModelControl::Poll)
    }

    /// Whether the model is to be loaded without anybody asking.
    fn wanted_at_start(&self, name: &str) -> bool {
        let named = || {
            self.load_models
                .iter()
                .any(|model| model == name || model == "*")
        };
        self.control != ModelControl::Explicit || named()
    }
}

/// What is shown at first, and the models to load.
pub(crate) fn begin(inner: &Arc<Inner>, found: Vec<Found>) {
    let mut models = BTreeMap::new();
    let mut jobs = Vec::new();
    for found in found {
        let latest = found.latest();
        let mut life = Life::default();
        let first = if let Some(problem) = &found.problem {
            say_problem(&found, problem);
            life.seen = Stamp::of(&found.folder);
            Versions::one(latest, Version::Unavailable(problem.clone()))
        } else if !inner.settings.wanted_at_start(&found.name) {
            life.out = true;
            Versions::one(latest, Version::Unloaded(NOT_LOADED.to_owned()))
        } else if inner.residency.budget().is_some() {
            jobs.push((found.name.clone(), Task::Register));
            Versions::one(latest, Version::Asleep)
        } else {
            jobs.push((found.name.clone(), Task::Start));
            Versions::one(latest, Version::Loading)
        };
        let entry = Entry::new(&found.name, first);
        *entry.life.lock() = life;
        models.insert(found.name, Arc::new(entry));
    }
    inner.catalogue.set(models);
    inner.loading.send_replace(jobs.len());
    for (model, task) in jobs {
        let counted = Some(Done::Counted(Arc::downgrade(inner)));
        Jobs::submit(
            inner,
            Job {
                model,
                task,
                done: counted,
            },
        );
    }
}

pub(crate) const NOT_LOADED: &str = "not loaded";
pub(crate) const UNLOADED: &str = "unloaded";

/// Which folders they are is for the log only: clients see reasons.
fn say_problem(found: &Found, problem: &str) {
    tracing::error!(
        model = found.name,
        folder = %found.folder.display(),
        twin = found.twin.as_ref().map(|twin| tracing::field::display(twin.display())),
        problem,
        "model is unavailable"
    );
}

/// A client's load; resolves when it has ended. A dropped future does not undo it.
pub(crate) async fn load(inner: &Arc<Inner>, request: LoadRequest) -> Result<(), ApiError> {
    controllable(inner)?;
    let failed = |reason: &str| format!("failed to load '{}', {reason}", request.model);
    let model = request.model.clone();
    let known = inner.catalogue.get(&model).is_ok();
    let there = repository::find(&inner.settings.repositories, &model).is_some();
    if !known && !there && request.files.is_empty() {
        // Triton's words, which its clients match on; it calls this an internal error, which it is not.
        let message = failed("failed to poll from model repository");
        return Err(ApiError::new(ErrorKind::NotFound, message));
    }
    if !repository::is_name(&model) {
        let message = failed("a model's name is a folder's: no `/`, and no `.` in front");
        return Err(ApiError::new(ErrorKind::Invalid, message));
    }
    if request.config.is_none() && !request.files.is_empty() {
        let message = failed("override model directory requires model config override");
        return Err(ApiError::new(ErrorKind::Invalid, message));
    }
    let task = Task::Load(Box::new(request.clone()));
    submit(inner, model, task)
        .await
        .map_err(|reason| ApiError::new(ErrorKind::Invalid, failed(&reason)))?;
    members::load(inner, &request.model)
        .await
        .map_err(|reason| ApiError::new(ErrorKind::Invalid, failed(&reason)))
}

/// A client's unload. Resolves when no new request can reach the model, or any of its members that go with it.
pub(crate) async fn unload(
    inner: &Arc<Inner>,
    model: &str,
    dependents: bool,
) -> Result<(), ApiError> {
    controllable(inner)?;
    let entry = inner.catalogue.get(model)?;
    let mut leaving = vec![model.to_owned()];
    if dependents {
        leaving.extend(members::only_of(inner, &entry));
    }
    for name in leaving {
        let unloaded = submit(inner, name.clone(), Task::Unload).await;
        unloaded.map_err(|reason| {
            let message = format!("failed to unload '{name}', {reason}");
            ApiError::new(ErrorKind::Internal, message)
        })?;
    }
    Ok(())
}

/// Back to what served before, at once.
pub(crate) async fn roll_back(inner: &Arc<Inner>, model: &str) -> Result<(), ApiError> {
    inner.catalogue.get(model)?;
    let why = "by request".to_owned();
    submit(
        inner,
        model.to_owned(),
        Task::RollBack { why, judged: None },
    )
    .await
    .map_err(|reason| {
        let message = format!("failed to roll back '{model}', {reason}");
        ApiError::new(ErrorKind::Conflict, message)
    })
}

fn controllable(inner: &Inner) -> Result<(), ApiError> {
    match inner.settings.control {
        ModelControl::Auto | ModelControl::Explicit => Ok(()),
        // Triton's words, for both of its modes.
        ModelControl::None | ModelControl::Poll => Err(ApiError::new(
            ErrorKind::Unavailable,
            "explicit model load / unload is not allowed if polling is enabled",
        )),
    }
}

async fn submit(inner: &Arc<Inner>, model: String, task: Task) -> Result<(), String> {
    let (done, outcome) = oneshot::channel();
    let done = Some(Done::Told(done));
    Jobs::submit(inner, Job { model, task, done });
    outcome
        .await
        .unwrap_or_else(|_| Err("the node is stopping".to_owned()))
}

/// Waits until a sleeping model is in memory, or cannot be. Cancel-safe: the load goes on for whoever else waits.
pub(crate) async fn wake(inner: &Arc<Inner>, entry: &Arc<Entry>) -> Result<(), Error> {
    let (tell, told) = oneshot::channel();
    let first = {
        let mut waiting = entry.waiting.lock();
        waiting.retain(|waiter| !waiter.is_closed());
        if waiting.len() >= inner.queue_max.max(1) {
            return Err(Error::QueueFull {
                model: entry.name.clone(),
                waiting: waiting.len(),
            });
        }
        waiting.push(tell);
        waiting.len() == 1
    };
    if first {
        let (model, task) = (entry.name.clone(), Task::Wake(Arc::clone(entry)));
        Jobs::submit(
            inner,
            Job {
                model,
                task,
                done: None,
            },
        );
    }
    match told.await {
        Ok(Woken::Done) => Ok(()),
        Ok(Woken::NoRoom(reason)) => Err(Error::NoRoom {
            model: entry.name.clone(),
            reason,
        }),
        Err(_) => Err(Error::NotReady {
            model: entry.name.clone(),
            version: "1".to_owned(),
        }),
    }
}

/// The models that are replaced by `next`.
fn gone(before: &Versions, next: &Versions) -> Vec<(u64, Ready)> {
    let kept = |model: &Arc<crate::model::Model>| {
        next.ready()
            .any(|(_, ready)| Arc::ptr_eq(&ready.model, model))
    };
    before
        .ready()
        .filter(|(_, ready)| !kept(&ready.model))
        .map(|(number, ready)| (number, ready.clone()))
        .collect()
}

#[cfg(test)]
mod tests;
