//! What a queue was told and what it decided: enough to decide it again and see that it comes out the same.

use serde::{Deserialize, Serialize};

use super::{Action, Job, JobId, Queue, Refused};
use crate::cluster::Node;

/// One thing that a queue is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "told")]
pub enum Told {
    Submitted {
        job: Job,
    },
    Finished {
        id: JobId,
    },
    Stopped {
        id: JobId,
    },
    Moved {
        id: JobId,
    },
    Cancelled {
        id: JobId,
    },
    Checkpointed {
        id: JobId,
    },
    NodeJoined {
        node: Node,
    },
    NodeLeft {
        name: String,
    },
    /// Asked what to do, and what it said.
    Stepped {
        actions: Vec<Action>,
    },
}

/// When, and what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    pub at_ms: u64,
    #[serde(flatten)]
    pub told: Told,
}

impl Queue {
    /// The same as calling the verb; what it decides when it is asked for a step, and nothing else.
    pub fn tell(&mut self, at_ms: u64, told: Told) -> Result<Vec<Action>, Refused> {
        match told {
            Told::Submitted { job } => self.submit(job, at_ms)?,
            Told::Finished { id } => self.finish(id)?,
            Told::Stopped { id } => self.stopped(id, at_ms)?,
            Told::Moved { id } => self.moved(id)?,
            Told::Cancelled { id } => self.cancel(id)?,
            Told::Checkpointed { id } => self.checkpointed(id, at_ms)?,
            Told::NodeJoined { node } => self.node_joined(node, at_ms)?,
            Told::NodeLeft { name } => self.node_left(&name, at_ms)?,
            Told::Stepped { .. } => return Ok(self.step(at_ms)),
        }
        Ok(Vec::new())
    }

    /// Decides a journal again; the index of the first line that comes out differently, and what came out.
    pub fn replay(&mut self, journal: &[Line]) -> Result<Option<(usize, Vec<Action>)>, Refused> {
        for (at, line) in journal.iter().enumerate() {
            let decided = self.tell(line.at_ms, line.told.clone())?;
            if let Told::Stepped { actions } = &line.told
                && *actions != decided
            {
                return Ok(Some((at, decided)));
            }
        }
        Ok(None)
    }
}
