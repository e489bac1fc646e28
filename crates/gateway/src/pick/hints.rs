use http::{HeaderMap, HeaderName, HeaderValue};

use crate::snapshot::Snapshot;

/// What a request says about where it wants to go; read once, used by all its attempts.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    /// Headers that a route of the snapshot looks at.
    said: Vec<(HeaderName, HeaderValue)>,
}

impl Hints {
    /// Costs nothing while no route looks at a header.
    pub(crate) fn read(snapshot: &Snapshot, headers: &HeaderMap) -> Self {
        let said = snapshot.watched.iter().filter_map(|name| {
            let value = headers.get(name)?;
            Some((name.clone(), value.clone()))
        });
        Self {
            said: said.collect(),
        }
    }

    pub(crate) fn header(&self, name: &HeaderName) -> Option<&[u8]> {
        let (_, value) = self.said.iter().find(|(said, _)| said == name)?;
        Some(value.as_bytes())
    }
}
