//! What clients ask for.

use std::time::Duration;

use base::ErrorKind;
use protocol::ApiError;
use protocol::resource::{Job, JobState, JobStatus, Metadata, Submission, reason};
use scheduler::queue::foretell::Explanation;
use scheduler::queue::{JobId, Refused};
use serde::Serialize;

use super::Desk;
use crate::words;

/// Which jobs are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ListQuery {
    pub(crate) state: Option<JobState>,
    pub(crate) tenant: Option<String>,
    pub(crate) limit: usize,
}

/// A node, and what is free on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeView {
    name: String,
    region: String,
    cpu_milli: u32,
    memory_mib: u32,
    gpus: u8,
    gpu_model: String,
    gpu_memory_mib: u32,
    free_cpu_milli: u32,
    free_memory_mib: u32,
    /// Thousandths of each GPU.
    free_gpu_milli: Vec<u16>,
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Standing {
    id: String,
    state: JobState,
    reason: String,
    message: String,
    /// Among those that wait; 1 is next.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<usize>,
    /// How many wait.
    waiting: usize,
    /// What is in its way, when it starts, what would make it start now: for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lines: Vec<String>,
    /// The same as data.
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Explanation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<Job>,
}

/// Longest name that leaves room for what makes it an id.
const NAME_MAX: usize = 57;

/// Without vowels, so that no id is a word.
const LETTERS: &[u8; 30] = b"0123456789bcdfghjklmnpqrstvwxz";

/// When to ask again for a place in a full queue.
const FULL_RETRY: Duration = Duration::from_secs(5);

impl Desk {
    pub(crate) fn submit(&mut self, submission: Submission) -> Result<Job, ApiError> {
        self.check_region(&submission)?;
        let number = self.next_number;
        let Submission { metadata, spec } = submission;
        let queued = words::queued(number, &spec, self.now.millis());
        self.queue
            .submit(queued, self.now.millis())
            .map_err(|refused| self.refusal(&refused))?;
        self.next_number += 1;
        let id = self.fresh_id(&metadata);
        let status = JobStatus::new(id.clone(), self.now);
        let job = Job {
            metadata,
            spec,
            status,
        };
        self.by_id.insert(id, number);
        let held = self.held(job, number);
        self.jobs.insert(number, held);
        self.dirty.insert(number);
        // So that the answer says already whether it starts or why it waits.
        self.advance();
        self.jobs
            .get(&number)
            .map(|held| held.job.clone())
            .ok_or_else(|| ApiError::new(ErrorKind::Internal, "the job is gone at once"))
    }

    /// Whether it would be taken.
    pub(crate) fn check_region(&self, submission: &Submission) -> Result<(), ApiError> {
        let Some(region) = &submission.spec.region else {
            return Ok(());
        };
        let mut regions: Vec<&str> = self
            .nodes
            .iter()
            .flatten()
            .map(|node| node.region.as_str())
            .filter(|region| !region.is_empty())
            .collect();
        regions.sort_unstable();
        regions.dedup();
        if regions.contains(&region.as_str()) {
            return Ok(());
        }
        let message = if regions.is_empty() {
            format!(
                "region `{region}` does not exist: no node names one; set `region` of the Node, or leave it out"
            )
        } else {
            format!(
                "region `{region}` does not exist; there are: `{}`",
                regions.join("`, `")
            )
        };
        Err(ApiError::invalid(message)
            .with_param("spec.region")
            .with_code("unknown_region"))
    }

    fn refusal(&self, refused: &Refused) -> ApiError {
        match refused {
            Refused::Full { max } | Refused::TenantFull { max, .. } => {
                let message = format!(
                    "the queue is full: {max} jobs wait, as many as `jobs.queueMax` of the Node allows; try again when some have started"
                );
                ApiError::new(ErrorKind::Exhausted, message)
                    .with_code("queue_full")
                    .retry_after(FULL_RETRY)
            }
            other => ApiError::invalid(other.to_string()),
        }
    }

