//! What types cannot say about a resource.

use std::fmt;

use super::{Resource, Spec, job, key, node, route, upstream};

/// A field whose value can be read but makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// From the document's root, list indices as digits: `spec`, `targets`, `0`, `weight`.
    pub path: Vec<String>,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.path.join("."), self.message)
    }
}

/// Longest name, as DNS has it, because names become host names, labels and files elsewhere.
const NAME_CHARACTERS_MAX: usize = 63;

impl Resource {
    /// Everything wrong with it by itself; what other resources it names is the snapshot's business.
    pub fn validate(&self) -> Vec<Problem> {
        let mut found = Findings::default();
        found.check(is_name(&self.metadata.name), "metadata.name", || {
            format!(
                "a name is 1 to {NAME_CHARACTERS_MAX} of a-z, 0-9, `-` and `.`, and begins and ends with a letter or digit"
            )
        });
        match &self.spec {
            Spec::Node(spec) => node::check(spec, &mut found),
            Spec::Upstream(spec) => {
                found.check(self.metadata.name != "local", "metadata.name", || {
                    "`local` means the models in this process; take another name".to_owned()
                });
                upstream::check(spec, &mut found);
            }
            Spec::Route(spec) => route::check(spec, &mut found),
            Spec::Key(spec) => key::check(spec, &mut found),
            Spec::Job(spec) => job::check(spec, &mut found),
        }
        found.0
    }
}

#[derive(Default)]
pub(super) struct Findings(Vec<Problem>);

impl Findings {
    /// `path` is written with dots; no key of ours has one.
    pub(super) fn check(&mut self, holds: bool, path: &str, message: impl FnOnce() -> String) {
        if !holds {
            let path = path.split('.').map(str::to_owned).collect();
            let message = message();
            self.0.push(Problem { path, message });
        }
    }

    pub(super) fn positive(&mut self, value: u64, path: &str) {
        self.check(value > 0, path, || "must be at least 1".to_owned());
    }
}

pub(super) fn is_name(name: &str) -> bool {
    let outer = |byte: Option<&u8>| byte.is_some_and(|byte| is_letter_or_digit(*byte));
    let bytes = name.as_bytes();
    bytes.len() <= NAME_CHARACTERS_MAX
        && outer(bytes.first())
        && outer(bytes.last())
        && bytes
            .iter()
            .all(|byte| is_letter_or_digit(*byte) || matches!(byte, b'-' | b'.'))
}

fn is_letter_or_digit(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Exact names, or prefixes that end in `*`.
pub(super) fn patterns(models: &[String], path: &str, found: &mut Findings) {
    found.check(!models.is_empty(), path, || {
        "name at least one model, or `*`".to_owned()
    });
    for (index, model) in models.iter().enumerate() {
        let star = model.find('*');
        let legal = !model.is_empty() && star.is_none_or(|star| star + 1 == model.len());
        found.check(legal, &format!("{path}.{index}"), || {
            "a model is an exact name, or a prefix that ends in `*`".to_owned()
        });
    }
}
