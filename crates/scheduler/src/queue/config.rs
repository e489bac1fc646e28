//! Quotas, bounds and rules.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::qos::Table;
use super::refused::Refused;

/// Amounts of what quotas are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Amounts {
    pub cpu_milli: u64,
    pub memory_mib: u64,
    pub gpu_milli: u64,
}

/// What a tenant may use. Without quotas everybody may use everything, and who uses least goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tenant {
    /// Its own; the whole cluster when `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nominal: Option<Amounts>,
    /// What it may use beyond while others do not; all there is when `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub borrowing_limit: Option<Amounts>,
    /// Twice the weight, twice the fair share.
    pub weight: u32,
}

impl Default for Tenant {
    fn default() -> Self {
        Self {
            nominal: None,
            borrowing_limit: None,
            weight: 1,
        }
    }
}

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Order {
    /// Promises first: who waits past its bound (within `pastBoundsPercent`), priority, deadlines that can be kept, quota, fair share, the shortest,
    /// arrival.
    #[default]
    Promises,
    /// Arrival alone.
    Fifo,
    /// Earliest deadline first; then arrival.
    Deadline,
    /// Kueue's: tenants within their quota, fair share, priority, arrival.
    Quota,
}

/// Whether a tenant's jobs stop others that have borrowed what is its own (Kueue's `reclaimWithinCohort`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reclaim {
    /// It waits until they end, and goes before others that borrow.
    #[default]
    Never,
    /// Those of whom that saves more waiting than it costs: the job would wait for what they have left to do; they do again what
    /// they have not saved, and wait for as long as the job takes, which must be known.
    Worthwhile,
    /// Any.
    Always,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Where jobs go: one of [`policy::NAMES`](crate::policy::NAMES) that neither draws nor learns.
    pub policy: String,
    pub order: Order,
    pub qos: Table,
    pub tenants: BTreeMap<String, Tenant>,
    /// Of tenants without an entry.
    pub other_tenants: Tenant,
    /// Jobs that wait at most; those beyond are refused.
    pub pending_max: usize,
    pub tenant_pending_max: usize,
    /// Jobs may stop others that matter less.
    pub preemption: bool,
    /// Also where they matter as much, for a tenant's own quota.
    pub reclaim: Reclaim,
    /// Jobs may start before the one at the head when they do not delay it; else nobody passes it (with `Order::Quota` nobody of
    /// its tenant).
    pub backfill: bool,
    /// Jobs for which room is kept: with `Order::Promises` those past their bounds, realtime ones and those with a deadline, else
    /// those at the head.
    pub reservations_max: usize,
    /// Of the cluster, what jobs may have together that went first because they had waited past their bounds; one of them may
    /// always have what it asks for.
    pub past_bounds_percent: u8,
    /// Limits of all slices of a device together, in percent of it.
    pub overcommit_percent: u16,
    /// Members that may be moved in an hour, in thousandths of those that run; 0 where nobody can move them.
    pub moves_permille_hour: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: "kapok".to_owned(),
            order: Order::default(),
            qos: Table::default(),
            tenants: BTreeMap::new(),
            other_tenants: Tenant::default(),
            pending_max: 100_000,
            tenant_pending_max: 50_000,
            preemption: true,
            reclaim: Reclaim::default(),
            backfill: true,
            reservations_max: 4,
            past_bounds_percent: 25,
            overcommit_percent: 200,
            moves_permille_hour: 0,
        }
    }
}

impl Config {
    pub fn validate(&self) -> Result<(), Refused> {
        self.qos.validate()?;
        let wrong = |field, problem: &str| {
            Err(Refused::Config {
                field,
                problem: problem.to_owned(),
            })
        };
        let mut tenants = self.tenants.values().chain([&self.other_tenants]);
        if tenants.any(|tenant| tenant.weight == 0) {
            return wrong("weight", "is above 0");
        }
        if self.pending_max == 0 || self.tenant_pending_max == 0 {
            return wrong("pendingMax", "is above 0");
        }
        if self.past_bounds_percent > 100 {
            return wrong("pastBoundsPercent", "is at most 100");
        }
        if !(100..=1_000).contains(&self.overcommit_percent) {
            return wrong("overcommitPercent", "is 100 to 1000");
        }
        if self.moves_permille_hour > 1_000 {
            return wrong("movesPermilleHour", "is at most 1000");
        }
        if ["random", "kapok-online"].contains(&self.policy.as_str()) {
            return wrong(
                "policy",
                "draws or learns, so a queue that is restored would decide otherwise",
            );
        }
        Ok(())
    }

    pub fn tenant(&self, name: &str) -> &Tenant {
        self.tenants.get(name).unwrap_or(&self.other_tenants)
    }
}
