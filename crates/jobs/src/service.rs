//! The task that owns the jobs, and what others hold of it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, ErrorKind, TaskKind, Tasks};
use protocol::ApiError;
use protocol::resource::{Job, JobState, Submission, Timestamp};
use scheduler::Node;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::Config;
use crate::desk::{Desk, ListQuery, Order};
use crate::executor::{Ended, Event, Executor, How, LogQuery, LogStream, Progress};
use crate::metrics::Metrics;
use crate::store::{Embedded, InMemory, Record, Store, StoreError};

/// What jobs are made of.
#[derive(Debug)]
pub struct Parts {
    pub config: Config,
    /// Where they are kept; none is in memory.
    pub folder: Option<PathBuf>,
    pub executors: Vec<Arc<dyn Executor>>,
    pub clock: Clock,
    pub tasks: Tasks,
    pub metrics: Metrics,
}

/// Jobs. Cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    questions: mpsc::Sender<Question>,
    /// Counts what has changed.
    changed: watch::Receiver<u64>,
    executors: Arc<[Arc<dyn Executor>]>,
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").finish_non_exhaustive()
    }
}

/// Which jobs are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub state: Option<JobState>,
    pub tenant: Option<String>,
    pub limit: usize,
}

/// Asked of the desk in turn; what comes back tells the answer once all is written that it changed.
type Question = Box<dyn FnOnce(&mut Desk) -> Box<dyn FnOnce() + Send> + Send>;

/// Questions and events that wait for their turn; more wait with whoever has them.
const WAITING_MAX: usize = 256;

/// Orders that wait for one executor; more wait at the desk.
const ORDERS_MAX: usize = 64;

/// How long the first word of an executor is waited for: a cluster that does not answer must not keep this node's jobs.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// Between two looks whether another process has let go of the jobs.
const BUSY_PAUSE: Duration = Duration::from_millis(250);

impl Jobs {
    /// Starts the task that owns them. They can be asked for once they are read and their executors have spoken.
    pub fn start(parts: Parts) -> Self {
        let (sender, questions) = mpsc::channel(WAITING_MAX);
        let changed = watch::Sender::new(0);
        let jobs = Self {
            questions: sender,
            changed: changed.subscribe(),
            executors: parts.executors.clone().into(),
        };
        let tasks = parts.tasks.clone();
        tasks.spawn(TaskKind::Jobs, "jobs", async move {
            let Some(store) = open(&parts).await? else {
                return Ok(());
            };
            if let Some(service) = Service::begin(parts, store, questions, changed).await? {
                service.run().await;
            }
            Ok(())
        });
        jobs
    }

    /// Takes a job; it is kept when this returns.
    pub async fn submit(&self, submission: Submission) -> Result<Job, ApiError> {
        self.runnable(&submission).await?;
        self.ask(move |desk| desk.submit(submission)).await
    }

    /// What would become of it now; nothing is kept.
    pub async fn check(&self, submission: Submission) -> Result<Value, ApiError> {
        self.runnable(&submission).await?;
        self.ask(move |desk| {
            desk.check_region(&submission)?;
            shown(&desk.foretell(&submission)?)
        })
        .await
    }

