//! What a caller can act on.

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "node `{node}` has {gpus} GPUs, at most {} are known",
        crate::state::GPUS_MAX
    )]
    TooManyGpus { node: String, gpus: u8 },
    #[error("there are more than {max} kinds of nodes (GPU model, region, labels, price, power)")]
    TooManyKinds { max: usize },
    #[error("the request does not fit on node `{node}`")]
    DoesNotFit { node: String },
    #[error(
        "no pod arrives: `creation_time` and `deletion_time` are needed, and a load and a time that give 1 to 4000000 arrivals"
    )]
    NoArrivals,
    #[error("job {job} runs already")]
    JobRuns { job: u64 },
    #[error("job {job} does not run")]
    JobUnknown { job: u64 },
    #[error("policy `{name}` is not known; there are: {known}")]
    UnknownPolicy { name: String, known: String },
    /// Rows count from 1 and the header is row 1, as editors do.
    #[error("row {row}, column `{column}`: {problem}")]
    Csv {
        row: usize,
        column: String,
        problem: String,
    },
}
