//! Listen, authenticate, admit, route, relay.
//!
//! Reading order: [`server`] (what the gateway needs from whoever runs models in this process), `gateway` (what it is
//! made of, and its verbs), `snapshot` (resources, ready to route by), `pick` (who answers: a pure function), `doors`
//! (one file per protocol), `admission` (limits, places, lines), `relay` and `upstream` (the way to another server and back), `exchange` (one request's
//! account, settled when its answer ends), `export` (some of those accounts, to a collector).
//! Never here: running models, starting processes, reading files (clients' shared memory apart) or the environment. `kapok` adapts those to the traits
//! in [`server`] and hands over resources whose secrets are looked up.

mod activity;
mod admission;
mod alarm;
mod body;
mod bridge;
mod check;
mod coding;
mod config;
mod deadline;
mod doors;
mod error;
mod exchange;
mod export;
mod flow;
mod gate;
mod gateway;
mod grpc;
mod headers;
mod hold;
mod keepers;
mod keys;
mod listener;
mod metrics;
mod openapi;
mod operation;
mod pick;
mod read;
mod regions;
mod relay;
mod reply;
mod scrape;
pub mod server;
mod snapshot;
mod status;
mod upload;
mod upstream;

pub use config::Config;
pub use error::Error;
pub use gateway::{Gateway, Parts, Readiness, UpstreamStatus, Usage};
pub use listener::{Door, Listener};
pub use snapshot::Snapshot;
pub use status::{ConfigStatus, PoolStatus};
pub use upstream::fuzz_http_answer;

#[cfg(test)]
mod tests;
