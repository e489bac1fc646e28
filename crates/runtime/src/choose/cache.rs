use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::EngineCandidate;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Choice, Chosen};
use crate::engine::Engine;

/// Choices made earlier, one small file each, named by what they depend on.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub(crate) engine: String,
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
    pub(crate) fn key(&self, choice: &Choice<'_>, engines: &[Arc<dyn Engine>]) -> Option<String> {
        let mut hash = Sha256::new();
        let mut file = std::fs::File::open(&choice.source.path).ok()?;
        let mut chunk = vec![0; 1 << 18];
        loop {
            match file.read(&mut chunk).ok()? {
                0 => break,
                count => hash.update(&chunk[..count]),
            }
        }
        for engine in engines {
            hash.update(format!("\0{} {}", engine.name(), engine.version()));
        }
        let asked = (
            choice.sidecar,
            choice.options.threads,
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
            candidates: chosen.candidates.clone(),
        };
        let path = self.path(key);
        // Beside and renamed: a reader never sees half a file.
        let partial = path.with_extension("partial");
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
