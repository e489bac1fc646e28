//! Requests that name no model, and requests about something that an upstream made before.

use std::sync::Arc;

use base::ErrorKind;
use http::Method;
use http::header::ACCEPT_ENCODING;
use http::request::Parts;
use protocol::ApiError;
use protocol::openai::{IdScan, references};

use super::Visit;
use crate::keepers::Keeping;
use crate::operation::Operation;
use crate::snapshot::Group;
use crate::upstream::Upstream;

impl Visit<'_> {
    /// It names no model, and its path is taken for one. `body` is what was read of it.
    pub(in crate::doors) fn goes_by_path(&mut self, place: &str, body: &[u8]) {
        let within = self.snapshot.route(place);
        // The first words say what kind of thing it is.
        let ids = place.split('/').skip(3).filter(|id| !id.is_empty());
        let keeper = self.keeper(ids, body, within);
        let keeping = self.exchange.keeping.get_or_insert_default();
        keeping.by_path = true;
        keeping.keeper = keeper;
    }

    /// It may go on from something made before, by one of those who have its model.
    pub(in crate::doors) fn goes_on(&mut self, model: &str, body: &[u8]) {
        let within = self.snapshot.group(model);
        if let Some(keeper) = self.keeper(std::iter::empty(), body, Some(within)) {
            self.exchange.keeping.get_or_insert_default().keeper = Some(keeper);
        }
    }

    /// Who made one of these, or what the body refers to. What lies outside of `within` is not asked.
    fn keeper<'i>(
        &self,
        ids: impl Iterator<Item = &'i str>,
        body: &[u8],
        within: Option<&Group>,
    ) -> Option<Arc<Upstream>> {
        let wire = self.exchange.operation.wire();
        if !self.snapshot.several(wire) {
            return None;
        }
        let referred = references(body);
        let keepers = &self.exchange.gateway.shared().keepers;
        let name = keepers
            .of(ids)
            .or_else(|| keepers.of(referred.iter().map(AsRef::as_ref)))?;
        let upstream = self.snapshot.upstreams.get(&name)?;
        let inside = |group: &Group| group.upstreams().any(|one| Arc::ptr_eq(one, upstream));
        (upstream.speaks(wire) && within.is_none_or(inside)).then(|| Arc::clone(upstream))
    }

    /// Its answer is read for the id of what it makes, where it matters who made that.
    pub(in crate::doors) fn makes(&mut self, head: &mut Parts) {
        let operation = self.exchange.operation;
        if head.method != Method::POST || !self.snapshot.several(operation.wire()) {
            return;
        }
        // What is packed cannot be read as it passes by.
        head.headers.remove(ACCEPT_ENCODING);
        let keeping: &mut Keeping = self.exchange.keeping.get_or_insert_default();
        keeping.scan = Some(IdScan::default());
    }
}

/// Whether a call of this kind leaves something at its upstream; a chat does if it says so.
pub(in crate::doors) fn makes_something(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::Responses | Operation::OpenAiStored | Operation::AnthropicStored
    )
}

/// What stands for the path of a call in a Route: its first word and all below.
fn pattern(place: &str) -> String {
    let first: Vec<&str> = place.split('/').take(3).collect();
    format!("{}*", first.join("/"))
}

/// Of what an upstream keeps.
pub(in crate::doors) fn nobody(place: &str) -> ApiError {
    let pattern = pattern(place);
    let message = format!(
        "nobody here keeps `{place}`; a Route with `models: [\"{pattern}\"]` says who does"
    );
    ApiError::new(ErrorKind::NotFound, message).with_code("unknown_url")
}

/// Of what a model does.
pub(in crate::doors) fn no_model(place: &str) -> ApiError {
    let message = format!(
        "you must provide a model parameter; a Route with `models: [\"{place}\"]` says who takes `{place}` without one"
    );
    ApiError::invalid(message).with_param("model")
}
