//! Why the queue does not take what it is given.

use super::job::JobId;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("QoS level {number} is not known; levels are 1 to 5")]
    Level { number: u8 },
    #[error("QoS level {level}: {problem}")]
    Table { level: u8, problem: String },
    #[error("`{field}`: {problem}")]
    Config {
        field: &'static str,
        problem: String,
    },
    #[error("job {job}, `{field}`: {problem}")]
    Field {
        job: JobId,
        field: &'static str,
        problem: String,
    },
    #[error("job {job} is in the queue already")]
    Known { job: JobId },
    #[error("job {job} is not in the queue")]
    Unknown { job: JobId },
    #[error("job {job} is {phase}, so it cannot be {what}")]
    Phase {
        job: JobId,
        phase: &'static str,
        what: &'static str,
    },
    #[error("{max} jobs wait already; try again when some have started")]
    Full { max: usize },
    #[error("{max} jobs of tenant `{tenant}` wait already; try again when some have started")]
    TenantFull { tenant: String, max: usize },
    #[error("region `{region}` is not known; there are: {known}")]
    Region { region: String, known: String },
    #[error("node `{node}` is {problem}")]
    Node { node: String, problem: String },
    #[error(transparent)]
    Scheduler(#[from] crate::error::Error),
}