    fn fresh_id(&mut self, metadata: &Metadata) -> String {
        let name: String = metadata.name.chars().take(NAME_MAX).collect();
        let name = name.trim_end_matches(['-', '.']);
        loop {
            // xorshift64, as in `base::Backoff`: ids need only differ.
            self.seed ^= self.seed << 13;
            self.seed ^= self.seed >> 7;
            self.seed ^= self.seed << 17;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "eight bits of it are meant"
            )]
            let letter = |at: u32| {
                let drawn = usize::from((self.seed >> (at * 8)) as u8);
                char::from(LETTERS[drawn % LETTERS.len()])
            };
            let tail: String = (1..6).map(letter).collect();
            let id = format!("{name}-{tail}");
            if !self.by_id.contains_key(&id) {
                return id;
            }
        }
    }

    pub(crate) fn list(&self, query: &ListQuery) -> Vec<Job> {
        let wanted = self.jobs.values().rev().filter(|held| {
            let job = &held.job;
            query.state.is_none_or(|state| state == job.status.state)
                && query
                    .tenant
                    .as_ref()
                    .is_none_or(|tenant| *tenant == job.spec.tenant)
        });
        wanted
            .take(query.limit)
            .map(|held| held.job.clone())
            .collect()
    }

    pub(crate) fn get(&self, id: &str) -> Result<Job, ApiError> {
        let held = self.by_id.get(id).and_then(|number| self.jobs.get(number));
        held.map(|held| held.job.clone()).ok_or_else(|| unknown(id))
    }

    /// The executor that has what a job printed.
    pub(crate) fn executor(&self, id: &str) -> Result<usize, ApiError> {
        let number = self.by_id.get(id).ok_or_else(|| unknown(id))?;
        Ok(self.executor_of(*number))
    }

    pub(crate) fn cancel(&mut self, id: &str) -> Result<Job, ApiError> {
        let number = *self.by_id.get(id).ok_or_else(|| unknown(id))?;
        let Some(held) = self.jobs.get_mut(&number) else {
            return Err(unknown(id));
        };
        if !held.job.status.state.is_final() {
            match &mut held.run {
                Some(live) => {
                    live.stopping = Some(super::Stopping::Cancelled);
                    held.job.status.state = JobState::Stopping;
                    held.job.status.message = "it is being cancelled".to_owned();
                    self.dirty.insert(number);
                }
                None => {
                    let words = (
                        reason::CANCELLED,
                        "it was cancelled before it ran".to_owned(),
                    );
                    self.finish(number, JobState::Cancelled, words);
                }
            }
            if self.queue.get(JobId(number)).is_some() {
                super::note(self.queue.cancel(JobId(number)));
            }
            self.advance();
        }
        self.get(id)
    }

    /// Why it waits, or what became of it. The first estimate of its start is kept, to be compared.
    pub(crate) fn standing(&mut self, id: &str) -> Result<Standing, ApiError> {
        let number = *self.by_id.get(id).ok_or_else(|| unknown(id))?;
        let job = self.get(id)?;
        let now_ms = self.now.millis();
        let told = self
            .queue
            .explain(JobId(number), now_ms, &self.history)
            .ok();
        let waits = told.as_ref().filter(|told| !told.reason.is_empty());
        if let (Some(held), Some(estimate)) = (
            self.jobs.get_mut(&number),
            waits.and_then(|told| told.starts),
        ) {
            held.foretold.get_or_insert((self.now, estimate));
        }
        Ok(Standing {
            id: id.to_owned(),
            state: job.status.state,
            reason: job.status.reason.clone(),
            message: job.status.message.clone(),
            position: waits.map(|told| told.ahead + 1),
            waiting: self.queue.pending(),
            lines: told.as_ref().map(lines).unwrap_or_default(),
            explanation: told,
            job: Some(job),
        })
    }

    /// What would become of it now: the queue's own next step, on a copy of the queue.
    pub(crate) fn foretell(&self, submission: &Submission) -> Result<Standing, ApiError> {
        let now_ms = self.now.millis();
        let queued = words::queued(self.next_number, &submission.spec, now_ms);
        let told = self
            .queue
            .dry_run(queued, now_ms, &self.history)
            .map_err(|refused| self.refusal(&refused))?;
        let waits = !told.reason.is_empty();
        let (state, reason, message) = if waits {
            let message = format!("it would wait: {}", told.message);
            (JobState::Queued, told.reason.clone(), message)
        } else {
            let nodes = super::nodes_of(&self.placements(&told.places));
            let message = format!("it would start at once, on {nodes}");
            (JobState::Starting, reason::ADMITTED.to_owned(), message)
        };
        Ok(Standing {
            id: String::new(),
            state,
            reason,
            message,
            position: waits.then_some(told.ahead + 1),
            waiting: self.queue.pending() + usize::from(waits),
            lines: lines(&told),
            explanation: Some(told),
            job: None,
        })
    }

    pub(crate) fn nodes(&self) -> Vec<NodeView> {
        let cluster = self.queue.cluster();
        let nodes = cluster.nodes().iter().zip(cluster.states());
        nodes
            .map(|(node, state)| NodeView {
                name: node.name.clone(),
                region: node.region.clone(),
                cpu_milli: node.cpu_milli,
                memory_mib: node.memory_mib,
                gpus: node.gpus,
                gpu_model: node.model.clone(),
                gpu_memory_mib: node.gpu_memory_mib,
                free_cpu_milli: state.cpu_milli,
                free_memory_mib: state.memory_mib,
                free_gpu_milli: state.free.iter().take(node.gpus.into()).copied().collect(),
            })
            .collect()
    }
}

/// The explanation without its first line, which the job's own message says better.
fn lines(told: &Explanation) -> Vec<String> {
    let text = told.to_string();
    text.lines()
        .skip(1)
        .map(|line| line.trim().to_owned())
        .collect()
}

fn unknown(id: &str) -> ApiError {
    let shown = protocol::shown::name(id);
    let message = format!("job `{shown}` is not known here; `kapok jobs` lists those that are");
    ApiError::new(ErrorKind::NotFound, message).with_code("job_not_found")
}
