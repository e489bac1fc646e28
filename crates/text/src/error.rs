use base::ErrorKind;

/// Why text could not become tensors, or tensors vectors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("cannot load tokenizer `{file}`: {reason}")]
    Load { file: String, reason: String },
    #[error("the tokenizer's special tokens alone fill `max_tokens` = {tokens_max}")]
    TooFewTokens { tokens_max: usize },
    #[error("the text cannot be tokenised: {0}")]
    Encode(String),
    #[error("the input has no tokens")]
    Empty,
    #[error("the input has {tokens} tokens, the model takes at most {tokens_max}")]
    TooLong { tokens: usize, tokens_max: usize },
    #[error("the text has {bytes} bytes, at most {bytes_max} are tokenised for this model")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error("token id {id} is not in the vocabulary of {vocabulary} tokens")]
    UnknownToken { id: u32, vocabulary: usize },
    #[error("the model's output has {found} values, its shape and the batch need {expected}")]
    Shape { found: usize, expected: usize },
    #[error("{asked} dimensions asked for, the model's vectors have {width}")]
    Dimensions { asked: usize, width: usize },
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Load { .. } | Self::TooFewTokens { .. } => ErrorKind::Unavailable,
            Self::Encode(_)
            | Self::Empty
            | Self::TooLong { .. }
            | Self::TooLarge { .. }
            | Self::UnknownToken { .. }
            | Self::Dimensions { .. } => ErrorKind::Invalid,
            Self::Shape { .. } => ErrorKind::Internal,
        }
    }
}
