use http::{HeaderMap, HeaderName, HeaderValue};
use protocol::openai;
use routing::{Digest, session_of};

use crate::snapshot::{Rules, Snapshot};

/// What a request says about where it wants to go; read once, used by all its attempts.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    /// Headers that a route of the snapshot looks at.
    said: Vec<(HeaderName, HeaderValue)>,
    /// Absent where the route does not care.
    pub(super) session: Option<u64>,
    pub(super) prompt: Option<Box<Digest>>,
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
            ..Self::default()
        }
    }

    /// What the route of the model wants to know besides; `body` is what was read of the request's, if it has one.
    pub(crate) fn complete(&mut self, rules: &Rules, body: Option<&openai::Facts<'_>>) {
        if let Some(header) = &rules.session {
            let of_body = || {
                let body = body?;
                let key = body.prompt_cache_key.as_ref().or(body.user.as_ref())?;
                Some(key.as_bytes())
            };
            self.session = self.header(header).or_else(of_body).map(session_of);
        }
        if let Some(body) = body.filter(|_| rules.prompt) {
            let [tools, system] = body.prompt.before;
            let before = [body.model.as_ref(), tools, system].map(str::as_bytes);
            let digest = Digest::of_text(&before, body.prompt.text.as_bytes());
            self.prompt = Some(Box::new(digest));
        }
    }

    pub(crate) fn header(&self, name: &HeaderName) -> Option<&[u8]> {
        let (_, value) = self.said.iter().find(|(said, _)| said == name)?;
        Some(value.as_bytes())
    }
}
