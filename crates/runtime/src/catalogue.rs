//! Every model known, and what each of its versions is at this moment.
//!
//! The map is replaced when a model appears or goes; a model's versions are replaced on their own, so that publishing one
//! of hundreds costs one. A request looks at one model once, and what it finds there stays whole until it is answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use protocol::ModelState;
use tokio::sync::oneshot;

use crate::error::Error;
use crate::lifecycle::{Life, Override};
use crate::model::Model;
use crate::repository::version_number;

pub(crate) type Models = BTreeMap<String, Arc<Entry>>;

#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    models: ArcSwap<Models>,
    /// Held while ensembles are judged by their members: whoever judges last has seen all that was published before.
    pub(crate) judging: Mutex<()>,
}

/// A model by name, whatever its versions are.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    versions: ArcSwap<Versions>,
    /// Milliseconds of the runtime's life at the last request; only kept when somebody asks for it.
    used_ms: AtomicU64,
    /// Requests that wait for the model to be loaded, each told once.
    pub(crate) waiting: Mutex<Vec<oneshot::Sender<Woken>>>,
    /// What only loader threads use; never locked for longer than it takes to read or write it.
    pub(crate) life: Mutex<Life>,
}

/// How a load on first use ended.
#[derive(Debug, Clone)]
pub(crate) enum Woken {
    /// Loaded, or failed for good: the versions say which.
    Done,
    /// There is no room now.
    NoRoom(String),
}

/// A model's versions at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Versions {
    pub(crate) states: BTreeMap<u64, Version>,
    pub(crate) labels: Arc<BTreeMap<String, u64>>,
    /// None of the model's versions answered before these were loaded.
    pub(crate) first: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Version {
    Loading,
    Ready(Ready),
    /// Out of service; its last requests are being answered.
    Unloading,
    /// Not in memory, and loaded by its first request.
    Asleep,
    /// Being loaded for requests that wait.
    Waking,
    /// Not in memory because nobody wants it there; why, for people.
    Unloaded(String),
    /// It should serve and cannot; why, for people.
    Unavailable(String),
    /// An ensemble that waits for its members.
    Blocked(Blocked),
}

#[derive(Debug, Clone)]
pub(crate) struct Blocked {
    pub(crate) ready: Ready,
    pub(crate) state: ModelState,
    pub(crate) reason: String,
}

/// A version that answers.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    pub(crate) model: Arc<Model>,
    /// Hash of everything it was made from.
    pub(crate) digest: [u8; 32],
    /// Memory it took, as measured.
    pub(crate) bytes: u64,
    /// What one of its calls takes beside that while it runs; only known under a budget.
    pub(crate) working: u64,
    /// Why what should replace it does not; empty when nothing should.
    pub(crate) note: String,
    /// The files and configuration that a client gave, which live as long as the model.
    #[expect(
        dead_code,
        reason = "held: what it points to is removed when nothing holds it any more"
    )]
    pub(crate) over: Option<Arc<Override>>,
}

impl Version {
    pub(crate) fn state(&self) -> ModelState {
        match self {
            Self::Loading | Self::Waking => ModelState::Loading,
            Self::Ready(_) => ModelState::Ready,
            Self::Blocked(blocked) => blocked.state,
            Self::Unloading => ModelState::Unloading,
            Self::Asleep | Self::Unloaded(_) | Self::Unavailable(_) => ModelState::Unavailable,
        }
    }

    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Unavailable(reason) | Self::Unloaded(reason) => reason,
            Self::Ready(ready) => &ready.note,
            Self::Blocked(blocked) => &blocked.reason,
            Self::Asleep => "not in memory: loads on first use",
            Self::Loading | Self::Waking | Self::Unloading => "",
        }
    }

    pub(crate) fn ready(&self) -> Option<&Ready> {
        match self {
            Self::Ready(ready) => Some(ready),
            _ => None,
        }
    }

    /// The ensemble that would answer if its members did.
    pub(crate) fn blocked(&self) -> Option<&Ready> {
        match self {
            Self::Blocked(blocked) => Some(&blocked.ready),
            _ => None,
        }
    }

    pub(crate) fn model(&self) -> Option<&Arc<Model>> {
        self.ready().map(|ready| &ready.model)
    }

    /// Answers requests, if need be after loading.
    pub(crate) fn answers(&self) -> bool {
        matches!(self, Self::Ready(_) | Self::Asleep | Self::Waking)
    }
}

impl Versions {
    pub(crate) fn one(number: u64, version: Version) -> Self {
        Self {
            states: BTreeMap::from([(number, version)]),
            labels: Arc::default(),
            first: false,
        }
    }

    /// The versions that serve.
    pub(crate) fn ready(&self) -> impl Iterator<Item = (u64, &Ready)> {
        let ready = |(number, version): (&u64, _)| Some((*number, Version::ready(version)?));
        self.states.iter().filter_map(ready)
    }

    /// Whether the model does what is wanted of it: all that begins has begun, and something answers, or nothing should.
    pub(crate) fn well(&self) -> bool {
        let mut states = self.states.values();
        let begins = |version: &Version| matches!(version, Version::Loading);
        if self.first && states.clone().any(begins) {
            return false;
        }
        states.clone().any(Version::answers)
            || states.all(|version| matches!(version, Version::Unloaded(_) | Version::Unloading))
    }

