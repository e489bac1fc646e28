//! What was asked and what was decided, in order: enough to decide it again elsewhere and see that it comes out the same.

use std::collections::BTreeMap;

use crate::cluster::{Cluster, Placement};
use crate::error::Error;
use crate::policy::Policy;
use crate::request::Request;
use crate::scheduler::Scheduler;
use crate::state::Ask;

/// One event. Jobs are numbered by whoever keeps the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request came; `None` when no node could take it.
    Asked {
        job: u64,
        request: Request,
        placement: Option<Placement>,
    },
    /// A job that was placed is gone.
    Left { job: u64 },
}

/// A scheduler that writes down what it does.
#[derive(Debug)]
pub struct Recorder {
    scheduler: Scheduler,
    running: BTreeMap<u64, (Ask, Placement)>,
    events: Vec<Event>,
}

/// Where a replay came out differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Index into the journal.
    pub event: usize,
    pub written: Option<Placement>,
    pub decided: Option<Placement>,
}

impl Recorder {
    pub fn new(cluster: Cluster, policy: Box<dyn Policy>, seed: u64) -> Self {
        Self {
            scheduler: Scheduler::new(cluster, policy, seed),
            running: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    pub fn scheduler(&mut self) -> &mut Scheduler {
        &mut self.scheduler
    }

    /// Written down and not yet taken.
    pub fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// A job whose number is in use is refused.
    pub fn ask(&mut self, job: u64, request: Request) -> Result<Option<Placement>, Error> {
        if self.running.contains_key(&job) {
            return Err(Error::JobRuns { job });
        }
        let ask = self.scheduler.ask(&request);
        self.scheduler.arrive(&ask);
        let placed = self.scheduler.place(&ask);
        let placement = placed.map(|placed| placed.placement);
        if let Some(placement) = &placement {
            self.running.insert(job, (ask, placement.clone()));
        }
        self.events.push(Event::Asked {
            job,
            request,
            placement: placement.clone(),
        });
        Ok(placement)
    }

    pub fn leave(&mut self, job: u64) -> Result<(), Error> {
        let (ask, placement) = self.running.remove(&job).ok_or(Error::JobUnknown { job })?;
        self.scheduler.release(&ask, &placement);
        self.events.push(Event::Left { job });
        Ok(())
    }

    /// Decides a journal again. The first difference ends it, for all that follows depends on it.
    pub fn replay(&mut self, journal: &[Event]) -> Result<Option<Difference>, Error> {
        for (event, entry) in journal.iter().enumerate() {
            match entry {
                Event::Left { job } => self.leave(*job)?,
                Event::Asked {
                    job,
                    request,
                    placement,
                } => {
                    let decided = self.ask(*job, request.clone())?;
                    if decided != *placement {
                        return Ok(Some(Difference {
                            event,
                            written: placement.clone(),
                            decided,
                        }));
                    }
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
