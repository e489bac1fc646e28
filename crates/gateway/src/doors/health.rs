use http::{HeaderMap, HeaderValue, StatusCode};
use protocol::oip::rest;
use protocol::resource::Scope;
use serde::Serialize;

use super::path::{Call, Oip};
use crate::body::Payload;
use crate::exchange::Exchange;
use crate::gateway::Gateway;
use crate::listener::Door;
use crate::reply::{Failure, JSON, Reply, Shape};
use crate::snapshot::Snapshot;

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    /// What is missing, by name, and why; none for who may not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<Vec<Waiting>>,
}

#[derive(Serialize)]
struct Waiting {
    kind: &'static str,
    name: String,
    reason: String,
}

/// The process answers, which is all that is asked.
pub(super) fn live(call: &Call) -> Reply {
    match call {
        Call::Oip(Oip::Live) => Reply::json(rest::live(true)),
        _ => Reply::json(&b"{\"live\":true}"[..]),
    }
}

/// Whether every model that should be loaded is, every managed process takes requests, and the node is to go on.
pub(super) fn ready(
    exchange: &Exchange,
    snapshot: &Snapshot,
    shape: Shape,
    asked: (Door, &HeaderMap),
) -> Result<Reply, Failure> {
    let waiting_for = waiting(&exchange.gateway, snapshot);
    let ready = waiting_for.is_empty();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    if shape == Shape::Oip {
        let body = Payload::full(rest::ready(ready));
        return Ok(Reply::new(status, JSON, body));
    }
    let body = Readiness {
        ready,
        waiting_for: may_know(snapshot, asked).then_some(waiting_for),
    };
    Ok(Reply::serialised(status, &body)?)
}

/// Names, load errors and a process's last words are for operators: readiness itself needs no key.
fn may_know(snapshot: &Snapshot, (door, headers): (Door, &HeaderMap)) -> bool {
    door == Door::Admin
        || snapshot
            .keys
            .check(headers)
            .is_ok_and(|key| key.is_none_or(|key| key.opens(Scope::Admin).is_ok()))
}

pub(super) fn is_ready(gateway: &Gateway, snapshot: &Snapshot) -> bool {
    !gateway.shared().leaving()
        && models_ready(gateway)
        && snapshot.upstreams.values().all(|upstream| upstream.ready())
}

fn models_ready(gateway: &Gateway) -> bool {
    let shared = gateway.shared();
    !shared.config.strict_readiness || shared.models.ready()
}

fn waiting(gateway: &Gateway, snapshot: &Snapshot) -> Vec<Waiting> {
    let models = &gateway.shared().models;
    let mut waiting: Vec<Waiting> = snapshot
        .upstreams
        .values()
        .filter(|upstream| !upstream.ready())
        .map(|upstream| Waiting {
            kind: "upstream",
            name: upstream.name.to_string(),
            reason: upstream.reason(),
        })
        .collect();
    if gateway.shared().leaving() {
        waiting.push(Waiting {
            kind: "node",
            name: String::new(),
            reason: "the node is stopping".to_owned(),
        });
    }
    if models_ready(gateway) {
        return waiting;
    }
    let before = waiting.len();
    waiting.extend(
        models
            .index()
            .into_iter()
            .filter(|entry| entry.state != protocol::ModelState::Ready)
            .map(|entry| Waiting {
                kind: "model",
                reason: if entry.reason.is_empty() {
                    entry.state.name().to_lowercase()
                } else {
                    entry.reason
                },
                name: entry.name,
            }),
    );
    if waiting.len() == before {
        waiting.push(Waiting {
            kind: "model",
            name: String::new(),
            reason: "the repository is still being read".to_owned(),
        });
    }
    waiting
}

pub(super) fn metrics(exchange: &Exchange) -> Reply {
    let text = exchange.gateway.shared().registry.encode();
    Reply::new(
        StatusCode::OK,
        HeaderValue::from_static(telemetry::metrics::CONTENT_TYPE),
        Payload::full(text),
    )
}
