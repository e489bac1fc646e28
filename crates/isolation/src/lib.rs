//! `isolation = "process"`: an engine in a child process. Its crash costs the calls in flight a clear error and nothing
//! else; ending it gives all its memory back.
//!
//! ```text
//! Isolated (an Engine) ── socket: who runs what ──► child: serve(engines)
//!        └──────────────── memfd: tensors ────────►
//! ```
//! Reading order: `wire` (what is said on the socket), `arena` (where tensors lie), [`Isolation`] and `process` (this
//! side), [`serve`] (the other).
//! Tensors are read and written by position, not mapped: a child that scribbles, truncates or dies cannot make this
//! process read what it did not check, and no line here is `unsafe`. That costs each side one copy.
//! Never here: which engines exist (kapok passes them in), when a model is loaded (runtime).

mod arena;
mod child;
mod parent;
mod process;
mod wire;

pub use child::serve;
pub use parent::Isolation;