    /// The version asked for by number or label, or the highest that answers, or, when none does, the highest.
    pub(crate) fn find(&self, asked: Option<&str>) -> Option<(u64, &Version)> {
        let found = match asked.filter(|asked| !asked.is_empty()) {
            Some(asked) => {
                let number = version_number(asked).or_else(|| self.labels.get(asked).copied())?;
                self.states.get_key_value(&number)
            }
            None => {
                let mut states = self.states.iter();
                let ready = states.rfind(|(_, version)| version.model().is_some());
                ready
                    .or_else(|| self.states.iter().rfind(|(_, version)| version.answers()))
                    .or_else(|| self.states.last_key_value())
            }
        };
        found.map(|(number, version)| (*number, version))
    }
}

impl Catalogue {
    pub(crate) fn models(&self) -> Guard<Arc<Models>> {
        self.models.load()
    }

    pub(crate) fn get(&self, name: &str) -> Result<Arc<Entry>, Error> {
        let models = self.models.load();
        models
            .get(name)
            .map(Arc::clone)
            .ok_or_else(|| Error::UnknownModel {
                model: name.to_owned(),
            })
    }

    /// The entry of this name, made if there is none.
    pub(crate) fn entry(&self, name: &str, first: impl Fn() -> Versions) -> Arc<Entry> {
        let mut found = None;
        self.models.rcu(|before| {
            if let Some(entry) = before.get(name) {
                found = Some(Arc::clone(entry));
                return Arc::clone(before);
            }
            let entry = Arc::new(Entry::new(name, first()));
            found = Some(Arc::clone(&entry));
            let mut next = Models::clone(before);
            next.insert(name.to_owned(), entry);
            Arc::new(next)
        });
        found.expect("the update ran")
    }

    pub(crate) fn set(&self, models: Models) {
        self.models.store(Arc::new(models));
    }

    /// Forgets a name, if it still means this entry.
    pub(crate) fn remove(&self, entry: &Arc<Entry>) {
        self.models.rcu(|before| {
            let same = before.get(&entry.name);
            if !same.is_some_and(|same| Arc::ptr_eq(same, entry)) {
                return Arc::clone(before);
            }
            let mut next = Models::clone(before);
            next.remove(&entry.name);
            Arc::new(next)
        });
    }
}

impl Entry {
    pub(crate) fn new(name: &str, versions: Versions) -> Self {
        Self {
            name: name.to_owned(),
            versions: ArcSwap::from_pointee(versions),
            used_ms: AtomicU64::new(0),
            waiting: Mutex::default(),
            life: Mutex::default(),
        }
    }

    pub(crate) fn versions(&self) -> Guard<Arc<Versions>> {
        self.versions.load()
    }

    /// The flip: one pointer. Requests that found what was there before keep it.
    pub(crate) fn publish(&self, versions: Versions) -> Arc<Versions> {
        self.versions.swap(Arc::new(versions))
    }

    /// Changes one version's state if `change` says so.
    pub(crate) fn amend(&self, number: u64, change: impl Fn(&Version) -> Option<Version>) {
        self.versions.rcu(|before| {
            let Some(version) = before.states.get(&number).and_then(&change) else {
                return Arc::clone(before);
            };
            let mut next = Versions::clone(before);
            next.states.insert(number, version);
            Arc::new(next)
        });
    }

    pub(crate) fn touch(&self, now_ms: u64) {
        self.used_ms.store(now_ms, Ordering::Relaxed);
    }

    pub(crate) fn used_ms(&self) -> u64 {
        self.used_ms.load(Ordering::Relaxed)
    }

    /// The version asked for, ready or not.
    pub(crate) fn version(
        &self,
        versions: &Versions,
        asked: Option<&str>,
    ) -> Result<(u64, Version), Error> {
        let found = versions.find(asked);
        found
            .map(|(number, version)| (number, version.clone()))
            .ok_or_else(|| Error::UnknownVersion {
                model: self.name.clone(),
                version: asked.unwrap_or("1").to_owned(),
            })
    }

    /// The version asked for, if it answers now; `Ok(None)` if it would after loading.
    pub(crate) fn model(&self, asked: Option<&str>) -> Result<Option<Arc<Model>>, Error> {
        let versions = self.versions.load();
        let found = versions.find(asked);
        let Some((number, version)) = found else {
            return Err(Error::UnknownVersion {
                model: self.name.clone(),
                version: asked.unwrap_or("1").to_owned(),
            });
        };
        match version {
            Version::Ready(ready) => Ok(Some(Arc::clone(&ready.model))),
            Version::Asleep | Version::Waking => Ok(None),
            Version::Unloaded(_) | Version::Unloading if asked.is_none_or(str::is_empty) => {
                Err(Error::NoVersion {
                    model: self.name.clone(),
                })
            }
            _ if asked.is_none_or(str::is_empty) => Err(Error::NoneReady {
                model: self.name.clone(),
            }),
            _ => Err(Error::NotReady {
                model: self.name.clone(),
                version: number.to_string(),
            }),
        }
    }
}
