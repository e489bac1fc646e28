//! Triton's rate limiter, shared by the queues of all models of a node.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use batch::{Limiter, Member, Share};
use parking_lot::Mutex;
use protocol::oip::proto::{ModelConfig, ModelRateLimiter};

use crate::queue::Queue;

/// Cheap to clone; every clone is the same.
#[derive(Clone, Default)]
pub(crate) struct Limits(Arc<Mutex<Shared>>);

#[derive(Default)]
struct Shared {
    limiter: Limiter,
    queues: BTreeMap<Member, Weak<Queue>>,
}

/// One model version's part.
pub(crate) struct Limit {
    limits: Limits,
    member: Member,
    share: Share,
}

impl Limits {
    /// None when the configuration asks for no resources.
    pub(crate) fn join(&self, config: &ModelConfig) -> Option<Limit> {
        let limiter = config.instance_group.iter().find_map(|group| {
            let limiter = group.rate_limiter.as_ref()?;
            (!limiter.resources.is_empty()).then_some(limiter)
        })?;
        let share = share(limiter);
        let member = self.0.lock().limiter.join(share.clone());
        Some(Limit {
            limits: self.clone(),
            member,
            share,
        })
    }

    /// Each has its turn, those who have had the fewest first.
    fn wake(&self, members: Vec<Member>) {
        for member in members {
            let queue = self.0.lock().queues.get(&member).and_then(Weak::upgrade);
            if let Some(queue) = queue {
                queue.wake();
            }
        }
    }
}

/// Resources of one name are one amount on a machine without GPUs, `global` or not.
fn share(limiter: &ModelRateLimiter) -> Share {
    let mut resources = BTreeMap::new();
    for resource in &limiter.resources {
        let amount: &mut u32 = resources.entry(resource.name.clone()).or_default();
        *amount = amount.saturating_add(resource.count);
    }
    Share {
        resources,
        priority: limiter.priority,
    }
}

impl Limit {
    /// Whose queue is told when it may try again.
    pub(crate) fn serve(&self, queue: &Arc<Queue>) {
        let mut shared = self.limits.0.lock();
        shared.queues.insert(self.member, Arc::downgrade(queue));
    }

    pub(crate) fn take(&self) -> bool {
        self.limits.0.lock().limiter.take(self.member)
    }

    /// Not while a queue is locked: others have their turn at once.
    pub(crate) fn give_back(&self, more: bool) {
        let part = (self.member, &self.share);
        let waiting = self.limits.0.lock().limiter.give_back(part, more);
        self.limits.wake(waiting);
    }

    /// Nothing waits here; not while a queue is locked.
    pub(crate) fn rest(&self) {
        let waiting = self.limits.0.lock().limiter.rest(self.member);
        self.limits.wake(waiting);
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        let mut shared = self.limits.0.lock();
        shared.limiter.leave(self.member);
        shared.queues.remove(&self.member);
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit")
            .field("share", &self.share)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").finish_non_exhaustive()
    }
}
