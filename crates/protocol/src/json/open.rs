/// No reader allows more depth; what is open is kept in that many bits.
pub(super) const DEPTH_CAP: usize = 1024;

/// What is open inside a skipped value, one bit each: set for an object.
pub(super) struct Open {
    bits: [u64; DEPTH_CAP / 64],
    depth: usize,
}

impl Default for Open {
    fn default() -> Self {
        Self {
            bits: [0; DEPTH_CAP / 64],
            depth: 0,
        }
    }
}

impl Open {
    /// The reader's own depth limit keeps this in bounds.
    pub(super) fn push(&mut self, object: bool) {
        let (word, bit) = (self.depth / 64, self.depth % 64);
        if let Some(word) = self.bits.get_mut(word) {
            *word = *word & !(1 << bit) | u64::from(object) << bit;
        }
        self.depth += 1;
    }

    pub(super) fn pop(&mut self) {
        self.depth -= 1;
    }

    pub(super) fn top(&self) -> Option<bool> {
        let last = self.depth.checked_sub(1)?;
        self.bits
            .get(last / 64)
            .map(|word| word >> (last % 64) & 1 == 1)
    }
}
