use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

/// A few small files that people and tools change: by writing, by renaming over them, by swapping a link on the way to
/// them (as Kubernetes mounts configuration).
///
/// What the system tells (inotify) says when to look; whether anything has changed is decided by the contents. Where the
/// system tells nothing (network file systems) they are looked at every [`POLL`].
#[derive(Debug)]
pub struct FileWatch {
    paths: Vec<PathBuf>,
    events: Option<AsyncFd<OwnedFd>>,
    /// What [`FileWatch::changed`] compares with; none before the first look.
    seen: Option<Vec<Content>>,
    poll: Duration,
}

/// Nobody waits longer for a change that the system does not tell of.
const POLL: Duration = Duration::from_secs(5);

/// Editors and tools do several things for one change: so long nothing more must happen.
const QUIET: Duration = Duration::from_millis(10);

/// In a folder where others never pause.
const QUIET_MAX: Duration = Duration::from_millis(500);

/// Two equal looks this far apart: somebody may be writing, and the system did not tell.
const UNTOLD: Duration = Duration::from_millis(200);

/// What is larger is no configuration, and compared by its beginning.
const BYTES_MAX: u64 = 16 << 20;

/// Links that are followed from one file; the kernel's own limit is 40.
const LINKS_MAX: usize = 8;

/// A file as it was: its bytes, or that it could not be read.
type Content = Result<Vec<u8>, io::ErrorKind>;

impl FileWatch {
    /// Must be called within a runtime.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let events = open().inspect_err(|error| {
            tracing::info!(%error, "the system does not tell of changed files; they are looked at now and then");
        });
        Self {
            paths,
            events: events.ok(),
            seen: None,
            poll: POLL,
        }
    }

    /// Watches other files from now on.
    pub fn watch(&mut self, paths: Vec<PathBuf>) {
        if self.paths != paths {
            self.paths = paths;
            self.seen = None;
        }
    }

    /// Returns when the contents are others than at the last return; the first time at once. Cancel-safe.
    pub async fn changed(&mut self) {
        loop {
            // Before looking: what happens after it is told, what happened before it is seen.
            self.arm();
            let now = look(&self.paths).await;
            if self.seen.as_ref() != Some(&now) {
                let settled = self.seen.is_none() || self.settled(&now).await;
                if settled {
                    self.seen = Some(now);
                    return;
                }
                continue;
            }
            self.wait().await;
        }
    }

    /// Whether a change is whole.
    async fn settled(&self, now: &[Content]) -> bool {
        if self.events.is_some()
            && now
                .iter()
                .all(|content| content.as_ref().is_ok_and(|bytes| !bytes.is_empty()))
        {
            return true;
        }
        // Nobody told, or a file is empty or gone, as it is for a moment while some tools write.
        sleep(UNTOLD).await;
        look(&self.paths).await == now
    }

    /// Until something happens near the files, or it is time to look.
    async fn wait(&self) {
        let Some(events) = &self.events else {
            return sleep(self.poll).await;
        };
        if timeout(self.poll, readable(events)).await.is_ok() {
            let quiet = async { while timeout(QUIET, readable(events)).await.is_ok() {} };
            let _busy_folder = timeout(QUIET_MAX, quiet).await;
        }
    }

    /// Watches every folder in which something may change that is on the way to one of the files.
    fn arm(&self) {
        let Some(events) = &self.events else { return };
        let folders: BTreeSet<PathBuf> = self.paths.iter().flat_map(|path| folders(path)).collect();
        for folder in folders {
            let flags = WatchFlags::CREATE
                | WatchFlags::CLOSE_WRITE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::ONLYDIR;
            // Again does no harm; one that cannot be watched is looked at now and then.
            if let Err(error) = inotify::add_watch(events.get_ref(), &folder, flags) {
                tracing::debug!(folder = %folder.display(), %error, "cannot watch a folder");
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "what `register` needs unsafe for, an `OwnedFd` guarantees by its type"
)]
fn open() -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?)
}

