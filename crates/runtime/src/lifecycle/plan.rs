//! What a load is going to make: which folder, which configuration, which versions.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use protocol::{LoadRequest, stays_inside};
use sha2::{Digest as _, Sha256};

use super::stamp::{self, Stamp};
use crate::definition::Definition;
use crate::repository::{self, Found, select};
use crate::runtime::Inner;
use crate::verify::elsewhere;

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) found: Found,
    pub(crate) definition: Definition,
    /// In ascending order, one at least.
    pub(crate) versions: Vec<u64>,
    pub(crate) stamp: Stamp,
    pub(crate) over: Option<Arc<Override>>,
}

/// Why there is no plan.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) reason: String,
    pub(crate) stamp: Option<Stamp>,
    /// The version to say it of.
    pub(crate) latest: u64,
    /// There is no folder of this name at all.
    pub(crate) gone: bool,
}

/// A configuration, and perhaps files, that a client gave instead of the folder's.
#[derive(Debug)]
pub(crate) struct Override {
    config: Option<String>,
    files: Option<Scratch>,
}

/// A folder for this process alone, removed when the model that it holds is freed.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "cannot remove the files of an overridden model");
        }
    }
}

/// Tells the folders of this process apart.
static FOLDERS: AtomicU64 = AtomicU64::new(0);

impl Override {
    /// None when the request asks for what is on disk.
    pub(crate) fn of(inner: &Inner, request: &LoadRequest) -> Result<Option<Arc<Self>>, String> {
        if request.config.is_none() && request.files.is_empty() {
            return Ok(None);
        }
        let files = if request.files.is_empty() {
            None
        } else {
            Some(keep(&inner.settings.scratch, &request.files)?)
        };
        let config = request.config.clone();
        Ok(Some(Arc::new(Self { config, files })))
    }
}

/// Writes a client's files where nobody else can read or change them.
fn keep(scratch: &Path, files: &BTreeMap<String, Bytes>) -> Result<Scratch, String> {
    let mut private = fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    let failed = |error: std::io::Error| format!("cannot keep the files: {error}");
    private.create(scratch).map_err(failed)?;
    ours(scratch)?;
    // Not recursive: a folder that is there already is another process's, or was left by one that was killed.
    private.recursive(false);
    let folder = loop {
        let count = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder = scratch.join(format!("{}-{count}", std::process::id()));
        match private.create(&folder) {
            Ok(()) => break folder,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
    };
    let kept = Scratch(folder);
    private.recursive(true);
    for (name, content) in files {
        let inside = Path::new(name.strip_prefix("file:").unwrap_or(name));
        if !stays_inside(inside) {
            return Err(format!("the file path `{name}` leaves the model's folder"));
        }
        let path = kept.0.join(inside);
        if let Some(parent) = path.parent() {
            private.create(parent).map_err(failed)?;
        }
        fs::write(&path, content).map_err(failed)?;
    }
    Ok(kept)
}

/// Whether nobody else can have put anything there: whoever may write beside our folders could have made them first.
fn ours(scratch: &Path) -> Result<(), String> {
    let user = rustix::process::getuid().as_raw();
    // A cache folder is its owner's business; what lies in memory lies beside everybody's.
    let above = scratch
        .parent()
        .filter(|above| above.starts_with("/dev/shm"));
    for folder in [Some(scratch), above].into_iter().flatten() {
        let found = fs::symlink_metadata(folder).map_err(|error| error.to_string())?;
        let shared = found.mode() & 0o022 != 0;
        if !found.is_dir() || shared || ![0, user].contains(&found.uid()) {
            return Err(format!(
                "`{}` belongs to somebody else or is open to others; name a cache folder in KAPOK_CACHE",
                folder.file_name().unwrap_or_default().to_string_lossy()
            ));
        }
    }
    Ok(())
}

impl Plan {
    pub(crate) fn read(
        inner: &Inner,
        model: &str,
        over: Option<Arc<Override>>,
    ) -> Result<Self, Refused> {
        let scratch = over.as_ref().and_then(|over| over.files.as_ref());
        let found = match scratch {
            Some(Scratch(folder)) => Some(repository::look_into(model.to_owned(), folder.clone())),
            None => repository::find(&inner.settings.repositories, model),
        };
        let Some(found) = found else {
            return Err(Refused {
                reason: "there is no folder of this name".to_owned(),
                stamp: None,
                latest: 1,
                gone: true,
            });
        };
        let stamp = Stamp::of(&found.folder);
        let refused = |reason: String| Refused {
            reason,
            stamp: stamp.clone(),
            latest: found.latest(),
            gone: false,
        };
        if let Some(problem) = &found.problem {
            return Err(refused(problem.clone()));
        }
        let config = over.as_ref().and_then(|over| over.config.as_deref());
        let wanted =
            Definition::read(&found, config, &inner.settings.terms).and_then(|definition| {
                let policy = definition.config().version_policy;
                let versions = select(&found.versions, policy.as_ref())?;
                Ok((definition, versions))
            });
        let (definition, versions) = wanted.map_err(&refused)?;
        let stamp = stamp
            .clone()
            .ok_or_else(|| refused("the model's folder changes while it is read".to_owned()))?;
        Ok(Self {
            found,
            definition,
            versions,
            stamp,
            over,
        })
    }

    /// One hash of all that a version is made from.
    pub(crate) fn digest(&self, number: u64) -> Result<[u8; 32], String> {
        let unreadable = |error: std::io::Error| format!("cannot read the model's folder: {error}");
        let files = stamp::files(&self.found.folder).map_err(unreadable)?;
        let own = files
            .iter()
            .filter(|path| !elsewhere(path, &self.found, number));
        let content = stamp::hash_files(&self.found.folder, own).map_err(unreadable)?;
        let mut digest = Sha256::new();
        digest.update(content);
        if let Some(config) = self.over.as_ref().and_then(|over| over.config.as_ref()) {
            digest.update(config);
        }
        Ok(digest.finalize().into())
    }

    /// Bytes of a version's files.
    pub(crate) fn bytes(&self, number: u64) -> u64 {
        let folder = self.found.versions.get(&number);
        let inside = folder.and_then(|folder| folder.strip_prefix(&self.found.folder).ok());
        inside.map_or(0, |inside| self.stamp.bytes(inside))
    }

    /// Whether the folder is still what it was when the plan was made.
    pub(crate) fn holds(&self) -> bool {
        Stamp::of(&self.found.folder).as_ref() == Some(&self.stamp)
    }
}
