use serde::{Deserialize, Serialize};

/// How an iterative sequence goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sequence {
    /// The model's BOOL output that says of each row whether its request is to be run again; absent means `RESCHEDULE`,
    /// if there is one.
    pub reschedule: Option<String>,
}

impl Sequence {
    pub(super) fn check(&self, check: &mut impl FnMut(bool, &[&str], &str)) {
        check(
            self.reschedule.as_ref().is_none_or(|name| !name.is_empty()),
            &["sequence", "reschedule"],
            "the name of one of the model's outputs",
        );
    }
}
