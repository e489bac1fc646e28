use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use protocol::EngineCandidate;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Choice, Chosen, Contestant};
use crate::engine::Precision;
use crate::lifecycle::hash_into;

/// Choices made earlier, one small file each, named by what they depend on.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

/// Tells the partial files of this process apart.
static WRITES: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub(crate) engine: String,
    pub(crate) precision: Precision,
    pub(crate) threads: usize,
    pub(crate) candidates: Vec<EngineCandidate>,
}

impl Cache {
    /// `root` is the node's cache folder.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            folder: root.join("engine-choice"),
        }
    }

    /// The model's bytes, the engines that compete, and what the owner asked for. None when the model cannot be read:
    /// loading will say so better.
    pub(crate) fn key(&self, choice: &Choice<'_>, contestants: &[Contestant]) -> Option<String> {
        let mut hash = Sha256::new();
        hash_into(&choice.source.path, &mut hash).ok()?;
        neighbours(&choice.source.path, &mut hash)?;
        for Contestant { engine, options } in contestants {
            hash.update(format!(
                "\0{} {} {options:?}",
                engine.name(),
                engine.version()
            ));
        }
        // What `config.pbtxt` asks of an engine.
        let config = &choice.source.config;
        hash.update(format!("\0{:?}", choice.source.parameters));
        hash.update(format!(
            "\0{:?} {:?}",
            config.optimization, config.model_operations
        ));
        let asked = (
            choice.sidecar,
            choice.alternative.map(|other| other.threads),
            choice.tools.compute.cores(),
            // A debug build's figures say nothing about a release build's engines.
            cfg!(debug_assertions),
        );
        hash.update(serde_json::to_vec(&asked).ok()?);
        let mut key = String::with_capacity(64);
        for byte in hash.finalize() {
            // Writing to a String cannot fail.
            let _infallible = write!(key, "{byte:02x}");
        }
        Some(key)
    }

    pub(crate) fn read(&self, key: &str) -> Option<Remembered> {
        let path = self.path(key);
        let json = std::fs::read(&path).ok()?;
        serde_json::from_slice(&json)
            .inspect_err(|error| {
                tracing::warn!(
                    path = %path.display(),
                    %error,
                    "ignoring a broken engine choice; choosing again"
                );
            })
            .ok()
    }

    pub(crate) fn write(&self, key: &str, chosen: &Chosen) {
        let remembered = Remembered {
            engine: chosen.engine.to_owned(),
            precision: chosen.precision,
            threads: chosen.threads,
            candidates: chosen.candidates.clone(),
        };
        let path = self.path(key);
        // Beside and renamed: a reader never sees half a file, and no two writers share one.
        let count = WRITES.fetch_add(1, Ordering::Relaxed);
        let partial = path.with_extension(format!("{}-{count}.partial", std::process::id()));
        let written = serde_json::to_vec_pretty(&remembered)
            .map_err(std::io::Error::from)
            .and_then(|json| {
                std::fs::create_dir_all(&self.folder)?;
                std::fs::write(&partial, json)?;
                std::fs::rename(&partial, &path)
            });
        if let Err(error) = written {
            tracing::warn!(
                path = %path.display(),
                %error,
                "cannot keep the engine choice; the next start measures again"
            );
        }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.json"))
    }
}

/// Name, length and time of what lies beside the model: weights may be kept there, gigabytes that are not read twice.
fn neighbours(model: &Path, hash: &mut Sha256) -> Option<()> {
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(model.parent()?).ok()? {
        let path = entry.ok()?.path();
        if path == model {
            continue;
        }
        // A link's target, which is what an engine reads.
        let Ok(data) = std::fs::metadata(&path) else {
            continue;
        };
        let changed = data.modified().ok();
        let changed = changed.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        seen.push((path.file_name()?.to_owned(), data.len(), changed));
    }
    seen.sort();
    hash.update(format!("\0{seen:?}"));
    Some(())
}
