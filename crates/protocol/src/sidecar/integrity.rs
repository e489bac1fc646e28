use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::inside::stays_inside;

/// What proves that a model's files are the ones that were meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Integrity {
    /// Lines of `sha256sum`, in the version's folder or else in the model's: every file beside it and below is named, with
    /// its hash. A file of this name is obeyed without being asked for.
    pub manifest: PathBuf,
    /// Refuse a version without a manifest.
    pub required: bool,
    /// A minisign public key (Ed25519), as in the second line of `minisign.pub`: the manifest must be signed by it, in
    /// `<manifest>.minisig`. Whoever can change this file can change the key: the node's own key, `modelPublicKey`, is for
    /// repositories that others write to.
    pub public_key: Option<String>,
}

impl Default for Integrity {
    fn default() -> Self {
        Self {
            manifest: PathBuf::from("manifest.sha256"),
            required: false,
            public_key: None,
        }
    }
}

impl Integrity {
    pub(super) fn check(&self, check: &mut impl FnMut(bool, &[&str], &str)) {
        check(
            stays_inside(&self.manifest) && self.manifest.components().count() == 1,
            &["integrity", "manifest"],
            "the name of a file, without a folder",
        );
        check(
            self.public_key.as_deref().is_none_or(is_public_key),
            &["integrity", "public_key"],
            "a minisign public key: 56 characters of base64 that begin with `RW`",
        );
    }
}

/// The form only: 2 bytes of algorithm, 8 of key id, 32 of key, in base64.
pub fn is_public_key(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    text.len() == 56 && text.starts_with("RW") && text.bytes().all(legal)
}
