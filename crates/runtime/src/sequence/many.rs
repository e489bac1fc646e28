//! A request of a sequence whose model answers any number of times: its lane makes one answer at a time, as the reader
//! takes them, and runs nothing else until the last one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use batch::Turn;
use protocol::{Tensor, Timing};
use tokio::sync::oneshot;

use super::plan::Member;
use super::running::{Ended, Running};
use super::{COMPUTE_RETRY, Fixed, Own, Ran, Sequencer, Waiter, Work};
use crate::engine::{Response, Responses, Run};
use crate::error::Error;

/// A request in the middle of its answers.
struct Each {
    // Before the lane: it may run the next call only when these are gone.
    answers: Option<Box<dyn Responses>>,
    own: Box<Own>,
    turn: Turn,
    waiter: Waiter,
    running: Arc<Running>,
    /// Outputs of each answer, as the engine's indices: those of the client, and the states'.
    wanted: Vec<usize>,
    timing: Timing,
}

type Made = Result<Option<Response>, Error>;

impl Sequencer {
    pub(super) async fn answer_each(self: &Arc<Self>, work: Work, delay: Duration) -> Ran {
        let Work {
            own,
            mut turns,
            running,
        } = work;
        let Some((turn, waiter)) = turns.pop() else {
            return Ran::over(own, Ended::none());
        };
        let began = self.fixed.clock.now();
        let waited = began.saturating_duration_since(waiter.arrived);
        let mut each = Each {
            answers: None,
            own,
            wanted: self
                .fixed
                .plan
                .wanted(std::iter::once(&waiter.call.wanted[..])),
            turn,
            waiter,
            running,
            timing: Timing {
                queue: waited.saturating_sub(delay),
                infer: delay,
                ..Timing::default()
            },
        };
        loop {
            if each.running.abandoned() {
                let ended = Ended::Slots(vec![each.turn.slot]);
                return Ran::over(each.own, ended);
            }
            let Some((back, made)) = self.make(each).await else {
                return Ran::lost();
            };
            each = back;
            let Some(made) = made else { continue };
            match made {
                Ok(Some(response)) => {
                    each.running.wait(response.after).await;
                    each.timing.infer += response.after;
                    let outputs = each.outputs(&self.fixed, response.outputs);
                    each.waiter.reply.in_turn(outputs).await;
                }
                Ok(None) => return each.over(&self.fixed).await,
                Err(error) => return each.failed(error).await,
            }
        }
    }

    /// The next answer, made here or on a compute thread, if nobody leaves before there is one; nothing at all when that was
    /// lost.
    async fn make(self: &Arc<Self>, mut each: Each) -> Option<(Each, Option<Made>)> {
        if each.waiter.call.bytes() <= self.fixed.loaded.inline_bytes_max() {
            let made = each.next(&self.fixed);
            return Some((each, Some(made)));
        }
        let running = Arc::clone(&each.running);
        let place = Arc::new(parking_lot::Mutex::new(Some(each)));
        loop {
            let (sequencer, job) = (Arc::clone(self), Arc::clone(&place));
            let (back, result) = oneshot::channel();
            let submitted = self.fixed.compute.submit(self.fixed.threads, move || {
                let each = job.lock().take();
                if let Some(mut each) = each {
                    let made = each.next(&sequencer.fixed);
                    let _gone = back.send((each, Some(made)));
                }
            });
            if submitted.is_ok() {
                return result.await.ok();
            }
            if running.abandoned() {
                let each = place.lock().take()?;
                return Some((each, None));
            }
            running.wait(COMPUTE_RETRY).await;
        }
    }
}

impl Each {
    fn next(&mut self, fixed: &Fixed) -> Made {
        let began = fixed.clock.now();
        let made = self.begun(fixed).and_then(|()| {
            let Some(answers) = &mut self.answers else {
                return Ok(None);
            };
            let model = (fixed.model.as_str(), fixed.loaded.as_ref());
            self.own
                .lane
                .next(model, answers.as_mut(), self.wanted.len())
        });
        self.timing.infer += since(fixed, began);
        made
    }

    /// Has the call begin, if it has not.
    fn begun(&mut self, fixed: &Fixed) -> Result<(), Error> {
        if self.answers.is_some() {
            return Ok(());
        }
        let states = self.own.states.get(&self.turn.slot);
        let member = Member {
            turn: &self.turn,
            id: &self.waiter.id,
            inputs: &self.waiter.call.inputs,
            states: states.filter(|_| !self.turn.start),
        };
        let mut inputs = fixed.plan.inputs(&[member]);
        if fixed.loaded.needs_alignment() {
            let aligned = inputs
                .into_iter()
                .map(|input| input.aligned(&fixed.buffers));
            inputs = aligned.collect();
        }
        let call = Run {
            inputs: &inputs,
            wanted: &self.wanted,
            stop: &self.running.stop,
        };
        let lane = &mut self.own.lane;
        self.answers = Some(lane.respond(&fixed.model, fixed.loaded.as_ref(), &call)?);
        Ok(())
    }

    /// What the client wants of one answer; its states are the sequence's from now on.
    fn outputs(&mut self, fixed: &Fixed, outputs: Vec<Tensor>) -> Vec<Tensor> {
        let of = |index: &usize| {
            let place = self.wanted.iter().position(|wanted| wanted == index)?;
            outputs.get(place).cloned()
        };
        if !fixed.plan.state_outputs().is_empty() {
            let states = fixed.plan.state_outputs().iter().filter_map(of).collect();
            self.own.states.insert(self.turn.slot, states);
        }
        self.waiter.call.wanted.iter().filter_map(of).collect()
    }

    async fn over(self, fixed: &Fixed) -> Ran {
        let Self {
            answers,
            mut own,
            turn,
            waiter,
            timing,
            ..
        } = self;
        drop(answers);
        if turn.end {
            own.states.remove(&turn.slot);
        }
        fixed.statistics.executed(1, &timing, &fixed.clock);
        waiter.reply.end().await;
        Ran::over(own, Ended::none())
    }

    async fn failed(self, error: Error) -> Ran {
        let slots = [self.turn.slot];
        let outcome = Err(error);
        let ended = Ended::of(&outcome, self.own.lane.is_empty(), &slots);
        drop(self.answers);
        let mut own = self.own;
        if matches!(ended, Ended::Lane) {
            own.states.clear();
        }
        if let Err(error) = outcome {
            self.waiter.reply.fail_in_turn(error).await;
        }
        Ran::over(own, ended)
    }
}

fn since(fixed: &Fixed, began: Instant) -> Duration {
    fixed.clock.now().saturating_duration_since(began)
}
