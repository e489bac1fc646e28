//! This node: its processes, and the models of its own server.

mod hardware;
mod logs;
mod memory;
mod model;
mod process_run;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::{TaskKind, Tasks};
use parking_lot::Mutex;
use process::Keeper;
use protocol::ApiError;
use protocol::resource::JobSpec;
use tokio::sync::watch;

use crate::executor::{
    Answer, Ended, Event, Events, Executor, How, LogQuery, LogStream, Progress, Run, RunId,
};
use logs::Logs;
use memory::Meter;
use model::Served;

pub use hardware::{Gpu, Hardware};

/// The models of this process, as jobs want them.
pub trait Models: Send + Sync + fmt::Debug + 'static {
    /// Whether it answers already.
    fn answers(&self, model: &str) -> bool;

    /// Whether it can have this batch, as far as its files tell without loading it.
    fn check<'a>(&'a self, model: &'a str, batch_size: u32) -> Answer<'a, ()>;

    /// Resolves when it answers, or with the reason why it does not. A dropped future does not undo the load.
    fn load<'a>(
        &'a self,
        model: &'a str,
        batch_size: Option<u32>,
        gpus: &'a [u8],
    ) -> Answer<'a, ()>;

    fn unload<'a>(&'a self, model: &'a str) -> Answer<'a, ()>;

    /// The public address, as a URL.
    fn endpoint(&self) -> String;
}

/// What the executor is made of.
#[derive(Debug)]
pub struct Parts {
    pub hardware: Hardware,
    pub models: Arc<dyn Models>,
    /// Where what jobs print is kept.
    pub logs: PathBuf,
    pub log_bytes_max: u64,
    /// What a job's environment must not have of this process's.
    pub hidden: &'static [&'static str],
    pub keeper: Keeper,
    pub tasks: Tasks,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Local(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    parts: Parts,
    logs: Logs,
    served: Served,
    meter: Arc<Meter>,
    events: OnceLock<Events>,
    /// Tell them how long they may take to end.
    running: Mutex<BTreeMap<RunId, watch::Sender<Option<Duration>>>>,
}

impl Local {
    pub fn new(parts: Parts) -> std::io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            logs: Logs::open(&parts.logs, parts.log_bytes_max)?,
            served: Served::default(),
            meter: Arc::default(),
            parts,
            events: OnceLock::new(),
            running: Mutex::default(),
        })))
    }
}

impl Executor for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn watch(&self, known: Vec<Run>, events: Events) -> Answer<'_, ()> {
        Box::pin(async move {
            let node = self.0.parts.hardware.node.clone();
            let ours = |run: &Run| {
                let first = run.placements.first();
                first.is_some_and(|place| place.node == node.name)
            };
            let lost: Vec<RunId> = known
                .iter()
                .filter(|run| ours(run))
                .map(|run| run.id.clone())
                .collect();
            drop(self.0.events.set(events.clone()));
            self.0.tell(Event::Nodes(vec![node.clone()])).await;
            // Processes end with the kapok that started them: their keepers see to that.
            for run in lost {
                let ended = Ended {
                    how: How::Lost,
                    end: None,
                    message: "kapok stopped while it ran".to_owned(),
                };
                self.0.tell(Event::Run(run, Progress::Ended(ended))).await;
            }
            Ok(())
        })
    }

    fn check<'a>(&'a self, spec: &'a JobSpec) -> Answer<'a, ()> {
        Box::pin(async move {
            match (&spec.model, spec.batch_size) {
                (Some(model), Some(size)) => self.0.parts.models.check(model, size).await,
                _ => Ok(()),
            }
        })
    }

    fn start(&self, run: Run) -> Answer<'_, ()> {
        Box::pin(async move {
            let (stop, stopped) = watch::channel(None);
            {
                let mut running = self.0.running.lock();
                if running.contains_key(&run.id) {
                    return Ok(());
                }
                running.insert(run.id.clone(), stop);
            }
            let shared = Arc::clone(&self.0);
            let tasks = self.0.parts.tasks.clone();
            tasks.spawn(TaskKind::JobRun, run.id.to_string(), async move {
                let id = run.id.clone();
                let ended = shared.live(run, stopped).await;
                shared.running.lock().remove(&id);
                shared.logs.ended(&id.job);
                shared.tell(Event::Run(id, Progress::Ended(ended))).await;
                Ok(())
            });
            Ok(())
        })
    }

    fn stop(&self, run: &RunId, grace: Duration) -> Answer<'_, ()> {
        if let Some(stop) = self.0.running.lock().get(run) {
            stop.send_replace(Some(grace));
        }
        Box::pin(async { Ok(()) })
    }

    fn logs(&self, job: &str, query: LogQuery) -> Answer<'_, Box<dyn LogStream>> {
        let stream = self.0.logs.read(job, query);
        Box::pin(async move { stream.map(|stream| Box::new(stream) as Box<dyn LogStream>) })
    }

    fn forget(&self, job: &str) -> Answer<'_, ()> {
        self.0.logs.forget(job);
        Box::pin(async { Ok(()) })
    }
}

impl Shared {
    /// One run from its start to its end.
    async fn live(&self, run: Run, stopped: watch::Receiver<Option<Duration>>) -> Ended {
        self.logs.begins(&run.id);
        if run.job.spec.image.is_some() && run.job.spec.command.is_empty() {
            return cannot_start(
                "an `image` runs where containers run; on this node name a `command`",
            );
        }
        if run.job.spec.resources.mig_profile.is_some() {
            return cannot_start("this node does not divide its GPUs; ask for a `gpuShare`");
        }
        match run.job.spec.model.clone() {
            Some(model) => self.serve(&run, &model, stopped).await,
            None => self.execute(&run, stopped).await,
        }
    }

    async fn ready(&self, run: &Run, endpoint: Option<String>) {
        let ready = Progress::Ready { endpoint };
        self.tell(Event::Run(run.id.clone(), ready)).await;
    }

    async fn tell(&self, event: Event) {
        if let Some(events) = self.events.get() {
            // Nobody listens any more when the node stops.
            drop(events.send(event).await);
        }
    }
}

fn cannot_start(message: impl Into<String>) -> Ended {
    Ended {
        how: How::CannotStart,
        end: None,
        message: message.into(),
    }
}

fn no_logs(job: &str) -> ApiError {
    let job = protocol::shown::name(job);
    let message = format!("nothing is kept of what job `{job}` printed");
    ApiError::new(base::ErrorKind::NotFound, message)
}
