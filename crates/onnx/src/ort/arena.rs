//! Memory of one lane's calls.
//!
//! ONNX Runtime gives a session one arena. Where lanes share a session, a call is then given blocks that another core has
//! just written: measured, two lanes of a text detector took 26 % more time for each call than with an arena each. So such
//! sessions take their memory from an allocator of the process, which asks the arena of the lane whose call runs on this
//! thread. That arena is ONNX Runtime's own: of a session made for nothing else, which it outlives.

use std::cell::Cell;
use std::ffi::c_void;
use std::fmt;
use std::mem::transmute;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ort::AsPointer;
use ort::environment::Environment;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::sys::{OrtAllocator, OrtMemoryInfo};

/// A graph that hands its input through, as ONNX has it: format 8, operators 13.
const SMALLEST: &[u8] = b"\x08\x08\x3a\x2b\
    \x0a\x10\x0a\x01x\x12\x01y\x22\x08Identity\
    \x12\x01a\
    \x5a\x09\x0a\x01x\x12\x04\x0a\x02\x08\x01\
    \x62\x09\x0a\x01y\x12\x04\x0a\x02\x08\x01\
    \x42\x02\x10\x0d";

/// ONNX Runtime's functions that allocate throw where they cannot, through ours.
type Alloc = unsafe extern "system-unwind" fn(*mut OrtAllocator, usize) -> *mut c_void;
type PlainAlloc = unsafe extern "system" fn(*mut OrtAllocator, usize) -> *mut c_void;

/// What lies before each block: as large as the alignment that ONNX Runtime's kernels want of the block.
#[repr(C, align(64))]
struct Head {
    /// Counted; null for a block that no lane's call asked for.
    arena: *const Arena,
    bytes: usize,
}

/// A lane looks at what its calls need once in so many.
const CALLS_BETWEEN_LOOKS: u32 = 64;

/// What an arena may hold in vain.
const SPARE_BYTES_MAX: usize = 1 << 20;

const HEAD_BYTES: usize = size_of::<Head>();

thread_local! {
    /// Of the lane whose call runs here.
    static CURRENT: Cell<*const Arena> = const { Cell::new(ptr::null()) };
}

pub(super) struct Arena {
    allocator: Allocator,
    /// Bytes that calls hold, and the most that they held since somebody asked.
    live: AtomicUsize,
    peak: AtomicUsize,
}

#[expect(unsafe_code, reason = "an arena of ONNX Runtime guards itself")]
// SAFETY: the allocator is one of the CPU's, whose functions may be called from any thread at any time: sessions with calls
// at once rely on it. Everything else is atomic.
unsafe impl Sync for Arena {}

impl Arena {
    pub(super) fn new(environment: &Environment) -> ort::Result<Arc<Self>> {
        let session = Session::builder(environment)?.commit_from_memory(SMALLEST)?;
        let memory = MemoryInfo::new(
            AllocationDevice::CPU,
            0,
            AllocatorType::Arena,
            MemoryType::Default,
        )?;
        Ok(Arc::new(Self {
            allocator: Allocator::new(&session, memory)?,
            live: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        }))
    }

    /// Calls on this thread take their memory from here until the guard is dropped.
    pub(super) fn enter(&self) -> Entered<'_> {
        Entered {
            before: CURRENT.replace(self),
            _arena: self,
        }
    }

    /// The most that calls held since this was asked last.
    pub(super) fn peak(&self) -> usize {
        self.peak.swap(self.live.load(Relaxed), Relaxed)
    }

    fn took(&self, bytes: usize) {
        let live = self.live.fetch_add(bytes, Relaxed) + bytes;
        if live > self.peak.load(Relaxed) {
            self.peak.store(live, Relaxed);
        }
    }
}

/// A lane's arena. It keeps the memory of its largest calls, so calls that have become much smaller get another one; the
/// old one's memory goes with the last output in it.
#[derive(Debug)]
pub(super) struct LaneArena {
    environment: Environment,
    arena: Arc<Arena>,
    calls: u32,
    /// The most that calls on this arena have held.
    most: usize,
}

impl LaneArena {
    pub(super) fn new(environment: &Environment) -> ort::Result<Self> {
        Ok(Self {
            environment: environment.clone(),
            arena: Arena::new(environment)?,
            calls: 0,
            most: 0,
        })
    }

    /// For one call.
    pub(super) fn enter(&mut self) -> Entered<'_> {
        self.calls = self.calls.wrapping_add(1);
        if self.calls.is_multiple_of(CALLS_BETWEEN_LOOKS) {
            self.look();
        }
        self.arena.enter()
    }

    fn look(&mut self) {
        let peak = self.arena.peak();
        let spare = self.most.saturating_sub(peak);
        self.most = self.most.max(peak);
        if spare < SPARE_BYTES_MAX || spare < self.most / 2 {
            return;
        }
        match Arena::new(&self.environment) {
            Ok(arena) => (self.arena, self.most) = (arena, 0),
            Err(error) => {
                tracing::debug!(%error, "a lane keeps an arena that is larger than its calls")
            }
        }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("live", &self.live)
            .finish_non_exhaustive()
    }
}

/// A call on this thread.
#[derive(Debug)]
pub(super) struct Entered<'a> {
    before: *const Arena,
    _arena: &'a Arena,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

