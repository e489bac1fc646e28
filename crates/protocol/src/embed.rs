//! Text in, vectors out, whatever door it came through.

#[derive(Debug, Clone, PartialEq)]
pub struct EmbedRequest {
    pub model: String,
    pub inputs: EmbedInputs,
    /// Shorten the vectors to this many dimensions and normalise again.
    pub dimensions: Option<usize>,
}

/// OpenAI's four input shapes come down to two.
#[derive(Debug, Clone, PartialEq)]
pub enum EmbedInputs {
    Texts(Vec<String>),
    /// Already tokenised, special tokens included as given.
    Tokens(Vec<Vec<u32>>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    pub model: String,
    /// One vector per input, in order.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens over all inputs, special tokens included, padding excluded.
    pub tokens: usize,
}
