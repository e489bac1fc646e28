//! Triton's rate limiter, shared by all models of a node.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use batch::{Limiter, Member, Share, TooMuch};
use parking_lot::Mutex;
use protocol::oip::proto::ModelConfig;

/// Cheap to clone; every clone is the same. None while nothing is limited.
#[derive(Clone, Default)]
pub(crate) struct Limits(Option<Arc<Mutex<Shared>>>);

#[derive(Default)]
struct Shared {
    limiter: Limiter,
    waiting: BTreeMap<Member, Weak<dyn Waits>>,
}

/// Who asks for resources, and is told when to ask again.
pub(crate) trait Waits: Send + Sync {
    fn wake(self: Arc<Self>);
}

/// One part: a queue's, or a lane's of a model with sequences.
pub(crate) struct Limit {
    shared: Arc<Mutex<Shared>>,
    member: Member,
    share: Share,
}

impl Limits {
    /// `given`: what there is of some resources; none at all limits nothing, whatever configurations say.
    pub(crate) fn new(given: Option<BTreeMap<String, u32>>) -> Self {
        Self(given.map(|given| {
            Arc::new(Mutex::new(Shared {
                limiter: Limiter::new(given),
                waiting: BTreeMap::new(),
            }))
        }))
    }

    /// None when the configuration asks for no resources.
    pub(crate) fn join(&self, config: &ModelConfig) -> Result<Option<Limit>, String> {
        let share = share(config);
        let Some(shared) = self.0.as_ref().filter(|_| !share.resources.is_empty()) else {
            return Ok(None);
        };
        let joined = shared.lock().limiter.join(share.clone());
        let member = joined.map_err(|TooMuch { resource, wanted, given }| {
            format!(
                "Resource count for \"{resource}\" is limited to {given} which will prevent scheduling of one or more model instances, the minimum required count is {wanted}"
            )
        })?;
        Ok(Some(Limit {
            shared: Arc::clone(shared),
            member,
            share,
        }))
    }
}

/// Each has its turn, those who have had the fewest first.
fn wake(shared: &Mutex<Shared>, members: Vec<Member>) {
    for member in members {
        let waits = shared.lock().waiting.get(&member).and_then(Weak::upgrade);
        if let Some(waits) = waits {
            waits.wake();
        }
    }
}

/// Lanes are not told apart by their group, so each takes what the most demanding group asks for. Resources of one name
/// are one amount on a machine without GPUs, `global` or not.
fn share(config: &ModelConfig) -> Share {
    let mut share = Share::default();
    for limiter in config
        .instance_group
        .iter()
        .filter_map(|group| group.rate_limiter.as_ref())
    {
        let mut own: BTreeMap<&str, u32> = BTreeMap::new();
        for resource in &limiter.resources {
            let amount = own.entry(&resource.name).or_default();
            *amount = amount.saturating_add(resource.count);
        }
        for (name, amount) in own {
            let most = share.resources.entry(name.to_owned()).or_default();
            *most = amount.max(*most);
        }
        share.priority = share.priority.max(limiter.priority);
    }
    share
}

impl Limit {
    /// Who is told when it may try again.
    pub(crate) fn serve(&self, who: Weak<dyn Waits>) {
        self.shared.lock().waiting.insert(self.member, who);
    }

    pub(crate) fn take(&self) -> bool {
        self.shared.lock().limiter.take(self.member)
    }

    /// Not while a queue is locked: others have their turn at once.
    pub(crate) fn give_back(&self, more: bool) {
        let part = (self.member, &self.share);
        let waiting = self.shared.lock().limiter.give_back(part, more);
        wake(&self.shared, waiting);
    }

    /// Nothing waits here; not while a queue is locked.
    pub(crate) fn rest(&self) {
        let waiting = self.shared.lock().limiter.rest(self.member);
        wake(&self.shared, waiting);
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        let mut shared = self.shared.lock();
        shared.limiter.leave(self.member);
        shared.waiting.remove(&self.member);
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
