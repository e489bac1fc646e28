//! Whether a model's files are the ones that were meant: a manifest of SHA-256 hashes, perhaps signed (minisign, Ed25519).
//!
//! The manifest is what `sha256sum` writes, in the version's folder or else in the model's, and names every file beside
//! it and below: a file that it does not know is refused like one that differs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Component, Path, PathBuf};

use minisign_verify::{PublicKey, Signature};
use protocol::sidecar::Integrity;
use protocol::stays_inside;

use crate::lifecycle::{files, hash_file};
use crate::repository::{Found, version_number};

/// A manifest of 100,000 files stays below this.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// What a version's files are checked against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check<'a> {
    pub(crate) integrity: &'a Integrity,
    /// The node's own key, which no model's folder can change.
    pub(crate) node_key: Option<&'a str>,
}

impl Check<'_> {
    /// Says what is wrong with one version, or nothing.
    pub(crate) fn version(&self, found: &Found, number: u64) -> Result<(), String> {
        let name = &self.integrity.manifest;
        let shown = name.display();
        let Some(base) = self.base(found, number) else {
            return if self.node_key.is_some() {
                // Only from there does it cover the configuration.
                Err(format!(
                    "there is no `{shown}` in the model's folder, and this node loads signed models only"
                ))
            } else if self.integrity.required || self.integrity.public_key.is_some() {
                Err(format!(
                    "[integrity] asks for a manifest, and there is no `{shown}`"
                ))
            } else {
                Ok(())
            };
        };
        let text =
            read(&base.join(name)).map_err(|error| format!("cannot read `{shown}`: {error}"))?;
        for key in [self.node_key, self.integrity.public_key.as_deref()]
            .into_iter()
            .flatten()
        {
            signed(&base.join(name), &text, key)?;
        }
        let listed =
            parse(&text).map_err(|(line, error)| format!("`{shown}`, line {line}: {error}"))?;
        let relevant = |path: &PathBuf| base != found.folder || !elsewhere(path, found, number);
        matches(&base, name, &listed, relevant)
    }

    /// The folder whose manifest counts for a version.
    fn base(&self, found: &Found, number: u64) -> Option<PathBuf> {
        let version = found
            .versions
            .get(&number)
            .filter(|_| self.node_key.is_none());
        version
            .into_iter()
            .chain([&found.folder])
            .find(|folder| folder.join(&self.integrity.manifest).is_file())
            .cloned()
    }
}

/// Whether manifests say that the model's folder is complete: there is one for each version, and all match. Signatures do
/// not matter here.
pub(crate) fn whole(found: &Found) -> bool {
    let integrity = Integrity::default();
    let check = Check {
        integrity: &integrity,
        node_key: None,
    };
    found
        .versions
        .keys()
        .all(|number| check.base(found, *number).is_some() && check.version(found, *number).is_ok())
}

fn read(path: &Path) -> std::io::Result<String> {
    if fs::metadata(path)?.len() > MANIFEST_BYTES_MAX {
        return Err(std::io::Error::other("larger than 16 MiB"));
    }
    fs::read_to_string(path)
}

/// In the folder of another version.
pub(crate) fn elsewhere(path: &Path, found: &Found, number: u64) -> bool {
    let first = path.components().next().map(Component::as_os_str);
    let version = first.and_then(|name| version_number(name.to_str()?));
    version.is_some_and(|version| version != number && found.versions.contains_key(&version))
}

fn signed(manifest: &Path, text: &str, key: &str) -> Result<(), String> {
    let mut file = manifest.to_owned().into_os_string();
    file.push(".minisig");
    let file = PathBuf::from(file);
    let shown = file.file_name().unwrap_or_default().display().to_string();
    let signature = read(&file).map_err(|error| {
        format!("the manifest must be signed, and `{shown}` cannot be read: {error}")
    })?;
    let refused =
        |error: minisign_verify::Error| format!("`{shown}` does not sign the manifest: {error}");
    let signature = Signature::decode(&signature).map_err(refused)?;
    let key = PublicKey::from_base64(key)
        .map_err(|error| format!("the public key is no minisign key: {error}"))?;
    key.verify(text.as_bytes(), &signature, true)
        .map_err(refused)
}

type Listed = BTreeMap<PathBuf, String>;

/// `<64 hex digits> <space or *><path>`; blank lines are skipped. The error names its line.
fn parse(text: &str) -> Result<Listed, (usize, String)> {
    let mut listed = Listed::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |message: &str| (index + 1, message.to_owned());
        let (hash, path) = line
            .split_once(' ')
            .ok_or_else(|| wrong("not `<sha256>  <file>`"))?;
        let hex = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hex {
            return Err(wrong("a SHA-256 hash is 64 hex digits"));
        }
        let path = path.strip_prefix([' ', '*']).unwrap_or(path);
        let path: PathBuf = Path::new(path)
            .components()
            .filter(|part| *part != Component::CurDir)
            .collect();
        if !stays_inside(&path) {
            return Err(wrong("the file is not below the manifest"));
        }
        if listed.insert(path, hash.to_ascii_lowercase()).is_some() {
            return Err(wrong("the file is named twice"));
        }
    }
    Ok(listed)
}

fn matches(
    base: &Path,
    manifest: &Path,
    listed: &Listed,
    relevant: impl Fn(&PathBuf) -> bool,
) -> Result<(), String> {
    let mut signature = manifest.to_owned().into_os_string();
    signature.push(".minisig");
    let own = |path: &PathBuf| path == manifest || path.as_os_str() == signature;
    let on_disk: BTreeSet<PathBuf> = files(base)
        .map_err(|error| format!("cannot read the model's folder: {error}"))?
        .into_iter()
        .filter(|path| relevant(path) && !own(path))
        .collect();
    let name = manifest.display();
    if let Some(stranger) = on_disk.iter().find(|path| !listed.contains_key(*path)) {
        return Err(format!("`{}` is not in `{name}`", stranger.display()));
    }
    for (path, expected) in listed.iter().filter(|(path, _)| relevant(path)) {
        let shown = path.display();
        if !on_disk.contains(path) {
            return Err(format!("`{shown}` is in `{name}` and not on disk"));
        }
        let hash = hash_file(&base.join(path))
            .map_err(|error| format!("cannot read `{shown}`: {error}"))?;
        if hex(&hash) != *expected {
            return Err(format!(
                "`{shown}` does not have the SHA-256 hash that `{name}` gives"
            ));
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests;
