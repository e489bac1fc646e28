use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Names for versions: a request may ask for `stable` where it may ask for `2`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Versions {
    pub labels: BTreeMap<String, u64>,
}

impl Versions {
    pub(super) fn check(&self, check: &mut impl FnMut(bool, &[&str], &str)) {
        for (label, version) in &self.labels {
            let path = ["versions", "labels", label];
            let legal =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            let digits = label.bytes().all(|byte| byte.is_ascii_digit());
            check(
                !label.is_empty() && label.bytes().all(legal) && !digits,
                &path,
                "a label is letters, digits, `-`, `_` and `.`, and no number",
            );
            check(*version > 0, &path, "versions begin at 1");
        }
    }
}
