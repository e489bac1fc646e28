use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// Deeper folders belong to no model.
const DEPTH_MAX: usize = 8;
/// More files than this are not a model, and looking at them all would take long.
const FILES_MAX: usize = 100_000;

/// What a folder's files look like from outside: enough to see a change without reading them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp(BTreeMap<PathBuf, Look>);

/// Length, time of change in nanoseconds, inode: a link that points elsewhere is another inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look(u64, i128, u64);

impl Look {
    fn of(data: &Metadata) -> Self {
        let nanoseconds = i128::from(data.mtime()) * 1_000_000_000 + i128::from(data.mtime_nsec());
        Self(data.len(), nanoseconds, data.ino())
    }
}

impl Stamp {
    /// None when there is no such folder, or it changes while being looked at.
    pub(crate) fn of(folder: &Path) -> Option<Self> {
        let mut looks = BTreeMap::new();
        for path in files(folder).ok()? {
            looks.insert(
                path.clone(),
                Look::of(&fs::metadata(folder.join(path)).ok()?),
            );
        }
        Some(Self(looks))
    }

    /// Bytes of the files under a sub-folder of it.
    pub(crate) fn bytes(&self, under: &Path) -> u64 {
        let inside = self.0.iter().filter(|(path, _)| path.starts_with(under));
        inside.map(|(_, look)| look.0).sum()
    }
}

/// Every visible file under a folder, as seen from it, in order. Names that begin with `.` are files being written by
/// copying tools, or the machinery of mounted volumes.
pub(crate) fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![(PathBuf::new(), 0)];
    while let Some((inside, depth)) = open.pop() {
        for entry in fs::read_dir(folder.join(&inside))? {
            let name = entry?.file_name();
            if name.to_string_lossy().starts_with('.') {
                continue;
            }
            let path = inside.join(name);
            // Links are followed: engines follow them, too.
            match fs::metadata(folder.join(&path)) {
                Ok(data) if data.is_dir() => {
                    if depth < DEPTH_MAX {
                        open.push((path, depth + 1));
                    }
                }
                Ok(_) => found.push(path),
                // Gone already, or a link to nothing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if found.len() > FILES_MAX {
            return Err(io::Error::other("more than 100,000 files"));
        }
    }
    found.sort();
    Ok(found)
}

/// SHA-256 of a file's content.
pub(crate) fn hash_file(path: &Path) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    hash_into(path, &mut hash)?;
    Ok(hash.finalize().into())
}

/// One hash of files' names and contents.
pub(crate) fn hash_files<'a>(
    folder: &Path,
    files: impl IntoIterator<Item = &'a PathBuf>,
) -> io::Result<[u8; 32]> {
    let mut all = Sha256::new();
    for path in files {
        all.update(path.as_os_str().as_encoded_bytes());
        all.update([0]);
        all.update(hash_file(&folder.join(path))?);
    }
    Ok(all.finalize().into())
}

/// Adds a file's content to a hash.
pub(crate) fn hash_into(path: &Path, hash: &mut Sha256) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut chunk = vec![0; 1 << 18];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(()),
            count => hash.update(&chunk[..count]),
        }
    }
}
