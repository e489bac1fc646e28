//! Who goes first, and who may at all: quotas, dominant shares, priorities, deadlines.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::action::{Resource, Wait};
use super::config::{Amounts, Config, Order};
use super::entry::Entry;
use super::job::{Job, Priority};
use super::qos::Level;
use crate::cluster::Cluster;

/// What tenants use, and what there is.
#[derive(Debug, Clone, Default)]
pub(super) struct Usage {
    used: BTreeMap<String, Amounts>,
    /// Of it, what those use that have [gone first](super::leads).
    led: Amounts,
    all: Amounts,
}

impl Amounts {
    pub(super) fn of(job: &Job) -> Self {
        let gang = u64::from(job.gang);
        Self {
            cpu_milli: gang * u64::from(job.request.cpu_milli),
            memory_mib: gang * u64::from(job.request.memory_mib),
            gpu_milli: job.gpu_milli(),
        }
    }

    pub(super) fn in_cluster(cluster: &Cluster) -> Self {
        let nodes = cluster.nodes().iter();
        nodes.fold(Self::default(), |sum, node| {
            sum.plus(Self {
                cpu_milli: node.cpu_milli.into(),
                memory_mib: node.memory_mib.into(),
                gpu_milli: u64::from(node.gpus) * 1_000,
            })
        })
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
            gpu_milli: self.gpu_milli.saturating_add(other.gpu_milli),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_sub(other.cpu_milli),
            memory_mib: self.memory_mib.saturating_sub(other.memory_mib),
            gpu_milli: self.gpu_milli.saturating_sub(other.gpu_milli),
        }
    }

    /// What is beyond the limit.
    fn beyond(self, limit: Self) -> Option<Resource> {
        if self.gpu_milli > limit.gpu_milli {
            Some(Resource::Gpu)
        } else if self.cpu_milli > limit.cpu_milli {
            Some(Resource::Cpu)
        } else if self.memory_mib > limit.memory_mib {
            Some(Resource::Memory)
        } else {
            None
        }
    }
}

/// Lower goes first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key([f64; 7]);

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let pairs = self.0.iter().zip(&other.0);
        let mut orders = pairs.map(|(left, right)| left.total_cmp(right));
        orders
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

/// Of a tenant with this job more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    borrows: bool,
    share: f64,
}

impl Usage {
    pub(super) fn new(all: Amounts) -> Self {
        Self {
            used: BTreeMap::new(),
            led: Amounts::default(),
            all,
        }
    }

    pub(super) fn add(&mut self, entry: &Entry) {
        let asked = Amounts::of(&entry.job);
        let used = self.used.entry(entry.job.tenant.clone()).or_default();
        *used = used.plus(asked);
        if entry.led {
            self.led = self.led.plus(asked);
        }
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        let asked = Amounts::of(&entry.job);
        if let Some(used) = self.used.get_mut(&entry.job.tenant) {
            *used = used.minus(asked);
            if *used == Amounts::default() {
                self.used.remove(&entry.job.tenant);
            }
        }
        if entry.led {
            self.led = self.led.minus(asked);
        }
    }

    pub(super) fn led(&self) -> Amounts {
        self.led
    }

    /// No more than so many percent of anything there is.
    pub(super) fn within(&self, used: Amounts, percent: u8) -> bool {
        let within =
            |used: u64, all: u64| u128::from(used) * 100 <= u128::from(all) * u128::from(percent);
        within(used.gpu_milli, self.all.gpu_milli)
            && within(used.cpu_milli, self.all.cpu_milli)
            && within(used.memory_mib, self.all.memory_mib)
    }

    pub(super) fn of(&self, tenant: &str) -> Amounts {
        self.used.get(tenant).copied().unwrap_or_default()
    }

    /// Its largest share of anything (dominant resource fairness, NSDI'11), by weight.
    pub(super) fn share(&self, tenant: &str, config: &Config) -> f64 {
        let used = self.of(tenant);
        let share = |used: u64, all: u64| used as f64 / all.max(1) as f64;
        let dominant = share(used.gpu_milli, self.all.gpu_milli)
            .max(share(used.cpu_milli, self.all.cpu_milli))
            .max(share(used.memory_mib, self.all.memory_mib));
        dominant / f64::from(config.tenant(tenant).weight)
    }

    /// With this job more, it would use more than its own.
    pub(super) fn borrows(&self, job: &Job, config: &Config) -> bool {
        let nominal = config.tenant(&job.tenant).nominal;
        let then = self.of(&job.tenant).plus(Amounts::of(job));
        nominal.is_some_and(|nominal| then.beyond(nominal).is_some())
    }

