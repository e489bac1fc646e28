//! What a QoS level promises, and what it costs others.

use serde::{Deserialize, Serialize};

use super::refused::Refused;

/// 1 (takes what is left) to 5 (gets what it asked for, whatever else happens).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Level(u8);

impl Level {
    pub const LOWEST: Self = Self(1);
    pub const HIGHEST: Self = Self(5);

    pub fn number(self) -> u8 {
        self.0
    }
}

impl Default for Level {
    /// Everything is promised, nothing is exclusive.
    fn default() -> Self {
        Self(3)
    }
}

impl TryFrom<u8> for Level {
    type Error = Refused;

    fn try_from(number: u8) -> Result<Self, Refused> {
        if (1..=5).contains(&number) {
            Ok(Self(number))
        } else {
            Err(Refused::Level { number })
        }
    }
}

impl From<Level> for u8 {
    fn from(level: Level) -> Self {
        level.0
    }
}

/// The class that Kubernetes would give the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// Limits are requests.
    Guaranteed,
    Burstable,
    /// Neither requests nor limits: evicted first when a node runs short.
    BestEffort,
}

/// So many requests within so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Latency {
    pub p95_ms: u32,
    /// Of all windows that are measured, in thousandths.
    pub kept_permille: u16,
}

/// What one level means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Promise {
    /// Of the device memory asked for, 1 to 200; what is above 100 is headroom, what is below is shared with others.
    pub reserved_percent: u16,
    /// Lower goes first; none is never pre-empted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preempted: Option<u8>,
    /// May be moved to another device so that others fit.
    pub movable: bool,
    pub class: Class,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// After waiting so long nothing overtakes any more.
    pub overtaken_ms: u64,
}

/// Level 1 first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Table([Promise; 5]);

impl Table {
    /// Refuses a table in which a higher level is promised less than a lower one.
    pub fn new(promises: [Promise; 5]) -> Result<Self, Refused> {
        let table = Self(promises);
        table.validate()?;
        Ok(table)
    }

    pub fn of(&self, level: Level) -> &Promise {
        &self.0[usize::from(level.0) - 1]
    }

    pub fn validate(&self) -> Result<(), Refused> {
        let wrong = |number: usize, problem: &str| {
            Err(Refused::Table {
                level: u8::try_from(number + 1).unwrap_or(u8::MAX),
                problem: problem.to_owned(),
            })
        };
        for (number, promise) in self.0.iter().enumerate() {
            if !(1..=200).contains(&promise.reserved_percent) {
                return wrong(number, "`reservedPercent` is 1 to 200");
            }
            if promise
                .latency
                .is_some_and(|latency| latency.p95_ms == 0 || latency.kept_permille > 1_000)
            {
                return wrong(number, "`p95Ms` is above 0, `keptPermille` is at most 1000");
            }
            if promise.overtaken_ms == 0 {
                return wrong(number, "`overtakenMs` is above 0");
            }
            let Some(below) = number.checked_sub(1).map(|below| &self.0[below]) else {
                continue;
            };
            // None is later than any number.
            let order = |promise: &Promise| promise.preempted.map_or(u16::MAX, u16::from);
            if promise.reserved_percent < below.reserved_percent {
                return wrong(number, "reserves less than the level below");
            }
            if order(promise) < order(below) {
                return wrong(number, "is pre-empted before the level below");
            }
            if promise.movable && !below.movable {
                return wrong(number, "is movable, and the level below is not");
            }
            if promise.overtaken_ms > below.overtaken_ms {
                return wrong(number, "is overtaken longer than the level below");
            }
        }
        Ok(())
    }
}

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

impl Default for Table {
    fn default() -> Self {
        let level = |reserved_percent, preempted, class, p95_ms, overtaken_ms| Promise {
            reserved_percent,
            preempted,
            movable: preempted.is_some_and(|order| order < 3),
            class,
            latency: (p95_ms > 0).then_some(Latency {
                p95_ms,
                kept_permille: 995,
            }),
            overtaken_ms,
        };
        Self([
            level(50, Some(0), Class::BestEffort, 0, 24 * HOUR_MS),
            level(70, Some(1), Class::Burstable, 400, 12 * HOUR_MS),
            level(85, Some(2), Class::Burstable, 120, 6 * HOUR_MS),
            level(100, Some(3), Class::Burstable, 80, 2 * HOUR_MS),
            level(110, None, Class::Guaranteed, 50, 30 * MINUTE_MS),
        ])
    }
}
