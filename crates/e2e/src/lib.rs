//! What the tests against the real binary are written with.
//!
//! Reading order: [`Kapok`] (a started binary and its log), [`client`] (requests byte by byte), [`upstream`] (a server that
//! misbehaves as told), [`provider`] (the same, speaking chat), [`chat`] (what a caller makes of an answer), [`faults`] (the
//! wall of sixteen), [`repository`] (models on disk), [`python`] (third-party clients), [`wait`].
//! Never here: the rooms' own types. These tests see what a user sees: a process, its ports, its output.
//!
//! ```no_run
//! let fake = e2e::FakeUpstream::start(e2e::Answer::json("{}"));
//! let kapok = e2e::Kapok::new().upstream("llm", &fake.url()).start();
//! assert_eq!(kapok.http().get("/health/ready").status, 200);
//! ```

mod binary;
pub mod chat;
pub mod client;
pub mod faults;
mod finished;
mod kapok;
mod log;
mod process;
pub mod provider;
pub mod python;
pub mod repository;
pub mod upstream;
pub mod wait;

pub use binary::path as binary;
pub use client::{Client, Response};
pub use finished::Finished;
pub use kapok::{Kapok, Running};
pub use process::{alive, children_of, signal};
pub use provider::{Fault, Prefix, Provider};
pub use repository::Repository;
pub use upstream::{Answer, FakeUpstream, Gate};
