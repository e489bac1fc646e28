use serde::{Deserialize, Serialize};

use super::limits::{self, LimitsSpec, Priority, Scope};
use super::validate::{Findings, patterns};

/// A client's credential. With at least one `Key`, every call needs one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeySpec {
    /// SHA-256 of the key, in hex: the key itself is never stored.
    pub sha256: String,
    /// Model names or prefixes ending in `*`; absent means all.
    #[serde(default)]
    pub models: Option<Vec<String>>,
    /// What it opens; absent means everything for a key without `models`, and for one with them all but `orders`,
    /// `admin` and `jobs`, which concern every model.
    #[serde(default)]
    pub scopes: Option<Vec<Scope>>,
    #[serde(default)]
    pub limits: Option<LimitsSpec>,
    /// The highest class that its requests may claim with `x-request-priority`, and theirs if they claim none; absent
    /// means `standard`.
    #[serde(default)]
    pub priority: Option<Priority>,
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
    if let Some(scopes) = &spec.scopes {
        check_scopes(spec, scopes, found);
    }
    if let Some(limits) = &spec.limits {
        limits::check(limits, found);
    }
}

fn check_scopes(spec: &KeySpec, scopes: &[Scope], found: &mut Findings) {
    found.check(!scopes.is_empty(), "spec.scopes", || {
        "name at least one; without `scopes` a key opens everything".to_owned()
    });
    for (index, scope) in scopes.iter().enumerate() {
        let everything = matches!(scope, Scope::Orders | Scope::Admin | Scope::Jobs);
        let path = format!("spec.scopes.{index}");
        found.check(!everything || spec.models.is_none(), &path, || {
            format!(
                "`{}` concerns every model; leave out `models`, or give another key for it",
                scope.name()
            )
        });
    }
}
