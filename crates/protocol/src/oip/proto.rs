//! Messages of the gRPC doors, generated from `crates/protocol/proto` by `cargo xtask codegen`.

#[rustfmt::skip]
#[expect(
    clippy::doc_markdown,
    clippy::enum_variant_names,
    reason = "generated: names follow the wire, not the house"
)]
mod inference;
#[rustfmt::skip]
pub mod health;
#[rustfmt::skip]
#[expect(
    clippy::doc_markdown,
    clippy::enum_variant_names,
    reason = "generated: names follow the wire, not the house"
)]
pub mod reflection;

pub use inference::*;

/// Every file of `crates/protocol/proto` as an encoded `FileDescriptorSet`: what gRPC reflection serves and what
/// `config.pbtxt` is read by.
pub const DESCRIPTOR: &[u8] = include_bytes!("proto/descriptor.bin");