/// The allocator of the process, for as long as it lives.
#[repr(C)]
struct Process {
    /// First, for its functions are given its address.
    functions: OrtAllocator,
    memory: *const OrtMemoryInfo,
    /// For what no lane's call asks for: weights, mostly.
    plain: *mut OrtAllocator,
}

/// Has sessions of this environment that ask for its allocators use ours. Once for each environment.
#[expect(unsafe_code, reason = "ort has no word for an allocator of one's own")]
pub(super) fn register(environment: &Environment) -> ort::Result<()> {
    let memory = MemoryInfo::new(
        AllocationDevice::CPU,
        0,
        AllocatorType::Device,
        MemoryType::Default,
    )?;
    let memory = Box::leak(Box::new(memory));
    let plain = Box::leak(Box::new(Allocator::default()));
    // SAFETY: plain data; what is called is set below.
    let mut functions = unsafe { OrtAllocator::default() };
    // SAFETY: the two types differ only in what may unwind, and its caller is C++ that expects an allocator to throw.
    functions.Alloc = Some(unsafe { transmute::<Alloc, PlainAlloc>(allocate) });
    functions.Free = Some(free);
    functions.Info = Some(info);
    let process = Box::leak(Box::new(Process {
        functions,
        memory: memory.ptr(),
        plain: plain.ptr().cast_mut(),
    }));
    let register = ort::api().RegisterAllocator;
    let process = ptr::from_mut(process).cast();
    // SAFETY: both are valid for as long as the process lives.
    let status = unsafe { register(environment.ptr().cast_mut(), process) };
    // SAFETY: the status came from the call above and is read once.
    unsafe { ort::Error::result_from_status(status) }
}

/// # Safety
/// As ONNX Runtime calls an allocator: `this` is the one that was registered. Nothing here has a destructor that an exception
/// would have to run.
#[expect(unsafe_code, reason = "called by ONNX Runtime")]
unsafe extern "system-unwind" fn allocate(this: *mut OrtAllocator, bytes: usize) -> *mut c_void {
    if bytes == 0 {
        return ptr::null_mut();
    }
    let arena = CURRENT.get();
    // SAFETY: who set it borrows the arena until it is taken back.
    let lane = unsafe { arena.as_ref() };
    let from = match lane {
        Some(lane) => lane.allocator.ptr().cast_mut(),
        // SAFETY: `this` is a `Process`, by its first field.
        None => unsafe { (*this.cast::<Process>()).plain },
    };
    // SAFETY: an allocator of ONNX Runtime.
    let Some(alloc) = (unsafe { (*from).Alloc }) else {
        return ptr::null_mut();
    };
    // SAFETY: the types differ only in what may unwind; this one is C++ that may throw.
    let alloc = unsafe { transmute::<PlainAlloc, Alloc>(alloc) };
    // SAFETY: as ONNX Runtime itself calls it. What is too large for it, it refuses.
    let block = unsafe { alloc(from, bytes.saturating_add(HEAD_BYTES)) };
    if block.is_null() {
        return block;
    }
    if let Some(lane) = lane {
        lane.took(bytes);
        // SAFETY: the arena is in an `Arc`; `free` takes this count back.
        unsafe { Arc::increment_strong_count(arena) };
    }
    // SAFETY: the block begins with room for this, on a boundary of 64 bytes as all that ONNX Runtime allocates.
    unsafe { block.cast::<Head>().write(Head { arena, bytes }) };
    // SAFETY: within the block.
    unsafe { block.byte_add(HEAD_BYTES) }
}

/// # Safety
/// As ONNX Runtime calls an allocator: `block` is null or came from `allocate`, and is freed once.
#[expect(unsafe_code, reason = "called by ONNX Runtime")]
unsafe extern "system" fn free(this: *mut OrtAllocator, block: *mut c_void) {
    if block.is_null() {
        return;
    }
    // SAFETY: `allocate` put it there.
    let head = unsafe { block.byte_sub(HEAD_BYTES) }.cast::<Head>();
    // SAFETY: as above.
    let Head { arena, bytes } = unsafe { head.read() };
    // SAFETY: counted by `allocate`, and not yet taken back.
    let lane = (!arena.is_null()).then(|| unsafe { Arc::from_raw(arena) });
    let from = match &lane {
        Some(lane) => {
            lane.live.fetch_sub(bytes, Relaxed);
            lane.allocator.ptr().cast_mut()
        }
        // SAFETY: `this` is a `Process`, by its first field.
        None => unsafe { (*this.cast::<Process>()).plain },
    };
    // SAFETY: an allocator of ONNX Runtime.
    if let Some(free) = unsafe { (*from).Free } {
        // SAFETY: the block is this allocator's, from its beginning.
        unsafe { free(from, head.cast()) };
    }
}

/// # Safety
/// As ONNX Runtime calls an allocator.
#[expect(unsafe_code, reason = "called by ONNX Runtime")]
unsafe extern "system" fn info(this: *const OrtAllocator) -> *const OrtMemoryInfo {
    // SAFETY: `this` is a `Process`, by its first field.
    unsafe { (*this.cast::<Process>()).memory }
}

#[cfg(test)]
mod tests;
