//! System shared memory: regions that clients have registered, and tensors that go between them and us.
//!
//! Nothing is mapped. Bytes are read from the region's file into a buffer of ours and written back, which costs one copy
//! and buys what a mapping cannot give: a client that cuts its region short gets an error where a mapping would end the
//! process, and nobody changes a tensor while an engine reads it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use base::ErrorKind;
use bytes::Bytes;
use parking_lot::Mutex;
use protocol::oip::{Placement, Shared};
use protocol::{ApiError, BufferPool, InferResponse, shown};
use rustix::fs::{Mode, OFlags};

use crate::read::Held;
use crate::reply::Shape;

/// Where `shm_open` keeps its objects on Linux.
const FOLDER: &str = "/dev/shm";

/// Each holds a file open. Clients register a handful each, and unregister.
const REGIONS_MAX: usize = 1024;

/// Longest name of a region, and of a file below [`FOLDER`].
const NAME_BYTES_MAX: usize = 255;

/// Copied at a time: about 50 µs. Then others get their turn on the thread.
const STEP_BYTES: usize = 256 << 10;

/// Every region that is registered.
#[derive(Debug, Default)]
pub(crate) struct Regions(Mutex<BTreeMap<String, Arc<Region>>>);

/// A part of a shared memory object. A request holds it from its first look to its answer, so that it may be
/// unregistered meanwhile.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    file: File,
}

impl Regions {
    /// The refusals are Triton's.
    pub(crate) fn register(
        &self,
        name: &str,
        key: &str,
        (offset, bytes): (u64, u64),
    ) -> Result<(), ApiError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let message = format!("a region's name has 1 to {NAME_BYTES_MAX} bytes");
            return Err(ApiError::invalid(message).with_param("name"));
        }
        if self.0.lock().contains_key(name) {
            return Err(taken(name));
        }
        let file = open(key)?;
        let size = file.metadata().map_err(|_| cannot_open(key))?.len();
        if offset.checked_add(bytes).is_none_or(|end| end > size) {
            let name = shown::name(name);
            let message = format!("failed to register shared memory region '{name}': invalid args");
            return Err(ApiError::invalid(message));
        }
        let region = Region {
            name: name.to_owned(),
            key: key.to_owned(),
            offset,
            bytes,
            file,
        };
        let mut regions = self.0.lock();
        if regions.contains_key(name) {
            return Err(taken(name));
        }
        if regions.len() >= REGIONS_MAX {
            let message = format!(
                "{REGIONS_MAX} shared memory regions are registered; unregister one before another is registered"
            );
            return Err(ApiError::new(ErrorKind::Exhausted, message));
        }
        regions.insert(region.name.clone(), Arc::new(region));
        Ok(())
    }

    /// An empty name means all. What is not registered is not an error.
    pub(crate) fn unregister(&self, name: &str) {
        let mut regions = self.0.lock();
        if name.is_empty() {
            regions.clear();
        } else {
            regions.remove(name);
        }
    }

    /// One region, or with an empty name all of them.
    pub(crate) fn status(&self, name: &str) -> Result<Vec<Arc<Region>>, ApiError> {
        let regions = self.0.lock();
        if name.is_empty() {
            return Ok(regions.values().cloned().collect());
        }
        let region = regions.get(name).cloned().ok_or_else(|| {
            let name = shown::name(name);
            let message = format!("Unable to find system shared memory region: '{name}'");
            ApiError::new(ErrorKind::NotFound, message)
        })?;
        Ok(vec![region])
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.lock().contains_key(name)
    }

    /// The region that this place is in, if it is in one.
    fn find(&self, place: &Shared) -> Result<Arc<Region>, ApiError> {
        let name = shown::name(&place.region);
        let region = self.0.lock().get(&place.region).cloned().ok_or_else(|| {
            let message = format!("Unable to find shared memory region: '{name}'");
            ApiError::new(ErrorKind::NotFound, message)
        })?;
        if place.offset >= region.bytes {
            let message = format!("Invalid offset for shared memory region: '{name}'");
            return Err(ApiError::invalid(message));
        }
        if place.bytes > region.bytes - place.offset {
            let message = format!("Invalid offset + byte size for shared memory region: '{name}'");
            return Err(ApiError::invalid(message));
        }
        Ok(region)
    }

    /// Copies out what is there; `held` takes as many bytes from the memory for bodies, if there are so many.
    pub(crate) async fn read(
        &self,
        place: &Shared,
        pool: &BufferPool,
        held: &Held,
    ) -> Result<Bytes, ApiError> {
        let region = self.find(place)?;
        let bytes = usize::try_from(place.bytes).unwrap_or(usize::MAX);
        held.add(bytes)
            .map_err(|error| error.into_failure(Shape::Oip).error)?;
        let mut buffer = pool.take(bytes);
        let mut at = region.offset + place.offset;
        while buffer.len() < bytes {
            let part = buffer.extend_zeroed(STEP_BYTES.min(bytes - buffer.len()));
            region
                .file
                .read_exact_at(part, at)
                .map_err(|error| region.failed(&error))?;
            at += part.len() as u64;
            if buffer.len() < bytes {
                tokio::task::yield_now().await;
            }
        }
        Ok(buffer.freeze())
    }

    /// Looks up where outputs go, before the work for them begins.
    pub(crate) fn destinations(&self, placement: &Placement) -> Result<Destinations, ApiError> {
        let find = |(output, place): (&String, &Shared)| {
            let region = self.find(place)?;
            Ok((output.clone(), (region, place.clone())))
        };
        placement.iter().map(find).collect()
    }
}

