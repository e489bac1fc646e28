//! Models in C, C++ or Rust: shared libraries behind a small versioned C interface (`include/kapok_node.h`).
//!
//! Reading order: [`abi`] (what crosses the border), `border` (every pointer and length is checked there before it is
//! used), [`NodeEngine`] (opens libraries, makes lanes, runs them). `samples/scale.c`, `samples/countup.c` and
//! `examples/shout.rs` are whole models to start from.
//!
//! `unsafe` is denied unless a line asks for it: this room calls code that nobody here has read.
//! Never here: other engines, and processes (`isolation` puts a library that is not trusted into one of its own).

pub mod abi;
mod border;
mod engine;
mod library;

pub use engine::NodeEngine;

#[cfg(test)]
mod tests;
