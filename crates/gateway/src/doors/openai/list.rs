//! `/v1/models`: what can be asked for here, wherever it is answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Deadline;
use protocol::openai::ModelEntry;
use protocol::resource::UpstreamKind;
use telemetry::Stage;
use tokio::time::timeout;

use crate::doors::visit::Visit;
use crate::relay::fetch;
use crate::upstream::{Upstream, Wire};

/// For all upstreams together that have to be asked: a list without one of them is better than none.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// OpenAI's own list is 20 KB.
const LIST_BYTES_MAX: usize = 1 << 20;

#[derive(serde::Deserialize)]
struct List {
    data: Vec<Line>,
}

#[derive(serde::Deserialize)]
struct Line {
    id: String,
}

/// Every model by its name. A name in several places belongs to the one that is picked: here, then who lists it.
pub(super) async fn entries(visit: &mut Visit<'_>) -> BTreeMap<String, ModelEntry> {
    let mut names: BTreeMap<String, String> = asked(visit).await;
    for upstream in visit.snapshot.upstreams.values() {
        for model in upstream.spec.models.iter().flatten() {
            names.insert(model.clone(), upstream.name.to_string());
        }
    }
    let ours = visit.exchange.gateway.shared().models.index();
    let ours = ours.into_iter().map(|entry| entry.name);
    // What a route calls its models, where it names them; a path is none.
    let routed = visit.snapshot.exact.keys();
    let routed = routed.filter(|name| !name.starts_with("/v1/")).cloned();
    for name in routed.chain(ours) {
        names.insert(name, "kapok".to_owned());
    }
    names.retain(|id, _| visit.key.is_none_or(|key| key.sees(id)));
    names
        .into_iter()
        .map(|(id, owned_by)| (id.clone(), entry(visit, id, owned_by)))
        .collect()
}

pub(super) fn entry(visit: &Visit<'_>, id: String, owned_by: String) -> ModelEntry {
    ModelEntry {
        id,
        created: visit.exchange.gateway.shared().started_seconds,
        owned_by,
    }
}

/// What the upstreams say that were configured without a list.
async fn asked(visit: &mut Visit<'_>) -> BTreeMap<String, String> {
    let snapshot = Arc::clone(visit.snapshot);
    let unlisted: Vec<&Arc<Upstream>> = snapshot
        .upstreams
        .values()
        .filter(|upstream| {
            let lists = upstream.speaks(Wire::OpenAi) || upstream.speaks(Wire::Anthropic);
            upstream.spec.models.is_none() && lists && upstream.ready()
        })
        .collect();
    let clock = visit.exchange.gateway.shared().clock.clone();
    let deadline = Deadline::after(clock.now(), ASK_LIMIT);
    let mut names = BTreeMap::new();
    let waiting = (1..=u32::try_from(unlisted.len()).unwrap_or(u32::MAX)).rev();
    for (upstream, waiting) in unlisted.into_iter().zip(waiting) {
        // An equal part of what is left: one that is silent does not hide those after it.
        let share = deadline.left(clock.now()) / waiting;
        match timeout(share, ask(visit, upstream)).await {
            Ok(ids) => {
                names.extend(ids.into_iter().map(|id| (id, upstream.name.to_string())));
            }
            Err(_elapsed) => {
                tracing::debug!(upstream = %upstream.name, "no list of models in time");
            }
        }
        visit.exchange.mark(visit.exchange.doing);
    }
    visit.exchange.doing = Stage::Encode;
    names
}

async fn ask(visit: &mut Visit<'_>, upstream: &Arc<Upstream>) -> Vec<String> {
    let path = match upstream.spec.kind {
        // Its pages are short otherwise.
        UpstreamKind::Anthropic => "/v1/models?limit=1000",
        _ => "/v1/models",
    };
    let fetched = fetch(visit.exchange, upstream, path, LIST_BYTES_MAX).await;
    let read = fetched
        .map_err(|failure| failure.error.message)
        .and_then(|body| serde_json::from_slice(&body).map_err(|error| error.to_string()));
    match read {
        Ok(List { data }) => data.into_iter().map(|line| line.id).collect(),
        Err(error) => {
            tracing::debug!(upstream = %upstream.name, error, "no list of models");
            Vec::new()
        }
    }
}
