//! `/v1/models`: what can be asked for here, wherever it is answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::openai::ModelEntry;
use tokio::time::timeout;

use crate::doors::visit::Visit;
use crate::relay::fetch;
use crate::upstream::{Upstream, Wire};

/// For all upstreams that have to be asked together: a list without one of them is better than none.
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
    let shared = visit.exchange.gateway.shared();
    for entry in shared.models.index() {
        names.insert(entry.name, "kapok".to_owned());
    }
    names.retain(|id, _| visit.key.is_none_or(|key| key.sees(id)));
    names
        .into_iter()
        .map(|(id, owned_by)| {
            let entry = ModelEntry {
                id: id.clone(),
                created: shared.started_seconds,
                owned_by,
            };
            (id, entry)
        })
        .collect()
}

/// What the upstreams say that were configured without a list.
async fn asked(visit: &mut Visit<'_>) -> BTreeMap<String, String> {
    let snapshot = Arc::clone(visit.snapshot);
    let mut names = BTreeMap::new();
    let asking = async {
        for upstream in snapshot.upstreams.values() {
            let unlisted = upstream.spec.models.is_none();
            if unlisted && upstream.speaks(Wire::OpenAi) && upstream.ready() {
                for id in ask(visit, upstream).await {
                    names.insert(id, upstream.name.to_string());
                }
            }
        }
    };
    if timeout(ASK_LIMIT, asking).await.is_err() {
        tracing::debug!("not every upstream said in time which models it has");
    }
    names
}

async fn ask(visit: &mut Visit<'_>, upstream: &Arc<Upstream>) -> Vec<String> {
    let fetched = fetch(visit.exchange, upstream, "/v1/models", LIST_BYTES_MAX).await;
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
