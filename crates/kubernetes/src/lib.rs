//! Jobs and model replicas on a Kubernetes cluster.
//!
//! Reading order: [`manifest`] (what a job is on a cluster: pure), `world` (what the cluster's objects say of the runs:
//! pure), `follow` (list and watch), [`Kubernetes`] (the executor that joins them), `mirror` (jobs as a resource
//! of the cluster), `logs`, `nodes`.
//! Never here: whether, when and where a job runs, and whether again (`scheduler`, `jobs`).

#[cfg(test)]
mod api_server;
mod connect;
mod crd;
#[cfg(test)]
mod end_to_end;
mod error;
mod executor;
mod follow;
mod logs;
pub mod manifest;
mod mirror;
mod nodes;
mod world;

pub use connect::connect;
pub use crd::definition;
pub use error::Error;
pub use executor::Kubernetes;
