//! Text to tensors and back: tokenise, pad, pool, normalise.
//!
//! Reading order: [`Encoder`] (text to token ids), [`Batch`] (sequences to a rectangle), [`pool`] (a model's hidden
//! states to one vector per text), [`normalize`] and [`shorten`].
//! Never here: models, threads, clocks. Everything is a function of its arguments, and nothing starts a thread: whoever
//! calls decides on which one the work is done.

mod batch;
mod encoder;
mod error;
mod pool;
mod vector;

pub use batch::{Batch, Sequence};
pub use encoder::Encoder;
pub use error::Error;
pub use pool::{Hidden, pool};
pub use vector::{normalize, shorten};
