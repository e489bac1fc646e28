//! What loading a model leaves behind.

use std::ffi::CStr;
use std::fs;
use std::path::Path;
use std::ptr;

use parking_lot::Mutex;

/// Gives freed memory back to the system. Loading parses, folds and packs: the C library keeps what that freed, measured
/// 57 MB for a sentence model of 120 MB, and giving it back takes 1 to 5 ms. rten's part is jemalloc's.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "only allocators know what they keep")]
pub fn give_back() {
    /// `arena.4096` is all arenas: <https://jemalloc.net/jemalloc.3.html#arena.i.purge>.
    const PURGE: &CStr = c"arena.4096.purge";
    // SAFETY: may be called at any time from any thread; it touches free memory only.
    unsafe { libc::malloc_trim(0) };
    // SAFETY: the name ends in NUL; nothing is read and nothing written; it touches free memory only.
    let failed = unsafe {
        tikv_jemalloc_sys::mallctl(
            PURGE.as_ptr(),
            ptr::null_mut(),
            ptr::null_mut(),
            ptr::null_mut(),
            0,
        )
    };
    if failed != 0 {
        tracing::debug!(failed, "jemalloc keeps what was freed for some seconds");
    }
}

#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

/// Has large blocks go back to the system when they are freed, for a process whose memory is budgeted. The C library would
/// raise this limit to 32 MiB by itself and keep what calls and unloaded models leave, in pieces that no trimming finds.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "only the C library knows what it keeps")]
pub fn keep_little() {
    const BLOCK_BYTES: libc::c_int = 128 << 10;
    // SAFETY: may be called at any time; it changes where later blocks come from.
    let changed = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, BLOCK_BYTES) };
    if changed == 0 {
        tracing::debug!("the C library keeps its own way with large blocks");
    }
}

#[cfg(not(target_env = "gnu"))]
pub fn keep_little() {}

/// Who loads at this moment, and how many loads ever began.
static LOADS: Mutex<Loads> = Mutex::new(Loads {
    running: 0,
    begun: 0,
});

struct Loads {
    running: u32,
    begun: u64,
}

/// Measures what one load adds to the process.
#[derive(Debug)]
pub(crate) struct Meter {
    before: u64,
    /// The number of this load; none when another one was running.
    alone: Option<u64>,
}

impl Meter {
    pub(crate) fn start() -> Self {
        let mut loads = LOADS.lock();
        loads.running += 1;
        loads.begun += 1;
        let alone = (loads.running == 1).then_some(loads.begun);
        drop(loads);
        Self {
            before: anonymous(),
            alone,
        }
    }

    /// Bytes that the model holds: what the process grew by if nothing else loaded meanwhile, and never less than its
    /// file, whose weights are in memory in some form.
    pub(crate) fn stop(self, model: &Path) -> u64 {
        give_back();
        let grown = anonymous().saturating_sub(self.before);
        let undisturbed = self.alone == Some(LOADS.lock().begun);
        let file = weights(model);
        if undisturbed { grown.max(file) } else { file }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        LOADS.lock().running -= 1;
    }
}

/// The process's own memory, without what is mapped from files.
fn anonymous() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// The file, and what lies beside it: weights may be kept in files of their own.
fn weights(model: &Path) -> u64 {
    let entries = model.parent().and_then(|folder| fs::read_dir(folder).ok());
    let lengths = entries.into_iter().flatten().flatten().filter_map(|entry| {
        let data = fs::metadata(entry.path()).ok()?;
        data.is_file().then_some(data.len())
    });
    lengths.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_weighs_at_least_its_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let model = folder.path().join("model.onnx");
        fs::write(&model, vec![0; 1000]).expect("a file");
        fs::write(folder.path().join("weights.bin"), vec![0; 500]).expect("a file");
        let (first, second) = (Meter::start(), Meter::start());
        assert_eq!(
            second.stop(&model),
            1500,
            "two loads at once are not told apart"
        );
        assert!(first.stop(&model) >= 1500);
    }
}
