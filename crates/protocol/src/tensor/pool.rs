use std::ops::Deref;
use std::sync::Arc;

use aligned_vec::{AVec, ConstAlign};
use bytes::Bytes;
use parking_lot::Mutex;

/// Every pooled buffer starts on a cache line, which is also AVX-512's vector width.
pub const ALIGNMENT: usize = 64;

/// Size classes are powers of two from 4 KiB (below it, allocating is as cheap) to 64 MiB (above it, mapping dominates).
const CLASS_BITS_MIN: u32 = 12;
const CLASS_BITS_MAX: u32 = 26;
const CLASSES: usize = (CLASS_BITS_MAX - CLASS_BITS_MIN + 1) as usize;

type Block = AVec<u8, ConstAlign<ALIGNMENT>>;

/// Aligned buffers that are used again. Cheap to clone. What is idle never exceeds the pool's limit; what is in use is
/// bounded by those who take (body limits, queues).
#[derive(Debug, Clone)]
pub struct BufferPool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    idle_bytes_max: usize,
    idle: Mutex<Idle>,
}

#[derive(Debug)]
struct Idle {
    bytes: usize,
    classes: [Vec<Block>; CLASSES],
}

impl Default for BufferPool {
    /// 64 MiB idle: one largest request (the default body limit) can be served again without allocating.
    fn default() -> Self {
        Self::new(64 << 20)
    }
}

impl BufferPool {
    pub fn new(idle_bytes_max: usize) -> Self {
        let idle = Idle {
            bytes: 0,
            classes: Default::default(),
        };
        Self(Arc::new(Shared {
            idle_bytes_max,
            idle: Mutex::new(idle),
        }))
    }

    /// An empty buffer with room for `bytes`. Nothing is zeroed.
    pub fn take(&self, bytes: usize) -> PooledBuffer {
        let reused = class_holding(bytes).and_then(|class| {
            let mut idle = self.0.idle.lock();
            let block = idle.classes[class].pop()?;
            idle.bytes -= block.capacity();
            Some(block)
        });
        let block = reused.unwrap_or_else(|| {
            let capacity = class_holding(bytes).map_or(bytes, class_bytes);
            AVec::with_capacity(ALIGNMENT, capacity)
        });
        PooledBuffer {
            block: Some(block),
            pool: self.clone(),
        }
    }

    /// Bytes kept for reuse at the moment.
    pub fn idle_bytes(&self) -> usize {
        self.0.idle.lock().bytes
    }

    fn give(&self, mut block: Block) {
        block.clear();
        let Some(class) = class_filled_by(block.capacity()) else {
            return;
        };
        let mut idle = self.0.idle.lock();
        if idle.bytes + block.capacity() <= self.0.idle_bytes_max {
            idle.bytes += block.capacity();
            idle.classes[class].push(block);
        }
    }
}

fn class_bytes(class: usize) -> usize {
    1 << (CLASS_BITS_MIN as usize + class)
}

/// The smallest class whose blocks hold `bytes`; none below half the smallest class or above the largest.
fn class_holding(bytes: usize) -> Option<usize> {
    let bits = bytes.max(1).next_power_of_two().trailing_zeros();
    (CLASS_BITS_MIN - 1..=CLASS_BITS_MAX)
        .contains(&bits)
        .then(|| bits.saturating_sub(CLASS_BITS_MIN) as usize)
}

/// The largest class that a block of this capacity can serve.
fn class_filled_by(capacity: usize) -> Option<usize> {
    let bits = capacity.max(1).ilog2();
    (CLASS_BITS_MIN..=CLASS_BITS_MAX)
        .contains(&bits)
        .then(|| (bits - CLASS_BITS_MIN) as usize)
}

/// A buffer that goes back to its pool when dropped, or when the [`Bytes`] made of it is dropped.
#[derive(Debug)]
pub struct PooledBuffer {
    /// None only while being dropped.
    block: Option<Block>,
    pool: BufferPool,
}

impl PooledBuffer {
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        if let Some(block) = &mut self.block {
            block.extend_from_slice(bytes);
        }
    }

    /// Adds zeros and lends them out, for whoever can only write into memory that is there.
    pub fn extend_zeroed(&mut self, bytes: usize) -> &mut [u8] {
        let Some(block) = &mut self.block else {
            return &mut [];
        };
        let start = block.len();
        block.resize(start + bytes, 0);
        &mut block[start..]
    }

    /// Shares the buffer without copying it.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for PooledBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.block.as_deref().unwrap_or_default()
    }
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.pool.give(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_used_again() {
        let pool = BufferPool::new(1 << 20);
        let mut buffer = pool.take(100_000);
        buffer.extend_from_slice(&[7; 100_000]);
        let address = buffer.as_ptr();
        assert_eq!(address.align_offset(ALIGNMENT), 0);
        drop(buffer.freeze());
        assert_eq!(pool.idle_bytes(), 128 << 10);
        let mut again = pool.take(90_000);
        assert!(again.is_empty());
        again.extend_zeroed(3).copy_from_slice(b"abc");
        assert_eq!(*again, *b"abc");
        assert_eq!(again.as_ptr(), address);
        assert_eq!(pool.idle_bytes(), 0);
    }

    #[test]
    fn what_is_idle_stays_within_the_limit() {
        let pool = BufferPool::new(64 << 10);
        let taken: Vec<_> = (0..32).map(|_| pool.take(16 << 10)).collect();
        drop(taken);
        assert!(pool.idle_bytes() <= 64 << 10);
    }
}
