use std::fmt;
use std::path::Path;

use tokenizers::utils::parallelism::set_parallelism;
use tokenizers::{PostProcessor as _, Tokenizer, TruncationParams};

use crate::{Error, Sequence};

/// A text of this many bytes may be tokenised whatever the model takes: some milliseconds on one core.
const BYTES_FLOOR: usize = 64 << 10;

/// Bytes of the longest tokens there are, white space included; what a longer text has beyond this is cut anyway.
const BYTES_PER_TOKEN: usize = 64;

/// Text to token ids, as the `tokenizer.json` says; its own truncation and padding are replaced by ours.
pub struct Encoder {
    tokenizer: Tokenizer,
    tokens_max: usize,
    pad: u32,
    vocabulary: usize,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The vocabulary is tens of thousands of words.
        f.debug_struct("Encoder")
            .field("tokens_max", &self.tokens_max)
            .field("vocabulary", &self.vocabulary)
            .finish_non_exhaustive()
    }
}

impl Encoder {
    /// Reads a `tokenizer.json`. Texts longer than `tokens_max` tokens, special tokens included, are cut at the end.
    pub fn from_file(path: &Path, tokens_max: usize) -> Result<Self, Error> {
        // Without its folders: reasons are shown to clients.
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let broken = |reason: String| Error::Load {
            file: file.clone().into_owned(),
            reason,
        };
        let json = std::fs::read(path).map_err(|error| broken(error.to_string()))?;
        let tokenizer = Tokenizer::from_bytes(json).map_err(|error| broken(error.to_string()))?;
        Self::new(tokenizer, tokens_max)
    }

    fn new(mut tokenizer: Tokenizer, tokens_max: usize) -> Result<Self, Error> {
        // The process has one budget of compute threads; rayon's would come on top of it.
        set_parallelism(false);
        let pad = pad_id(&tokenizer);
        tokenizer.with_padding(None);
        // Checked here because the library subtracts without looking.
        let special = tokenizer
            .get_post_processor()
            .map_or(0, |processor| processor.added_tokens(false));
        if tokens_max <= special {
            return Err(Error::TooFewTokens { tokens_max });
        }
        let truncation = TruncationParams {
            max_length: tokens_max,
            ..TruncationParams::default()
        };
        tokenizer
            .with_truncation(Some(truncation))
            .map_err(|error| Error::Encode(error.to_string()))?;
        Ok(Self {
            vocabulary: tokenizer.get_vocab_size(true),
            tokenizer,
            tokens_max,
            pad,
        })
    }

    /// The id that [`crate::Batch::pad`] fills with; what stands there is masked, it only has to exist.
    pub fn pad_id(&self) -> u32 {
        self.pad
    }

    /// Tokenises, and cuts at the model's limit. The library cuts last, so the bytes are bounded before.
    pub fn encode(&self, text: &str) -> Result<Sequence, Error> {
        let bytes_max = BYTES_FLOOR.max(self.tokens_max.saturating_mul(BYTES_PER_TOKEN));
        if text.len() > bytes_max {
            return Err(Error::TooLarge {
                bytes: text.len(),
                bytes_max,
            });
        }
        let encoding = self
            .tokenizer
            .encode_fast(text, true)
            .map_err(|error| Error::Encode(error.to_string()))?;
        // Nothing but padding would be pooled, and a vector of that depends on the batch.
        if encoding.get_ids().is_empty() {
            return Err(Error::Empty);
        }
        Ok(Sequence {
            ids: encoding.get_ids().to_vec(),
            types: encoding.get_type_ids().to_vec(),
        })
    }

    /// Checks ids that the client tokenised itself. They are taken as given: cutting them would drop an end token.
    pub fn sequence(&self, ids: &[u32]) -> Result<Sequence, Error> {
        if ids.is_empty() {
            return Err(Error::Empty);
        }
        if ids.len() > self.tokens_max {
            return Err(Error::TooLong {
                tokens: ids.len(),
                tokens_max: self.tokens_max,
            });
        }
        // Ids need not be dense, but none is above the count in any published tokenizer; an id that the embedding
        // table does not have would fail inside the engine with a message nobody understands.
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocabulary) {
            return Err(Error::UnknownToken {
                id: *id,
                vocabulary: self.vocabulary,
            });
        }
        Ok(Sequence {
            ids: ids.to_vec(),
            types: vec![0; ids.len()],
        })
    }
}

/// The file's own padding token, else the usual names, else 0.
fn pad_id(tokenizer: &Tokenizer) -> u32 {
    if let Some(padding) = tokenizer.get_padding() {
        return padding.pad_id;
    }
    ["[PAD]", "<pad>", "<|endoftext|>", "</s>"]
        .into_iter()
        .find_map(|token| tokenizer.token_to_id(token))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
