//! Every model known at one moment. Published whole; a request looks at one snapshot only.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::ModelState;

use crate::error::Error;
use crate::model::Model;
use crate::repository::version_number;

#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) models: BTreeMap<String, BTreeMap<u64, Version>>,
}

#[derive(Debug, Clone)]
pub(crate) enum Version {
    Loading,
    Ready(Arc<Model>),
    Unavailable(String),
    /// An ensemble that waits for its members.
    Blocked(Blocked),
}

#[derive(Debug, Clone)]
pub(crate) struct Blocked {
    pub(crate) model: Arc<Model>,
    pub(crate) state: ModelState,
    pub(crate) reason: String,
}

impl Version {
    pub(crate) fn state(&self) -> ModelState {
        match self {
            Self::Loading => ModelState::Loading,
            Self::Ready(_) => ModelState::Ready,
            Self::Unavailable(_) => ModelState::Unavailable,
            Self::Blocked(blocked) => blocked.state,
        }
    }

    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Unavailable(reason) => reason,
            Self::Blocked(blocked) => &blocked.reason,
            Self::Loading | Self::Ready(_) => "",
        }
    }

    pub(crate) fn model(&self) -> Option<&Arc<Model>> {
        match self {
            Self::Ready(model) => Some(model),
            Self::Loading | Self::Unavailable(_) | Self::Blocked(_) => None,
        }
    }

    /// The ensemble that would answer if its members did.
    pub(crate) fn blocked(&self) -> Option<&Arc<Model>> {
        match self {
            Self::Blocked(blocked) => Some(&blocked.model),
            Self::Loading | Self::Ready(_) | Self::Unavailable(_) => None,
        }
    }
}

impl Snapshot {
    pub(crate) fn versions(&self, name: &str) -> Result<&BTreeMap<u64, Version>, Error> {
        self.models.get(name).ok_or_else(|| Error::UnknownModel {
            model: name.to_owned(),
        })
    }

    /// The version asked for, or the highest that is ready, or, when none is, the highest.
    pub(crate) fn version(
        &self,
        name: &str,
        asked: Option<&str>,
    ) -> Result<(u64, &Version), Error> {
        let versions = self.versions(name)?;
        let found = match asked.filter(|asked| !asked.is_empty()) {
            Some(asked) => version_number(asked).and_then(|number| versions.get_key_value(&number)),
            None => versions
                .iter()
                .rfind(|(_, version)| version.model().is_some())
                .or_else(|| versions.last_key_value()),
        };
        found
            .map(|(number, version)| (*number, version))
            .ok_or_else(|| Error::UnknownVersion {
                model: name.to_owned(),
                version: asked.unwrap_or("1").to_owned(),
            })
    }

    /// As [`Self::version`], and ready.
    pub(crate) fn model(&self, name: &str, asked: Option<&str>) -> Result<&Arc<Model>, Error> {
        let (number, version) = self.version(name, asked)?;
        version.model().ok_or_else(|| Error::NotReady {
            model: name.to_owned(),
            version: number.to_string(),
        })
    }
}
