//! What is on disk: `<repository>/<model>/<version>/…`, several repositories, no file opened but folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use protocol::oip::proto::ModelVersionPolicy;
use protocol::oip::proto::model_version_policy::PolicyChoice;

use crate::error::Error;

/// One model's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    /// The last folder of the same name in another repository.
    pub(crate) twin: Option<PathBuf>,
    /// Version numbers and their folders; for a flat folder, version 1 is the folder itself.
    pub(crate) versions: BTreeMap<u64, PathBuf>,
    /// Why the model cannot be served whatever it holds. Clients see it, so it names no folder above the repository's.
    pub(crate) problem: Option<String>,
}

/// Looks into every repository; a repository that cannot be read is an error, a strange model folder is not.
pub(crate) fn scan(repositories: &[PathBuf]) -> Result<Vec<Found>, Error> {
    let mut models: BTreeMap<String, Found> = BTreeMap::new();
    for repository in repositories {
        let unreadable = |error: std::io::Error| Error::Repository {
            path: repository.clone(),
            reason: error.to_string(),
        };
        for (name, folder) in folders(repository).map_err(unreadable)? {
            let found = look_into(name, folder);
            match models.entry(found.name.clone()) {
                std::collections::btree_map::Entry::Vacant(vacant) => {
                    vacant.insert(found);
                }
                std::collections::btree_map::Entry::Occupied(mut first) => {
                    first.get_mut().shared_with(found.folder);
                }
            }
        }
    }
    Ok(models.into_values().collect())
}

/// One model's folder, wherever it is.
pub(crate) fn find(repositories: &[PathBuf], name: &str) -> Option<Found> {
    if !is_name(name) {
        return None;
    }
    let mut folders = repositories
        .iter()
        .map(|repository| repository.join(name))
        .filter(|folder| folder.is_dir());
    let mut found = look_into(name.to_owned(), folders.next()?);
    for twin in folders {
        found.shared_with(twin);
    }
    Some(found)
}

/// What can be the name of a model's folder.
pub(crate) fn is_name(name: &str) -> bool {
    let plain =
        |part: Component<'_>| part.as_os_str() == name && matches!(part, Component::Normal(_));
    !name.starts_with('.') && Path::new(name).components().next().is_some_and(plain)
}

impl Found {
    pub(crate) fn latest(&self) -> u64 {
        self.versions.keys().copied().next_back().unwrap_or(1)
    }

    /// Neither is served: which one a client meant cannot be known.
    fn shared_with(&mut self, twin: PathBuf) {
        self.problem = Some(format!(
            "model `{}` is in two repositories: `{}` and `{}`; rename or remove one",
            self.name,
            repository_name(&self.folder),
            repository_name(&twin)
        ));
        self.twin = Some(twin);
    }
}

pub(crate) fn look_into(name: String, folder: PathBuf) -> Found {
    let (versions, problem) = match versions(&folder) {
        Ok(versions) => (versions, None),
        Err(error) => (
            BTreeMap::new(),
            Some(format!("cannot read the model's folder: {error}")),
        ),
    };
    Found {
        name,
        folder,
        twin: None,
        versions,
        problem,
    }
}

/// The last component of the repository that a model's folder is in.
fn repository_name(model: &Path) -> String {
    let name = model.parent().and_then(Path::file_name).unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Visible sub-folders with readable names.
fn folders(path: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let visible = name.filter(|name| !name.starts_with('.'));
        if let Some(name) = visible.map(str::to_owned)
            && path.is_dir()
        {
            found.push((name, path));
        }
    }
    found.sort();
    Ok(found)
}

fn versions(folder: &Path) -> std::io::Result<BTreeMap<u64, PathBuf>> {
    let numbered: BTreeMap<_, _> = folders(folder)?
        .into_iter()
        .filter_map(|(name, path)| Some((version_number(&name)?, path)))
        .collect();
    Ok(if numbered.is_empty() {
        BTreeMap::from([(1, folder.to_owned())])
    } else {
        numbered
    })
}

/// A positive integer without a leading zero; anything else is not a version.
pub(crate) fn version_number(name: &str) -> Option<u64> {
    let plain = name.bytes().all(|byte| byte.is_ascii_digit()) && !name.starts_with('0');
    name.parse().ok().filter(|_| plain)
}

/// Which of the versions on disk are served: the latest one unless the configuration says otherwise.
pub(crate) fn select(
    versions: &BTreeMap<u64, PathBuf>,
    policy: Option<&ModelVersionPolicy>,
) -> Result<Vec<u64>, String> {
    let latest = |count: u32| {
        let count = usize::try_from(count).unwrap_or(usize::MAX).max(1);
        let mut newest: Vec<u64> = versions.keys().rev().take(count).copied().collect();
        newest.reverse();
        newest
    };
    match policy.and_then(|policy| policy.policy_choice.as_ref()) {
        None => Ok(latest(1)),
        Some(PolicyChoice::Latest(policy)) => Ok(latest(policy.num_versions)),
        Some(PolicyChoice::All(_)) => Ok(versions.keys().copied().collect()),
        Some(PolicyChoice::Specific(policy)) => {
            let wanted: Vec<u64> = policy
                .versions
                .iter()
                .filter_map(|version| u64::try_from(*version).ok())
                .filter(|version| versions.contains_key(version))
                .collect();
            if wanted.is_empty() {
                let on_disk: Vec<_> = versions.keys().map(u64::to_string).collect();
                return Err(format!(
                    "version_policy asks for {:?}, on disk: {}",
                    policy.versions,
                    on_disk.join(", ")
                ));
            }
            Ok(wanted)
        }
    }
}

#[cfg(test)]
mod tests;
