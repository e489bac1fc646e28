//! OpenAI's REST protocol, as far as kapok itself answers it; what is only relayed is scanned, never parsed.
//!
//! Reading order: [`scan`] (what routing needs from a body, and no more), [`parse_embeddings`] and
//! [`encode_embeddings`], [`models`].

mod embeddings;
mod form;
mod models;
mod rename;
mod scan;
#[cfg(test)]
mod tests;

pub use embeddings::{EncodingFormat, INPUTS_MAX, encode_embeddings, parse_embeddings};
pub use form::{FormScan, Seen, fuzz_openai_form, no_model};
pub use models::{ModelEntry, model, models};
pub use rename::rename;
pub use scan::{Facts, Prompt, ScanError, fuzz_openai_scan, scan};

/// Deeper than any tool schema; bodies are skipped without recursion, so this only bounds what is kept open.
const DEPTH_MAX: usize = 1000;
