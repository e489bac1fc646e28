//! Asks upstreams how they are, so that a sick one is passed over before a request finds out.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use protocol::resource::UpstreamKind;
use tokio::time::timeout;

use crate::gateway::Gateway;
use crate::upstream::{Upstream, get};

/// Checks at a time: with more due than this the others are late, and no upstream gets more of them than one.
const AT_ONCE: usize = 16;

/// What a health page may be long; nobody reads it.
const PAGE_BYTES_MAX: usize = 64 << 10;

/// How often it is looked who is due: a new snapshot tells nobody here.
const TICK: Duration = Duration::from_millis(100);

type Check = Pin<Box<dyn Future<Output = (Arc<Upstream>, Result<(), String>)> + Send>>;

#[derive(Debug)]
struct Turn {
    at: Instant,
    failed: u32,
    checking: bool,
}

/// One task for all upstreams, for as long as the node runs.
pub(crate) async fn watch(gateway: Gateway) {
    let mut turns: HashMap<Arc<str>, Turn> = HashMap::new();
    let mut checks: Vec<Check> = Vec::new();
    loop {
        start_due(&gateway, &mut turns, &mut checks);
        // Cancel-safe: checks stay where they are.
        tokio::select! {
            (upstream, found) = ended(&mut checks) => settle(&gateway, &mut turns, &upstream, found),
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

fn start_due(gateway: &Gateway, turns: &mut HashMap<Arc<str>, Turn>, checks: &mut Vec<Check>) {
    let now = gateway.shared().clock.now();
    let snapshot = gateway.snapshot();
    turns.retain(|name, _| snapshot.upstreams.contains_key(name));
    for upstream in snapshot.upstreams.values() {
        let health = &upstream.spec.health;
        let looks_at_memory = health.free_gpu_memory_min_mb > 0;
        if (path(upstream).is_none() && !looks_at_memory) || !upstream.ready() {
            continue;
        }
        let interval = Duration::from_millis(health.interval_ms);
        let turn = turns.entry(Arc::clone(&upstream.name)).or_insert(Turn {
            at: now + interval,
            failed: 0,
            checking: false,
        });
        if turn.checking || turn.at > now || checks.len() >= AT_ONCE {
            continue;
        }
        turn.checking = true;
        turn.at = now + interval;
        checks.push(Box::pin(check(gateway.clone(), Arc::clone(upstream))));
    }
}

/// Where servers of this kind say how they are. Of a plain OpenAI server nobody knows.
fn path(upstream: &Upstream) -> Option<&str> {
    if let Some(path) = &upstream.spec.health.path {
        return Some(path.as_str()).filter(|path| !path.is_empty());
    }
    match upstream.spec.kind {
        UpstreamKind::Vllm | UpstreamKind::Sglang => Some("/health"),
        UpstreamKind::Kapok => Some("/v2/health/live"),
        UpstreamKind::Triton if upstream.speaks_oip_rest() => Some("/v2/health/live"),
        _ => None,
    }
}

async fn ended(checks: &mut Vec<Check>) -> (Arc<Upstream>, Result<(), String>) {
    poll_fn(|cx| {
        for index in 0..checks.len() {
            if let Poll::Ready(end) = checks[index].as_mut().poll(cx) {
                drop(checks.swap_remove(index));
                return Poll::Ready(end);
            }
        }
        Poll::Pending
    })
    .await
}

async fn check(gateway: Gateway, upstream: Arc<Upstream>) -> (Arc<Upstream>, Result<(), String>) {
    let shared = gateway.shared();
    let spec = &upstream.spec.health;
    let mut found = Ok(());
    if let Some(path) = path(&upstream) {
        let patience = Duration::from_millis(spec.timeout_ms);
        let asking = get(
            &upstream,
            path,
            (&shared.tasks, &shared.clock),
            PAGE_BYTES_MAX,
        );
        found = match timeout(patience, asking).await {
            Ok(Ok(_page)) => Ok(()),
            Ok(Err(error)) => Err(format!("asked for {path}: {}", base::chain(&error))),
            Err(_elapsed) => {
                let waited = spec.timeout_ms;
                Err(format!("asked for {path}: nothing within {waited} ms"))
            }
        };
    }
    (upstream, found)
}

fn settle(
    gateway: &Gateway,
    turns: &mut HashMap<Arc<str>, Turn>,
    upstream: &Upstream,
    found: Result<(), String>,
) {
    let shared = gateway.shared();
    let Some(turn) = turns.get_mut(&upstream.name) else {
        return;
    };
    turn.checking = false;
    let spec = &upstream.spec.health;
    let ill = match found {
        Ok(()) => {
            turn.failed = 0;
            little_memory(upstream, shared.now_ms())
        }
        Err(why) => {
            turn.failed = turn.failed.saturating_add(1);
            if turn.failed < spec.unhealthy_after {
                return;
            }
            if turn.failed == spec.unhealthy_after {
                tracing::warn!(upstream = %upstream.name, why, "fails its health checks");
            }
            Some(why)
        }
    };
    upstream.live.health.checked(ill, shared.clock.now());
}

/// Why its memory speaks against it, where it tells how much is free.
fn little_memory(upstream: &Upstream, now_ms: u32) -> Option<String> {
    let min_mb = upstream.spec.health.free_gpu_memory_min_mb;
    let load = upstream.live.meter.read(now_ms);
    let free_mb = load.reported?.report.gpu_free_bytes? >> 20;
    (free_mb < min_mb).then(|| format!("it has {free_mb} MiB of GPU memory free, below {min_mb}"))
}
