//! Models that run in this process: repository, engines' common trait, lanes, text pipelines.
//!
//! Reading order: [`engine`] (what an engine must do), then the repository, the lanes and [`Runtime`].
//! Never here: sockets and wire formats; which engine libraries exist (rooms below implement [`engine::Engine`]).

pub mod engine;