    /// Uses more than its own already.
    pub(super) fn borrowing(&self, tenant: &str, config: &Config) -> bool {
        let nominal = config.tenant(tenant).nominal;
        nominal.is_some_and(|nominal| self.of(tenant).beyond(nominal).is_some())
    }

    /// Why the tenant may not have this job now.
    pub(super) fn obstacle(&self, job: &Job, config: &Config) -> Option<Wait> {
        let tenant = config.tenant(&job.tenant);
        let nominal = tenant.nominal?;
        let limit = tenant.borrowing_limit?;
        let most = nominal.plus(limit);
        let asked = Amounts::of(job);
        if let Some(resource) = asked.beyond(most) {
            return Some(Wait::ExceedsMaxQuota { resource });
        }
        let then = self.of(&job.tenant).plus(asked);
        let resource = then.beyond(most)?;
        Some(Wait::WaitingForQuota { resource })
    }

    pub(super) fn standing(&self, job: &Job, config: &Config) -> Standing {
        Standing {
            borrows: self.borrows(job, config),
            share: self.share(&job.tenant, config),
        }
    }
}

/// What time has made of a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Haste {
    /// There is none.
    None,
    /// It can wait.
    Early,
    Due,
    Lapsed,
}

pub(super) fn key(entry: &Entry, config: &Config, now_ms: u64, standing: Standing) -> Key {
    let job = &entry.job;
    let arrival = entry.submitted_ms as f64;
    let id = job.id.0 as f64;
    let share = standing.share;
    let borrows = f64::from(u8::from(standing.borrows));
    // A deadline that cannot be kept any more hurries nobody.
    let lapsed = lapsed(entry, now_ms);
    let realtime = f64::from(u8::from(job.priority != Priority::Realtime || lapsed));
    Key(match config.order {
        Order::Fifo => [0.0, 0.0, 0.0, 0.0, 0.0, arrival, id],
        Order::Deadline => {
            let deadline = job.deadline_ms.map_or(f64::MAX, |deadline| deadline as f64);
            [deadline, 0.0, 0.0, 0.0, 0.0, arrival, id]
        }
        Order::Quota => [borrows, share, realtime, 0.0, 0.0, arrival, id],
        Order::Promises => {
            let hurry = job.deadline_ms.filter(|_| !lapsed);
            let deadline = hurry.map_or(f64::MAX, |deadline| deadline as f64);
            let takes = entry.remaining_ms().map_or(f64::MAX, |takes| takes as f64);
            [realtime, deadline, borrows, share, takes, arrival, id]
        }
    })
}

/// From when on its deadline cannot be kept any more.
pub(super) fn lapse_ms(entry: &Entry) -> Option<u64> {
    let takes = entry.remaining_ms().unwrap_or(0);
    let last = entry.job.deadline_ms?.checked_sub(takes);
    Some(last.map_or(0, |last| last.saturating_add(1)))
}

pub(super) fn lapsed(entry: &Entry, now_ms: u64) -> bool {
    lapse_ms(entry).is_some_and(|lapse| lapse <= now_ms)
}

/// Its deadline cannot wait any longer: a minute is left, or a tenth of what it takes.
pub(super) fn last_start_ms(entry: &Entry) -> Option<u64> {
    let takes = entry.remaining_ms().unwrap_or(0);
    let margin = takes.saturating_add((takes / 10).max(60_000));
    Some(entry.job.deadline_ms?.saturating_sub(margin))
}

/// From then on it is one of those that go [first](super::leads). Who has a deadline goes by that, and when it is lost waits
/// as the lowest level does.
pub(super) fn bound_ms(entry: &Entry, config: &Config) -> u64 {
    let level = match entry.job.deadline_ms {
        Some(_) => Level::LOWEST,
        None => entry.job.qos,
    };
    let overtaken = config.qos.of(level).overtaken_ms;
    let left = overtaken.saturating_sub(entry.waited_ms);
    entry.since_ms.saturating_add(left)
}

/// What a job's deadline makes of it now.
pub(super) fn haste(entry: &Entry, now_ms: u64) -> Haste {
    if entry.job.deadline_ms.is_none() {
        Haste::None
    } else if lapsed(entry, now_ms) {
        Haste::Lapsed
    } else if last_start_ms(entry).is_some_and(|last| now_ms < last) {
        Haste::Early
    } else {
        Haste::Due
    }
}

/// When it finds no room, some is kept for it. That makes others wait, so it is done for those that somebody waits for and for
/// those with a deadline that can be kept; those past their bounds have room kept as they go [first](super::leads).
pub(super) fn keeps_room(priority: Priority, haste: Haste, config: &Config) -> bool {
    let promised = match haste {
        Haste::None => priority == Priority::Realtime,
        Haste::Early | Haste::Due => true,
        Haste::Lapsed => false,
    };
    config.order != Order::Promises || promised
}
