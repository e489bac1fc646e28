//! The end of an attempt, and what comes after it.

use protocol::resource::{ConditionType, JobState, RestartPolicy, reason};
use scheduler::queue::{JobId, Phase};

use super::{Desk, Order, Stopping, note};
use crate::executor::{Ended, How};

impl Desk {
    pub(super) fn ended(&mut self, number: u64, ended: &Ended) {
        let now = self.now;
        let Some(held) = self.jobs.get_mut(&number) else {
            return;
        };
        let Some(live) = held.run.take() else {
            return;
        };
        held.ran += now.since(live.since);
        let status = &mut held.job.status;
        status.end.clone_from(&ended.end);
        status.endpoint = None;
        let told = (ended_word(ended.how), ended.message.as_str());
        status.set(ConditionType::PodsReady, false, told, now);
        let ran_ms = u64::try_from(held.ran.as_millis()).unwrap_or(u64::MAX);
        if ended.how == How::Succeeded
            && let Some(entry) = self.queue.get(JobId(number))
        {
            self.history.finished(&entry.job, ran_ms);
        }
        self.leave_queue(number);
        match live.stopping {
            Some(Stopping::Cancelled) => {
                let message = "it was cancelled".to_owned();
                self.finish(number, JobState::Cancelled, (reason::CANCELLED, message));
            }
            Some(Stopping::TimedOut) => {
                let message = self.timed_out(number);
                self.finish(number, JobState::Cancelled, (reason::TIMED_OUT, message));
            }
            Some(Stopping::Evicted { preempted }) => self.evicted(number, preempted),
            None => self.ended_by_itself(number, ended),
        }
    }

    /// Frees its place. A job that the queue has told to stop is then in line again, or forgotten; others are over for it.
    fn leave_queue(&mut self, number: u64) {
        let id = JobId(number);
        let Some(entry) = self.queue.get(id) else {
            return;
        };
        let told = match entry.phase {
            Phase::Stopping { .. } => self.queue.stopped(id, self.now.millis()),
            Phase::Pending { .. } => self.queue.cancel(id),
            Phase::Reserved { .. } | Phase::Running { .. } => self.queue.finish(id),
        };
        note(told);
    }

    fn evicted(&mut self, number: u64, preempted: bool) {
        let now = self.now;
        let waits = self.queue.get(JobId(number)).is_some();
        let Some(held) = self.jobs.get_mut(&number) else {
            return;
        };
        let status = &mut held.job.status;
        status.preemptions += u32::from(preempted);
        status.state = JobState::Queued;
        let message = "it waits for its place again";
        status.set(
            ConditionType::Requeued,
            true,
            (reason::REQUEUED, message),
            now,
        );
        status.set(
            ConditionType::Admitted,
            false,
            (reason::PREEMPTED, message),
            now,
        );
        if !waits {
            held.rests_until = Some(now);
        }
    }

    fn ended_by_itself(&mut self, number: u64, ended: &Ended) {
        let message = ended.message.clone();
        match ended.how {
            How::Succeeded => {
                self.finish(number, JobState::Succeeded, (reason::SUCCEEDED, message));
            }
            How::CannotStart => {
                self.finish(number, JobState::Failed, (reason::CANNOT_START, message));
            }
            How::Lost => self.again(number, (reason::NODE_STOPPED, message)),
            How::Failed | How::OutOfMemory | How::Stopped => {
                let Some(held) = self.jobs.get_mut(&number) else {
                    return;
                };
                let rule = &held.job.spec.restart;
                let status = &mut held.job.status;
                if rule.policy == RestartPolicy::Never {
                    let word = match ended.how {
                        How::OutOfMemory => reason::OUT_OF_MEMORY,
                        _ => reason::FAILED,
                    };
                    self.finish(number, JobState::Failed, (word, message));
                } else if status.restarts >= rule.limit {
                    let message = format!("{message}; it has been restarted {} times", rule.limit);
                    self.finish(number, JobState::Failed, (reason::RESTART_LIMIT, message));
                } else {
                    status.restarts += 1;
                    self.again(number, (reason::RESTARTED, message));
                }
            }
        }
    }

    /// Puts it back in line: at once when it is not to blame, after a wait when it failed.
    fn again(&mut self, number: u64, (word, message): (&str, String)) {
        let now = self.now;
        let Some(held) = self.jobs.get_mut(&number) else {
            return;
        };
        let failed = word == reason::RESTARTED;
        let status = &mut held.job.status;
        let wait = if failed {
            held.backoff.next_wait()
        } else {
            std::time::Duration::ZERO
        };
        status.set(ConditionType::Evicted, true, (word, &message), now);
        status.set(ConditionType::Admitted, false, (word, &message), now);
        status.set(ConditionType::Requeued, true, (word, &message), now);
        status.state = JobState::Queued;
        word.clone_into(&mut status.reason);
        status.message = message;
        held.rests_until = Some(now.plus(wait));
    }

    pub(super) fn finish(&mut self, number: u64, state: JobState, (word, message): (&str, String)) {
        let now = self.now;
        let Some(held) = self.jobs.get_mut(&number) else {
            return;
        };
        held.rests_until = None;
        let status = &mut held.job.status;
        status.state = state;
        word.clone_into(&mut status.reason);
        status.finished_at = Some(now);
        status.set(ConditionType::Finished, true, (word, &message), now);
        status.message = message;
        self.dirty.insert(number);
        self.finished.push_back(number);
        self.forget_oldest();
    }

    fn forget_oldest(&mut self) {
        while self.finished.len() > self.config.history_max {
            let Some(number) = self.finished.pop_front() else {
                return;
            };
            let executor = self.executor_of(number);
            if let Some(held) = self.jobs.remove(&number) {
                let id = held.job.status.id;
                self.by_id.remove(&id);
                self.orders.push((executor, Order::Forget(id)));
            }
            self.dirty.remove(&number);
            self.gone.push(number);
        }
    }

    fn timed_out(&self, number: u64) -> String {
        let spec = self.jobs.get(&number).map(|held| &held.job.spec);
        let seconds = spec
            .and_then(|spec| spec.timeout_seconds)
            .unwrap_or_default();
        if spec.is_some_and(|spec| spec.model.is_some()) {
            return format!(
                "cancelled: its model did not answer within `timeoutSeconds`, which is {seconds}"
            );
        }
        format!("cancelled: it ran longer than `timeoutSeconds`, which is {seconds}")
    }
}

fn ended_word(how: How) -> &'static str {
    match how {
        How::Succeeded => reason::SUCCEEDED,
        How::Failed => reason::FAILED,
        How::OutOfMemory => reason::OUT_OF_MEMORY,
        How::CannotStart => reason::CANNOT_START,
        How::Stopped => reason::CANCELLED,
        How::Lost => reason::NODE_STOPPED,
    }
}
