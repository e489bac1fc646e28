//! Open Inference Protocol v2, with Triton's extensions.

mod checks;
pub mod grpc;
pub mod proto;
pub mod reflection;
pub mod repository;
pub mod rest;
pub mod settings;
mod shared;

pub use shared::{Placement, Shared};

/// Feeds arbitrary bytes to the parsers of what changes a running server.
pub fn fuzz_admin(data: &[u8]) {
    repository::fuzz_repository(data);
    settings::fuzz_settings(data);
}
