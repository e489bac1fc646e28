//! What the tool knows of the machine around it: the checkout, the cache folder, the environment, the time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

/// The checkout this tool was built from.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// The build folder, wherever cargo was told to put it.
pub(crate) fn target() -> PathBuf {
    env("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// An environment variable that is set and not empty.
#[expect(
    clippy::disallowed_methods,
    reason = "the tools have no configuration file; this is their one reader of the environment"
)]
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `--cache`, `KAPOK_CACHE`, or `kapok` in the user's cache folder. kapok itself looks in the same place.
pub(crate) fn cache_dir(flag: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(dir) = flag.or_else(|| env("KAPOK_CACHE").map(PathBuf::from)) {
        return std::path::absolute(&dir)
            .with_context(|| format!("cannot resolve `{}`", dir.display()));
    }
    let base = env("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env("HOME")?).join(".cache")));
    Ok(base
        .context("neither KAPOK_CACHE, XDG_CACHE_HOME nor HOME is set: pass --cache DIR")?
        .join("kapok"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the tools measure real time only"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "stamps results with the date")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// Looks again every 20 ms until `ready` answers or the time is up.
pub(crate) fn poll<T>(limit: Duration, ready: impl FnMut() -> Option<T>) -> Option<T> {
    poll_every(Duration::from_millis(20), limit, ready)
}

#[expect(clippy::disallowed_methods, reason = "there is no executor here")]
pub(crate) fn poll_every<T>(
    pause: Duration,
    limit: Duration,
    mut ready: impl FnMut() -> Option<T>,
) -> Option<T> {
    let deadline = now() + limit;
    loop {
        if let Some(value) = ready() {
            return Some(value);
        }
        if now() >= deadline {
            return None;
        }
        std::thread::sleep(pause);
    }
}

/// Returns at once when it is later already.
#[expect(clippy::disallowed_methods, reason = "there is no executor here")]
pub(crate) fn sleep_until(at: Instant) {
    std::thread::sleep(at.saturating_duration_since(now()));
}
