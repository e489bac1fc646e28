//! One batch of sequences on a compute thread.

use std::time::{Duration, Instant};

use batch::Turn;
use protocol::{Tensor, Timing};

use super::plan::Member;
use super::running::{Ended, Running};
use super::{Fixed, Own, Ran, Waiter, Work, rows};
use crate::engine::{EngineError, Run};
use crate::error::Error;

impl Fixed {
    pub(super) fn run(&self, work: Work, delay: Duration) -> Ran {
        let Work {
            mut own,
            turns,
            running,
        } = work;
        let began = self.clock.now();
        let mut ended = Ended::none();
        let mut again = Vec::new();
        for group in rows::alike(turns) {
            // Nobody waits: not even the engine need know.
            if running.abandoned() {
                ended.add(group.iter().map(|(turn, _)| turn.slot));
                continue;
            }
            let (stopped, more) = self.run_group(&mut own, group, (began, delay, &running));
            ended = ended.and(stopped);
            again.extend(more);
        }
        if matches!(ended, Ended::Lane) {
            own.states.clear();
        }
        Ran {
            own: Some(own),
            ended,
            again,
        }
    }

    /// Requests with inputs of the same shapes run together. Says which sequences that ends, and gives back those that
    /// are to run again.
    fn run_group(
        &self,
        own: &mut Own,
        group: Vec<(Turn, Waiter)>,
        (began, delay, running): (Instant, Duration, &Running),
    ) -> (Ended, Vec<(Turn, Waiter)>) {
        let started = self.clock.now();
        let members: Vec<Member<'_>> = group
            .iter()
            .map(|(turn, waiter)| Member {
                turn,
                id: &waiter.id,
                inputs: &waiter.call.inputs,
                states: own.states.get(&turn.slot).filter(|_| !turn.start),
            })
            .collect();
        let mut inputs = self.plan.inputs(&members);
        if self.loaded.needs_alignment() {
            let aligned = inputs.into_iter().map(|input| input.aligned(&self.buffers));
            inputs = aligned.collect();
        }
        let wanted = self
            .plan
            .wanted(group.iter().map(|(_, waiter)| &waiter.call.wanted[..]));
        let prepared = self.clock.now();
        let ran = own.lane.run(
            &self.model,
            self.loaded.as_ref(),
            &Run {
                inputs: &inputs,
                wanted: &wanted,
                stop: &running.stop,
            },
        );
        let done = self.clock.now();
        let slots: Vec<usize> = group.iter().map(|(turn, _)| turn.slot).collect();
        let mut ended = Ended::of(&ran, own.lane.is_empty(), &slots);
        let answers = ran.and_then(|outputs| self.plan.split(&outputs, &slots));
        let timing = Timing {
            queue: Duration::ZERO,
            input: prepared.saturating_duration_since(started),
            infer: done.saturating_duration_since(prepared) + delay,
            output: self.clock.now().saturating_duration_since(done),
        };
        if answers.is_ok() {
            self.statistics.executed(group.len(), &timing, &self.clock);
        }
        let mut answers = answers.map(Vec::into_iter);
        let mut again = Vec::new();
        for (turn, mut waiter) in group {
            let slot = turn.slot;
            waiter.spend(timing, began.checked_sub(delay).unwrap_or(began));
            let more = match &mut answers {
                Ok(answers) => {
                    let outputs = answers.next().unwrap_or_default();
                    self.settle(own, (turn, waiter), (&wanted, outputs))
                }
                Err(error) => {
                    waiter.reply.fail(same(error, &self.model));
                    None
                }
            };
            if self.plan.iterative() && more.is_none() {
                ended.add([slot].into_iter());
            }
            again.extend(more);
        }
        (ended, again)
    }

    /// Keeps the states and gives the outputs that the caller wants; gives the request back when it is to run again. The
    /// caller may have left: the state has moved on all the same.
    fn settle(
        &self,
        own: &mut Own,
        (turn, waiter): (Turn, Waiter),
        (wanted, outputs): (&[usize], Vec<Tensor>),
    ) -> Option<(Turn, Waiter)> {
        let of = |index: &usize| {
            let place = wanted.iter().position(|wanted| wanted == index)?;
            outputs.get(place).cloned()
        };
        let again = self.plan.reschedule().and_then(|index| of(&index));
        let again = again.is_some_and(|flag| flag.data.first().is_some_and(|flag| *flag != 0));
        if turn.end || self.plan.iterative() && !again {
            own.states.remove(&turn.slot);
        } else if !self.plan.state_outputs().is_empty() {
            let states = self.plan.state_outputs().iter().filter_map(of);
            own.states.insert(turn.slot, states.collect());
        }
        let outputs = waiter.call.wanted.iter().filter_map(of).collect();
        if again {
            waiter.reply.part(outputs);
            return Some((turn, waiter));
        }
        waiter.reply.last(outputs, waiter.spent);
        None
    }
}

impl Waiter {
    /// Adds one run that began its work at `began`; what the runs do not explain of the time was spent in line.
    fn spend(&mut self, run: Timing, began: Instant) {
        let ran = self.spent.total().saturating_sub(self.spent.queue);
        let waited = began.saturating_duration_since(self.arrived);
        self.spent = self.spent.plus(run);
        self.spent.queue = waited.saturating_sub(ran);
    }
}

/// The same error for another request of the batch.
fn same(error: &Error, model: &str) -> Error {
    match error {
        Error::Engine(EngineError::Input(message)) => {
            Error::Engine(EngineError::Input(message.clone()))
        }
        error => Error::Failed {
            model: model.to_owned(),
            reason: match error {
                Error::Failed { reason, .. } => reason.clone(),
                error => error.to_string(),
            },
        },
    }
}