/// By output.
pub(crate) type Destinations = BTreeMap<String, (Arc<Region>, Shared)>;

/// Copies outputs to where they go.
pub(crate) async fn write(
    destinations: &Destinations,
    response: &InferResponse,
) -> Result<(), ApiError> {
    for output in &response.outputs {
        if let Some((region, place)) = destinations.get(&output.name) {
            let given = output.data.len() as u64;
            if given > place.bytes {
                // Triton's words and code.
                let message = format!(
                    "shared memory size specified with the request for output '{}' ({} bytes) should be at least {given} bytes to hold the results",
                    shown::name(&output.name),
                    place.bytes
                );
                return Err(ApiError::new(ErrorKind::Internal, message));
            }
            region.write(place.offset, &output.data).await?;
        }
    }
    Ok(())
}

impl Region {
    async fn write(&self, offset: u64, data: &[u8]) -> Result<(), ApiError> {
        let mut at = self.offset + offset;
        let size = self.file.metadata().map_err(|error| self.failed(&error))?;
        // Writing past the end would make the object longer, and no client would know.
        if size.len() < at + data.len() as u64 {
            return Err(self.failed(&io::ErrorKind::UnexpectedEof.into()));
        }
        for (index, part) in data.chunks(STEP_BYTES).enumerate() {
            if index > 0 {
                tokio::task::yield_now().await;
            }
            self.file
                .write_all_at(part, at)
                .map_err(|error| self.failed(&error))?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> ApiError {
        let name = shown::name(&self.name);
        if error.kind() == io::ErrorKind::UnexpectedEof {
            let message = format!(
                "shared memory region '{name}' has become smaller than what was registered; register it again"
            );
            return ApiError::invalid(message);
        }
        let message = format!(
            "shared memory region '{name}' cannot be used: {}",
            error.kind()
        );
        ApiError::invalid(message)
    }
}

fn taken(name: &str) -> ApiError {
    let name = shown::name(name);
    let message = format!("shared memory region '{name}' already in manager");
    let error = ApiError::new(ErrorKind::Conflict, message);
    // Triton has 400 for what gRPC calls ALREADY_EXISTS.
    ApiError {
        http: Some(400),
        ..error
    }
}

fn cannot_open(key: &str) -> ApiError {
    let key = shown::name(key);
    ApiError::invalid(format!("Unable to open shared memory region: '{key}'")).with_param("key")
}

/// Opens a shared memory object as `shm_open` does: one name without a slash inside, and no symbolic link.
fn open(key: &str) -> Result<File, ApiError> {
    let name = key.strip_prefix('/').unwrap_or(key);
    let plain = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !matches!(name, "." | "..")
        && !name.contains(['/', '\0']);
    if !plain {
        return Err(cannot_open(key));
    }
    // A pipe would wait for its other end.
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(format!("{FOLDER}/{name}"), flags, Mode::empty())
        .map(File::from)
        .map_err(|_| cannot_open(key))?;
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    if is_file {
        Ok(file)
    } else {
        Err(cannot_open(key))
    }
}

#[cfg(test)]
pub(crate) mod tests;
