//! Looks for an engine's library on this machine.

use std::fs;
use std::path::{Path, PathBuf};

/// Where to look for the library, in this order.
#[derive(Debug, Clone)]
pub struct Search {
    /// This file or none: what `ORT_DYLIB_PATH` says.
    pub explicit: Option<PathBuf>,
    /// kapok's cache folder; the library is in its `lib`.
    pub cache: Option<PathBuf>,
    /// Folders of the system.
    pub system: Vec<PathBuf>,
    /// Threads of the one pool that calls of more than one thread share, the caller's own among them.
    pub threads: usize,
}

impl Default for Search {
    /// The usual folders of the system only.
    fn default() -> Self {
        let triple = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        let folders = ["/usr/local/lib", "/usr/local/lib64", triple.as_str()];
        Self {
            explicit: None,
            cache: None,
            system: folders
                .into_iter()
                .chain(["/usr/lib64", "/usr/lib", "/opt/homebrew/lib"])
                .map(PathBuf::from)
                .collect(),
            threads: 1,
        }
    }
}

impl Search {
    /// Files that may be the library, best first. In the cache, a library of several files has a folder of its own.
    pub(crate) fn candidates(&self, stem: &str, own_folder: Option<&str>) -> Vec<PathBuf> {
        if let Some(path) = &self.explicit {
            return vec![path.clone()];
        }
        let cache = self.cache.iter().map(|cache| cache.join("lib"));
        let cache = cache.map(|lib| match own_folder {
            Some(own) => lib.join(own),
            None => lib,
        });
        cache
            .chain(self.system.iter().cloned())
            .flat_map(|folder| libraries_in(&folder, stem))
            .collect()
    }
}

pub(crate) fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

/// The folder's copies of the library, newest first by the version in the name; links to one file count once.
fn libraries_in(folder: &Path, stem: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<(Vec<u32>, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let numbers = version_in_name(entry.file_name().to_str()?, stem)?;
            Some((numbers, entry.path()))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    let mut seen = Vec::new();
    found.retain(|(_, path)| {
        let Ok(real) = path.canonicalize() else {
            return false;
        };
        let new = !seen.contains(&real);
        seen.push(real);
        new
    });
    found.into_iter().map(|(_, path)| path).collect()
}

/// `libonnxruntime.so.1.31.1` and `libonnxruntime.1.31.1.dylib`; providers' libraries have an underscore there.
fn version_in_name(name: &str, stem: &str) -> Option<Vec<u32>> {
    let rest = name.strip_prefix(stem)?.strip_prefix('.')?;
    let numbers = rest
        .strip_prefix("so")
        .or_else(|| rest.strip_suffix("dylib"))?;
    numbers
        .split('.')
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn the_newest_version_comes_first_and_links_count_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for name in [
            "libonnxruntime.so.1.9.0",
            "libonnxruntime.so.1.31.1",
            "libonnxruntime_providers_shared.so",
            "libonnx.so",
        ] {
            fs::write(at(name), "").expect("a file");
        }
        std::os::unix::fs::symlink(at("libonnxruntime.so.1.31.1"), at("libonnxruntime.so"))
            .expect("a link");
        assert_eq!(
            libraries_in(folder.path(), "libonnxruntime"),
            [
                at("libonnxruntime.so.1.31.1"),
                at("libonnxruntime.so.1.9.0")
            ]
        );
    }

    #[test]
    fn versions_are_read_from_names() {
        let version_in_name = |name| version_in_name(name, "libonnxruntime");
        assert_eq!(
            version_in_name("libonnxruntime.so.1.31.1"),
            Some(vec![1, 31, 1])
        );
        assert_eq!(version_in_name("libonnxruntime.so"), Some(vec![]));
        assert_eq!(
            version_in_name("libonnxruntime.1.20.0.dylib"),
            Some(vec![1, 20, 0])
        );
        assert_eq!(version_in_name("libonnxruntime.so.part"), None);
        assert_eq!(version_in_name("libonnxruntime_providers_cuda.so"), None);
    }
}
