/// The kinds it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Nodes,
    Pods,
    Services,
    Jobs,
    Deployments,
    PriorityClasses,
    KapokJobs,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Nodes,
        Self::Pods,
        Self::Services,
        Self::Jobs,
        Self::Deployments,
        Self::PriorityClasses,
        Self::KapokJobs,
    ];

    /// Group and version, the plural, the kind, and whether it is in a namespace.
    pub(crate) fn words(self) -> (&'static str, &'static str, &'static str, bool) {
        match self {
            Self::Nodes => ("v1", "nodes", "Node", false),
            Self::Pods => ("v1", "pods", "Pod", true),
            Self::Services => ("v1", "services", "Service", true),
            Self::Jobs => ("batch/v1", "jobs", "Job", true),
            Self::Deployments => ("apps/v1", "deployments", "Deployment", true),
            Self::KapokJobs => ("kapok.dev/v1alpha1", "jobs", "Job", true),
            Self::PriorityClasses => (
                "scheduling.k8s.io/v1",
                "priorityclasses",
                "PriorityClass",
                false,
            ),
        }
    }

    fn of(group_version: &str, plural: &str) -> Option<Self> {
        let words = |kind: &Self| (kind.words().0, kind.words().1) == (group_version, plural);
        Self::ALL.into_iter().find(words)
    }
}

/// What a path is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Collection(Kind),
    Object(Kind, String),
    /// `status` or `log`.
    Part(Kind, String, String),
    /// Groups, and what is in one.
    Groups,
    Resources(String),
}

pub(super) fn place(path: &str) -> Option<Place> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group_version, rest) = match segments.as_slice() {
        ["api"] | ["apis"] => return Some(Place::Groups),
        ["api", version, rest @ ..] => ((*version).to_owned(), rest),
        ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
        _ => return None,
    };
    let kind = |plural: &str| Kind::of(&group_version, plural);
    Some(match rest {
        [] => Place::Resources(group_version),
        [plural] | ["namespaces", _, plural] => Place::Collection(kind(plural)?),
        [plural, name] | ["namespaces", _, plural, name] => {
            Place::Object(kind(plural)?, (*name).to_owned())
        }
        ["namespaces", _, plural, name, part] => {
            Place::Part(kind(plural)?, (*name).to_owned(), (*part).to_owned())
        }
        _ => return None,
    })
}
