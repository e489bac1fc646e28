//! One batch of sequences on a compute thread.

use std::time::{Duration, Instant};

use batch::Turn;
use protocol::{Tensor, Timing};

use super::plan::Member;
use super::running::{Ended, Running};
use super::{Fixed, Own, Waiter, Work, rows};
use crate::engine::{EngineError, Run};
use crate::error::Error;

impl Fixed {
    pub(super) fn run(&self, work: Work, delay: Duration) -> (Box<Own>, Ended) {
        let Work {
            mut own,
            turns,
            running,
        } = work;
        let began = self.clock.now();
        let mut ended = Ended::none();
        for group in rows::alike(turns) {
            // Nobody waits: not even the engine need know.
            if running.abandoned() {
                ended.add(group.iter().map(|(turn, _)| turn.slot));
                continue;
            }
            let stopped = self.run_group(&mut own, group, (began, delay, &running));
            ended = ended.and(stopped);
        }
        if matches!(ended, Ended::Lane) {
            own.states.clear();
        }
        (own, ended)
    }

    /// Requests with inputs of the same shapes run together. Says which sequences that ends.
    fn run_group(
        &self,
        own: &mut Own,
        group: Vec<(Turn, Waiter)>,
        (began, delay, running): (Instant, Duration, &Running),
    ) -> Ended {
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
        let ended = Ended::of(&ran, own.lane.is_empty(), &slots);
        let answers = ran.and_then(|outputs| self.plan.split(&outputs, &slots));
        let mut timing = Timing {
            queue: Duration::ZERO,
            input: prepared.saturating_duration_since(started),
            infer: done.saturating_duration_since(prepared) + delay,
            output: self.clock.now().saturating_duration_since(done),
        };
        if answers.is_ok() {
            self.statistics.executed(group.len(), &timing, &self.clock);
        }
        let mut answers = answers.map(Vec::into_iter);
        for (turn, waiter) in group {
            timing.queue = began
                .saturating_duration_since(waiter.arrived)
                .saturating_sub(delay);
            let answer = match &mut answers {
                Ok(answers) => {
                    let outputs = answers.next().unwrap_or_default();
                    Ok(self.settle(own, (&turn, &waiter), (&wanted, outputs), timing))
                }
                Err(error) => Err(again(error, &self.model)),
            };
            // The caller may have left: the state has moved on all the same.
            let _gone = waiter.answer.send(answer);
        }
        ended
    }

    /// Keeps the states and gives the outputs that the caller wants.
    fn settle(
        &self,
        own: &mut Own,
        (turn, waiter): (&Turn, &Waiter),
        (wanted, outputs): (&[usize], Vec<Tensor>),
        timing: Timing,
    ) -> (Vec<Tensor>, Timing) {
        let of = |index: &usize| {
            let place = wanted.iter().position(|wanted| wanted == index)?;
            outputs.get(place).cloned()
        };
        if turn.end {
            own.states.remove(&turn.slot);
        } else if !self.plan.state_outputs().is_empty() {
            let states = self.plan.state_outputs().iter().filter_map(of);
            own.states.insert(turn.slot, states.collect());
        }
        (waiter.call.wanted.iter().filter_map(of).collect(), timing)
    }
}

/// The same error for another request of the batch.
fn again(error: &Error, model: &str) -> Error {
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