/// Waits for messages and throws them away: they only say that it is worth looking.
async fn readable(events: &AsyncFd<OwnedFd>) {
    let Ok(mut ready) = events.readable().await else {
        return std::future::pending().await;
    };
    let mut buffer = [MaybeUninit::uninit(); 4 << 10];
    let mut reader = Reader::new(events.get_ref(), &mut buffer);
    while reader.next().is_ok() {}
    ready.clear_ready();
}

/// The folder of the file, and those of every link on the way to it.
fn folders(path: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        folders.push(folder.clone());
        let Ok(target) = fs::read_link(&path) else {
            break;
        };
        path = folder.join(target);
    }
    folders
}

/// On a thread that may wait: the files may be on a network.
async fn look(paths: &[PathBuf]) -> Vec<Content> {
    let paths = paths.to_owned();
    let read =
        tokio::task::spawn_blocking(move || paths.iter().map(|path| content(path)).collect());
    // Only a runtime that ends drops it.
    read.await.unwrap_or_default()
}

fn content(path: &Path) -> Content {
    let read = || {
        let mut bytes = Vec::new();
        fs::File::open(path)?
            .take(BYTES_MAX)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error: io::Error| error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than anything here takes, shorter than [`POLL`]: what is seen in time was told by the system.
    const TOLD: Duration = Duration::from_secs(4);

    async fn told(watch: &mut FileWatch, what: &str) {
        assert!(timeout(TOLD, watch.changed()).await.is_ok(), "{what}");
    }

    #[tokio::test]
    async fn a_file_may_be_written_renamed_over_removed_and_made_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kapok.yaml");
        fs::write(&path, "a").expect("ours");
        let mut watch = FileWatch::new(vec![path.clone()]);
        told(&mut watch, "the first look").await;
        fs::write(&path, "b").expect("ours");
        told(&mut watch, "written").await;
        let aside = folder.path().join(".kapok.yaml.swp");
        fs::write(&aside, "c").expect("ours");
        fs::rename(&aside, &path).expect("ours");
        told(&mut watch, "renamed over").await;
        fs::remove_file(&path).expect("ours");
        told(&mut watch, "removed").await;
        fs::write(&path, "c").expect("ours");
        told(&mut watch, "made anew").await;
        fs::write(folder.path().join("other"), "x").expect("ours");
        fs::write(&path, "c").expect("ours");
        let same = timeout(Duration::from_millis(100), watch.changed()).await;
        assert!(same.is_err(), "the same content is no change");
    }

    #[tokio::test]
    async fn links_are_swapped_as_kubernetes_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for (generation, content) in [("..1", "a"), ("..2", "b"), ("..3", "c")] {
            fs::create_dir(at(generation)).expect("ours");
            fs::write(at(generation).join("kapok.yaml"), content).expect("ours");
        }
        let link = std::os::unix::fs::symlink::<&str, PathBuf>;
        link("..1", at("..data")).expect("ours");
        link("..data/kapok.yaml", at("kapok.yaml")).expect("ours");
        let mut watch = FileWatch::new(vec![at("kapok.yaml")]);
        told(&mut watch, "the first look").await;
        for generation in ["..2", "..3"] {
            link(generation, at("..data_tmp")).expect("ours");
            fs::rename(at("..data_tmp"), at("..data")).expect("ours");
            told(&mut watch, generation).await;
        }
    }

    #[tokio::test]
    async fn a_link_to_another_folder_is_followed() {
        let (near, far) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        let (link, file) = (near.path().join("kapok.yaml"), far.path().join("real.yaml"));
        fs::write(&file, "a").expect("ours");
        std::os::unix::fs::symlink(&file, &link).expect("ours");
        let mut watch = FileWatch::new(vec![link]);
        told(&mut watch, "the first look").await;
        fs::write(&file, "b").expect("ours");
        told(&mut watch, "written behind the link").await;
    }

    #[tokio::test]
    async fn without_messages_from_the_system_changes_are_found_by_looking() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kapok.yaml");
        fs::write(&path, "a").expect("ours");
        let mut watch = FileWatch::new(vec![path.clone()]);
        watch.events = None;
        watch.poll = Duration::from_millis(5);
        watch.changed().await;
        fs::write(&path, "b").expect("ours");
        watch.changed().await;
        assert_eq!(watch.seen, Some(vec![Ok(b"b".to_vec())]));
    }
}
