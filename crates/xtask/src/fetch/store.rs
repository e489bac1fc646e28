//! The cache folder: where each file belongs, whether it is there and right, and putting it there whole.

use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::catalogue::{self, Entry, Kind};

#[derive(Debug, Clone)]
pub(crate) struct Store {
    dir: PathBuf,
}

/// What a file must be.
#[derive(Debug, Clone)]
pub(crate) struct Expected<'a> {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) sha256: &'a str,
}

impl Store {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(crate) fn downloads(&self) -> PathBuf {
        self.dir.join("downloads")
    }

    /// A Triton-style repository of every fetched model.
    pub(crate) fn models(&self) -> PathBuf {
        self.dir.join("models")
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn entry_dir(&self, entry: &Entry) -> PathBuf {
        match entry.kind {
            Kind::Model => self.models().join(&entry.name),
            Kind::File | Kind::Python => self.raw_dir(entry),
            Kind::Library => self.dir.join("lib"),
        }
    }

    fn raw_dir(&self, entry: &Entry) -> PathBuf {
        self.dir.join("files").join(&entry.name)
    }

    pub(crate) fn expected<'a>(&self, entry: &Entry, file: &'a catalogue::File) -> Expected<'a> {
        let dir = if file.raw {
            self.raw_dir(entry)
        } else {
            self.entry_dir(entry)
        };
        Expected {
            path: dir.join(&file.path),
            bytes: file.bytes,
            sha256: &file.sha256,
        }
    }

    /// One `cargo xtask fetch` at a time; others wait. Held until the answer is dropped.
    pub(crate) fn lock(&self) -> Result<File> {
        fs::create_dir_all(self.downloads())
            .with_context(|| format!("cannot create `{}`", self.dir.display()))?;
        let path = self.dir.join(".lock");
        let file =
            File::create(&path).with_context(|| format!("cannot write `{}`", path.display()))?;
        if file.try_lock().is_err() {
            eprintln!("waiting for another fetch into {}", self.dir.display());
            file.lock()?;
        }
        Ok(file)
    }

    /// Whether the file is there with the right contents. Hashed once; afterwards its size and time stand for it.
    pub(crate) fn present(&self, expected: &Expected<'_>) -> Result<bool> {
        let Some(stamp) = stamp_of(expected) else {
            return Ok(false);
        };
        let stamp_path = self.stamp_path(expected);
        if fs::read_to_string(&stamp_path).is_ok_and(|seen| seen == stamp) {
            return Ok(true);
        }
        if sha256_of(&expected.path)? != expected.sha256 {
            eprintln!(
                "  {} has another checksum: fetching it anew",
                expected.path.display()
            );
            return Ok(false);
        }
        fs::create_dir_all(stamp_path.parent().unwrap_or(&self.dir))?;
        fs::write(stamp_path, stamp)?;
        Ok(true)
    }

    fn stamp_path(&self, expected: &Expected<'_>) -> PathBuf {
        let inside = expected
            .path
            .strip_prefix(&self.dir)
            .unwrap_or(&expected.path);
        let name = inside.to_string_lossy().replace('/', "+");
        self.dir.join("stamps").join(name)
    }

    /// Copies `from` to its place, checking size and SHA-256 on the way; nothing incomplete is ever seen there.
    pub(crate) fn place(&self, from: &mut dyn Read, expected: &Expected<'_>) -> Result<()> {
        let parent = expected.path.parent().unwrap_or(&self.dir);
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create `{}`", parent.display()))?;
        let mut name = expected.path.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        let mut out =
            File::create(&new).with_context(|| format!("cannot write `{}`", new.display()))?;
        let mut hasher = Sha256::new();
        let mut limited = from.take(expected.bytes + 1);
        let mut buffer = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            let read = limited.read(&mut buffer)?;
            let chunk = buffer.get(..read).unwrap_or_default();
            if chunk.is_empty() {
                break;
            }
            bytes += read as u64;
            hasher.update(chunk);
            out.write_all(chunk)?;
        }
        let have = hex(&hasher.finalize());
        if bytes != expected.bytes || have != expected.sha256 {
            fs::remove_file(&new)?;
        }
        ensure!(
            bytes == expected.bytes,
            "{} bytes expected, this has {bytes} or more",
            expected.bytes
        );
        ensure!(
            have == expected.sha256,
            "SHA-256 {} expected, this has {have}",
            expected.sha256
        );
        out.sync_all()?;
        fs::rename(&new, &expected.path)?;
        ensure!(
            self.present(expected)?,
            "`{}` changed while it was placed",
            expected.path.display()
        );
        Ok(())
    }
}

/// Size, modification time and checksum; none when the file is missing or has another size.
fn stamp_of(expected: &Expected<'_>) -> Option<String> {
    let meta = fs::metadata(&expected.path).ok()?;
    let modified = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    (meta.len() == expected.bytes)
        .then(|| format!("{} {} {}", meta.len(), modified.as_nanos(), expected.sha256))
}

pub(crate) fn sha256_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher)?;
    Ok(hex(&hasher.finalize()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a small text file only when it says something else.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

#[cfg(test)]
mod tests;
