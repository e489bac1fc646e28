//! Text to tensors and back: tokenise, pool, normalise.
