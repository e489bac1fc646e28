//! Jobs: kept, queued, started where the scheduler says, watched and remembered.
//!
//! Reading order: [`executor`] (all that a place where jobs run has to know).
//! Never here: where a job goes (`scheduler`), what a job is (`protocol::resource::Job`), HTTP.

pub mod executor;
