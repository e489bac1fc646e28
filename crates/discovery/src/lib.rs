//! Where other servers are, and where this one is said to be.
//!
//! Reading order: [`Source`] (one way to learn of servers; [`follow`] keeps asking and never forgets), `file`, `dns` and
//! `etcd` (the ways), [`expand`] (templates and servers become upstreams: a pure function), [`Registration`] (this node,
//! told to others), [`FileWatch`] (files that change under us), [`http`] (one request at a time).
//! Never here: what a server is used for. A source that fails changes nothing: who listens keeps the servers it has.

mod dns;
mod error;
mod etcd;
mod expand;
mod file;
mod file_watch;
pub mod http;
mod register;
mod source;
mod tls;

pub use dns::fuzz_dns_answer;
pub use error::Error;
pub use expand::{Servers, expand};
pub use file_watch::FileWatch;
pub use register::Registration;
pub use source::{Found, News, Source, follow, open};
