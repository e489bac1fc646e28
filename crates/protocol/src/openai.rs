//! OpenAI's REST protocol, as far as kapok itself answers it; what is only relayed is scanned, never parsed.
//!
//! Reading order: [`scan`] (what routing needs from a body, and no more), [`parse_embeddings`] and
//! [`encode_embeddings`], [`models`]; [`chunk`] (one event of a stream) and [`resumed`] (the request for the rest of one);
//! [`usage`] (tokens, before and after); [`too_long`] (what a refusal says).

mod chunk;
mod embeddings;
mod form;
mod kept;
mod models;
mod rename;
mod resume;
mod scan;
#[cfg(test)]
mod tests;
mod too_long;
pub mod usage;

pub use chunk::{Change, Chunk, Identity, StreamError, chunk, fuzz_openai_chunk};
pub use embeddings::{EncodingFormat, INPUTS_MAX, encode_embeddings, parse_embeddings};
pub use form::{FormScan, Seen, fuzz_openai_form};
pub use kept::{IdScan, fuzz_openai_kept, references};
pub use models::{ModelEntry, model, models};
pub use rename::rename;
pub use resume::{NoResume, Resume, comparable, fuzz_openai_resume, resumed};
pub use scan::{Facts, Prompt, ScanError, fuzz_openai_scan, scan};
pub use too_long::{fuzz_too_long, too_long};

/// Deeper than any tool schema; bodies are skipped without recursion, so this only bounds what is kept open.
const DEPTH_MAX: usize = 1000;
