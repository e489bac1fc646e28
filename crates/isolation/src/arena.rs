//! Shared memory that nobody maps: a memfd, sparse, with one window for each lane.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use protocol::{BufferPool, Tensor};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

use crate::wire::Header;

/// 64 GiB of addresses a lane; only written pages take memory.
const WINDOW_BITS: u32 = 36;

/// Lanes a model can have: `LANES_MAX << WINDOW_BITS` is a legal offset.
pub(crate) const LANES_MAX: u64 = 1 << 20;

/// What a window keeps between calls; more is given back after the call.
const KEPT_BYTES: u64 = 4 << 20;

/// As the tensors' own buffers.
const ALIGNMENT: u64 = 64;

#[derive(Debug)]
pub(crate) struct Arena(File);

impl Arena {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(
            memfd_create("kapok-isolation", MemfdFlags::CLOEXEC)?.into(),
        ))
    }

    pub(crate) fn of(file: File) -> Self {
        Self(file)
    }

    /// For the child.
    pub(crate) fn share(&self) -> io::Result<File> {
        self.0.try_clone()
    }

    /// Puts tensors into a lane's window, one after the other.
    pub(crate) fn write(&self, lane: u64, tensors: &[Tensor]) -> io::Result<Vec<Header>> {
        let mut place = Window::of(lane);
        tensors
            .iter()
            .map(|tensor| {
                let offset = place.next(tensor.data.len())?;
                self.0.write_all_at(&tensor.data, offset)?;
                Ok(Header {
                    name: tensor.name.clone(),
                    dtype: tensor.dtype,
                    shape: tensor.shape.clone(),
                    bytes: tensor.data.len(),
                })
            })
            .collect()
    }

    /// Takes tensors out again, checked: whoever wrote them may have been broken.
    pub(crate) fn read(
        &self,
        lane: u64,
        headers: Vec<Header>,
        buffers: &BufferPool,
    ) -> Result<Vec<Tensor>, String> {
        let mut place = Window::of(lane);
        let written = self.0.metadata().map_err(|error| error.to_string())?.len();
        headers
            .into_iter()
            .map(|header| {
                let Header {
                    name,
                    dtype,
                    shape,
                    bytes,
                } = header;
                let offset = place.next(bytes).map_err(|error| error.to_string())?;
                // Before memory is taken for what is claimed.
                let end = offset.saturating_add(bytes as u64);
                if bytes > 0 && end > written {
                    return Err(format!(
                        "tensor `{name}` claims {bytes} bytes that were never written"
                    ));
                }
                let mut buffer = buffers.take(bytes);
                self.0
                    .read_exact_at(buffer.extend_zeroed(bytes), offset)
                    .map_err(|error| format!("tensor `{name}`: {error}"))?;
                Tensor::new(name, dtype, shape, buffer.freeze()).map_err(|error| error.to_string())
            })
            .collect()
    }

    /// After a call: memory of a large one is not kept for the next.
    pub(crate) fn trim(&self, lane: u64) {
        let Ok(written) = self.0.metadata() else {
            return;
        };
        let start = (lane << WINDOW_BITS) + KEPT_BYTES;
        let end = ((lane + 1) << WINDOW_BITS).min(written.len());
        if start < end {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // What cannot be given back now is used by the next call.
            if let Err(error) = fallocate(&self.0, flags, start, end - start) {
                tracing::debug!(%error, "shared memory is kept");
            }
        }
    }
}

/// Where the next tensor of a lane lies.
struct Window {
    next: u64,
    end: u64,
}

impl Window {
    fn of(lane: u64) -> Self {
        Self {
            next: lane << WINDOW_BITS,
            end: (lane + 1) << WINDOW_BITS,
        }
    }

    fn next(&mut self, bytes: usize) -> io::Result<u64> {
        let offset = self.next;
        let end = offset
            .checked_add(bytes as u64)
            .filter(|end| *end <= self.end);
        let end = end.ok_or_else(|| io::Error::other("a call's tensors have more than 64 GiB"))?;
        self.next = end.next_multiple_of(ALIGNMENT);
        Ok(offset)
    }
}