    /// Refused when no executor could ever run it.
    async fn runnable(&self, submission: &Submission) -> Result<(), ApiError> {
        let mut refused = None;
        for executor in self.executors.iter() {
            match executor.check(&submission.spec).await {
                Ok(()) => return Ok(()),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Newest first.
    pub async fn list(&self, filter: Filter) -> Result<Vec<Job>, ApiError> {
        let query = ListQuery {
            state: filter.state,
            tenant: filter.tenant,
            limit: filter.limit,
        };
        self.ask(move |desk| Ok(desk.list(&query))).await
    }

    pub async fn get(&self, id: &str) -> Result<Job, ApiError> {
        let id = id.to_owned();
        self.ask(move |desk| desk.get(&id)).await
    }

    /// The job when it has ended, or as it is when the time is over.
    pub async fn wait(&self, id: &str, limit: Duration) -> Result<Job, ApiError> {
        let mut changed = self.changed.clone();
        let ended = async {
            loop {
                changed.mark_unchanged();
                let job = self.get(id).await?;
                if job.status.state.is_final() || changed.changed().await.is_err() {
                    return Ok(job);
                }
            }
        };
        match tokio::time::timeout(limit, ended).await {
            Ok(told) => told,
            Err(_elapsed) => self.get(id).await,
        }
    }

    pub async fn cancel(&self, id: &str) -> Result<Job, ApiError> {
        let id = id.to_owned();
        self.ask(move |desk| desk.cancel(&id)).await
    }

    /// Why it waits, or what became of it.
    pub async fn explain(&self, id: &str) -> Result<Value, ApiError> {
        let id = id.to_owned();
        self.ask(move |desk| shown(&desk.standing(&id)?)).await
    }

    pub async fn nodes(&self) -> Result<Value, ApiError> {
        self.ask(|desk| Ok(json!({ "nodes": shown(&desk.nodes())? })))
            .await
    }

    pub async fn logs(&self, id: &str, query: LogQuery) -> Result<Box<dyn LogStream>, ApiError> {
        let asked = id.to_owned();
        let executor = self.ask(move |desk| desk.executor(&asked)).await?;
        let executor = self.executors.get(executor).ok_or_else(stopped)?;
        executor.logs(id, query).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Desk) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (tell, told) = oneshot::channel();
        let question: Question = Box::new(move |desk| {
            let answer = question(desk);
            // Who asked may be gone.
            Box::new(move || drop(tell.send(answer)))
        });
        self.questions
            .send(question)
            .await
            .map_err(|_closed| stopped())?;
        told.await.map_err(|_dropped| stopped())?
    }
}

fn shown(view: &impl serde::Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(view).map_err(|error| {
        let message = format!("cannot write the answer: {error}");
        ApiError::new(ErrorKind::Internal, message)
    })
}

fn stopped() -> ApiError {
    let message = "jobs are not looked after at the moment: the node stops, or its log says why";
    ApiError::new(ErrorKind::Unavailable, message)
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Waits while another process has the jobs, which is so during an upgrade. None when the node stops first.
async fn open(parts: &Parts) -> Result<Option<Arc<dyn Store>>, Failed> {
    let Some(folder) = parts.folder.clone() else {
        return Ok(Some(Arc::new(InMemory::default())));
    };
    let mut told = false;
    loop {
        let wanted = folder.clone();
        match tokio::task::spawn_blocking(move || Embedded::open(&wanted)).await? {
            Ok(store) => return Ok(Some(Arc::new(store))),
            Err(error @ StoreError::Busy { .. }) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!(reason = error.to_string(), "waiting for the jobs");
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = parts.tasks.stopped() => return Ok(None),
            () = tokio::time::sleep(BUSY_PAUSE) => {}
        }
    }
}

struct Service {
    desk: Desk,
    store: Arc<dyn Store>,
    hands: Vec<mpsc::Sender<Order>>,
    /// For executors whose hands are full.
    held_back: Vec<(usize, Order)>,
    questions: mpsc::Receiver<Question>,
    events: mpsc::Receiver<(usize, Event)>,
    answers: Vec<Box<dyn FnOnce() + Send>>,
    changed: watch::Sender<u64>,
    clock: Clock,
    tasks: Tasks,
    metrics: Metrics,
}

impl Service {
    /// Reads what was written, and hears every executor once.
    async fn begin(
        parts: Parts,
        store: Arc<dyn Store>,
        questions: mpsc::Receiver<Question>,
        changed: watch::Sender<u64>,
    ) -> Result<Option<Self>, Failed> {
        let reader = Arc::clone(&store);
        let records = tokio::task::spawn_blocking(move || reader.load()).await??;
        let (told, mut events) = mpsc::channel(WAITING_MAX);
        let mut hands = Vec::new();
        for (index, executor) in parts.executors.iter().enumerate() {
            // Whose they are is known when the executors have told of their nodes: each sorts out what is not its own.
            let known = Desk::known(&records);
            let hand = hire(
                &parts.tasks,
                (index, Arc::clone(executor)),
                known,
                told.clone(),
            );
            hands.push(hand);
        }
        let mut early = Vec::new();
        let first = first_words(&mut events, hands.len(), &mut early);
        let nodes = tokio::select! {
            () = parts.tasks.stopped() => return Ok(None),
            nodes = first => nodes,
        };
        let now = Timestamp::from(parts.clock.wall());
        let mut desk = Desk::restore(parts.config, nodes, records, now)?;
        for (executor, event) in early {
            desk.event(executor, event);
        }
        Ok(Some(Self {
            desk,
            store,
            hands,
            held_back: Vec::new(),
            questions,
            events,
            answers: Vec::new(),
            changed,
            clock: parts.clock,
            tasks: parts.tasks,
            metrics: parts.metrics,
        }))
    }

    async fn run(mut self) {
        let tasks = self.tasks.clone();
        loop {
            self.desk.at(Timestamp::from(self.clock.wall()));
            self.desk.advance();
            self.settle().await;
            let alarm = self.alarm();
            // Cancel-safe: channels keep what came.
            tokio::select! {
                () = tasks.stopped() => return,
                question = self.questions.recv() => match question {
                    Some(question) => self.answer(question),
                    None => return,
                },
                Some((executor, event)) = self.events.recv() => self.desk.event(executor, event),
                () = alarm => {}
            }
            self.take_the_rest();
        }
    }

    /// What has come in the meantime is settled together: one write for all of it.
    fn take_the_rest(&mut self) {
        self.desk.at(Timestamp::from(self.clock.wall()));
        for _ in 0..WAITING_MAX {
            let Ok((executor, event)) = self.events.try_recv() else {
                break;
            };
            self.desk.event(executor, event);
        }
        for _ in 0..WAITING_MAX {
            let Ok(question) = self.questions.try_recv() else {
                break;
            };
            self.answer(question);
        }
    }

    fn answer(&mut self, question: Question) {
        self.desk.at(Timestamp::from(self.clock.wall()));
        let answer = question(&mut self.desk);
        self.answers.push(answer);
    }

    fn alarm(&self) -> impl Future<Output = ()> + use<> {
        let now = Timestamp::from(self.clock.wall());
        let mut wait = self.desk.alarm().map(|at| at.since(now));
        if !self.held_back.is_empty() {
            wait = Some(wait.map_or(BUSY_PAUSE, |wait| wait.min(BUSY_PAUSE)));
        }
        async move {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Writes first, then acts, then answers: what was promised is never forgotten.
    async fn settle(&mut self) {
        let (changed, gone) = self.desk.changes();
        if !changed.is_empty() || !gone.is_empty() {
            self.write(changed, gone).await;
            self.changed.send_modify(|count| *count += 1);
            self.metrics.show(self.desk.counts());
        }
        let mut orders = std::mem::take(&mut self.held_back);
        orders.extend(self.desk.orders());
        for (executor, order) in orders {
            let Some(hand) = self.hands.get(executor) else {
                continue;
            };
            // Once one order of an executor waits, all later ones do.
            let waits = self.held_back.iter().any(|(other, _)| *other == executor);
            match hand.try_reserve() {
                Ok(place) if !waits => place.send(order),
                _ => self.held_back.push((executor, order)),
            }
        }
        for answer in self.answers.drain(..) {
            answer();
        }
    }

    async fn write(&mut self, changed: Vec<Record>, gone: Vec<u64>) {
        let store = Arc::clone(&self.store);
        let work = tokio::task::spawn_blocking(move || {
            let written = store.write(&changed, &gone);
            (written, changed, gone)
        });
        match work.await {
            Ok((Ok(()), _, _)) => {}
            Ok((Err(error), changed, gone)) => {
                tracing::error!(
                    error = base::chain(&error),
                    "jobs are not written down; they go on, and the next change writes them again"
                );
                self.desk.unwritten(&changed, gone);
            }
            Err(error) => tracing::error!(%error, "jobs are not written down"),
        }
    }
}

/// The nodes of every executor that speaks in time.
async fn first_words(
    events: &mut mpsc::Receiver<(usize, Event)>,
    executors: usize,
    early: &mut Vec<(usize, Event)>,
) -> Vec<Vec<Node>> {
    let mut nodes: Vec<Option<Vec<Node>>> = vec![None; executors];
    let all = async {
        while nodes.iter().any(Option::is_none) {
            match events.recv().await {
                Some((executor, Event::Nodes(told))) => {
                    if let Some(place) = nodes.get_mut(executor) {
                        *place = Some(told);
                    }
                }
                Some(other) => early.push(other),
                None => return,
            }
        }
    };
    let _late = tokio::time::timeout(FIRST_WORD, all).await;
    nodes.into_iter().map(Option::unwrap_or_default).collect()
}

/// A task that gives one executor its orders, one after the other, so that none overtakes another.
fn hire(
    tasks: &Tasks,
    (index, executor): (usize, Arc<dyn Executor>),
    known: Vec<crate::executor::Run>,
    told: mpsc::Sender<(usize, Event)>,
) -> mpsc::Sender<Order> {
    let (events, mut heard) = mpsc::channel::<Event>(WAITING_MAX);
    let (sender, mut orders) = mpsc::channel(ORDERS_MAX);
    tasks.spawn(
        TaskKind::Jobs,
        format!("{} events", executor.name()),
        async move {
            while let Some(event) = heard.recv().await {
                if told.send((index, event)).await.is_err() {
                    break;
                }
            }
            Ok(())
        },
    );
    let name = format!("{} orders", executor.name());
    tasks.spawn(TaskKind::Jobs, name, async move {
        if let Err(error) = executor.watch(known, events.clone()).await {
            tracing::error!(executor = executor.name(), %error, "no jobs run there");
            let nothing = events.send(Event::Nodes(Vec::new())).await;
            drop(nothing);
        }
        while let Some(order) = orders.recv().await {
            carry_out(executor.as_ref(), order, &events).await;
        }
        Ok(())
    });
    sender
}

async fn carry_out(executor: &dyn Executor, order: Order, events: &mpsc::Sender<Event>) {
    match order {
        Order::Start(run) => {
            let id = run.id.clone();
            if let Err(error) = executor.start(run).await {
                let event = Event::Run(id, Progress::Ended(cannot_start(&error)));
                // The desk is gone when the node stops.
                drop(events.send(event).await);
            }
        }
        Order::Stop(run, grace) => {
            warn(executor, &run.to_string(), executor.stop(&run, grace).await)
        }
        Order::Forget(job) => warn(executor, &job, executor.forget(&job).await),
    }
}

fn cannot_start(error: &ApiError) -> Ended {
    Ended {
        how: How::CannotStart,
        end: None,
        message: error.message.clone(),
    }
}

fn warn(executor: &dyn Executor, what: &str, told: Result<(), ApiError>) {
    if let Err(error) = told {
        let executor = executor.name();
        tracing::warn!(executor, what, %error, "an order was not carried out");
    }
}
