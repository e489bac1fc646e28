use serde::{Deserialize, Serialize};

use super::validate::{Findings, patterns};

/// A client's credential. With at least one `Key`, every call needs one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeySpec {
    /// SHA-256 of the key, in hex: the key itself is never stored.
    pub sha256: String,
    /// Model names or prefixes ending in `*`; absent means all.
    #[serde(default)]
    pub models: Option<Vec<String>>,
}

pub(super) fn check(spec: &KeySpec, found: &mut Findings) {
    let digest = spec.sha256.as_bytes();
    let legal = digest.len() == 64 && digest.iter().all(u8::is_ascii_hexdigit);
    found.check(legal, "spec.sha256", || {
        "the key's SHA-256 as 64 hexadecimal digits, as `printf %s KEY | sha256sum` prints it"
            .to_owned()
    });
    if let Some(models) = &spec.models {
        patterns(models, "spec.models", found);
    }
}
