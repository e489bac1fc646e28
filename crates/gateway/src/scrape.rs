//! Looks at upstreams' metrics pages, so that whoever chooses knows what they say of themselves.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::future::{Future, poll_fn};
use std::hash::BuildHasher as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use base::Backoff;
use protocol::metrics_page::read_load;
use protocol::resource::UpstreamKind;
use routing::Report;
use tokio::time::timeout;

use crate::gateway::Gateway;
use crate::upstream::{Upstream, get, get_elsewhere};

/// Looks at a time: with more due than this the others are late, and no upstream gets more of them than one.
const AT_ONCE: usize = 16;

/// A page of vLLM's is 40 KB, of Triton's with a thousand models a few hundred.
const PAGE_BYTES_MAX: usize = 2 << 20;

/// An upstream that does not tell is asked ever less often.
const SILENT_EVERY: Duration = Duration::from_secs(30);

/// No look takes longer than this, whatever its interval.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long nothing can be due before it is looked again who is there: a new snapshot tells nobody here.
const IDLE: Duration = Duration::from_millis(250);

/// When an upstream is looked at next.
struct Turn {
    at: Instant,
    pace: Backoff,
    looking: bool,
}

type Look = Pin<Box<dyn Future<Output = (Arc<str>, bool)> + Send>>;

/// One task for all upstreams, for as long as the node runs.
pub(crate) async fn watch(gateway: Gateway) {
    let mut turns: HashMap<Arc<str>, Turn> = HashMap::new();
    let mut looks: Vec<Look> = Vec::with_capacity(AT_ONCE);
    loop {
        let now = gateway.shared().clock.now();
        let next = start_due(&gateway, &mut turns, &mut looks, now);
        // Cancel-safe: looks stay where they are.
        tokio::select! {
            (name, told) = ended(&mut looks) => {
                if let Some(turn) = turns.get_mut(&name) {
                    turn.looking = false;
                    if told {
                        turn.pace.reset();
                    }
                    turn.at = gateway.shared().clock.now() + turn.pace.next_wait();
                }
            }
            () = tokio::time::sleep(next.saturating_duration_since(now).min(IDLE)) => {}
        }
    }
}

/// Begins what is due and says when the next is.
fn start_due(
    gateway: &Gateway,
    turns: &mut HashMap<Arc<str>, Turn>,
    looks: &mut Vec<Look>,
    now: Instant,
) -> Instant {
    let snapshot = gateway.snapshot();
    turns.retain(|name, _| snapshot.upstreams.contains_key(name));
    let mut next = now + IDLE;
    for upstream in snapshot
        .upstreams
        .values()
        .filter(|upstream| tells(upstream))
    {
        let turn = turns
            .entry(Arc::clone(&upstream.name))
            .or_insert_with(|| Turn::first(upstream, now));
        if turn.looking {
            continue;
        }
        if turn.at > now || looks.len() >= AT_ONCE {
            next = next.min(turn.at.max(now));
            continue;
        }
        turn.looking = true;
        looks.push(Box::pin(look(gateway.clone(), Arc::clone(upstream))));
    }
    next
}

impl Turn {
    /// Soon, and not all at once after a start.
    fn first(upstream: &Upstream, now: Instant) -> Self {
        let interval = Duration::from_millis(upstream.spec.load.interval_ms);
        let seed = RandomState::new().hash_one(&*upstream.name);
        // A wait is between one half and the whole of what it is made with: around the interval.
        let mut pace = Backoff::new(interval.mul_f64(1.3), SILENT_EVERY.max(interval), seed);
        let at = now + pace.next_wait().mul_f64(0.1);
        pace.reset();
        Self {
            at,
            pace,
            looking: false,
        }
    }
}

/// Whether an upstream has a page that is worth asking for.
fn tells(upstream: &Upstream) -> bool {
    let spec = &upstream.spec;
    let usual = matches!(
        spec.kind,
        UpstreamKind::Vllm | UpstreamKind::Sglang | UpstreamKind::Kapok
    );
    spec.load.interval_ms > 0 && (usual || upstream.page.is_some()) && upstream.ready()
}

/// The first look that ends; never if there is none.
async fn ended(looks: &mut Vec<Look>) -> (Arc<str>, bool) {
    poll_fn(|cx| {
        for index in 0..looks.len() {
            if let Poll::Ready(end) = looks[index].as_mut().poll(cx) {
                drop(looks.swap_remove(index));
                return Poll::Ready(end);
            }
        }
        Poll::Pending
    })
    .await
}

/// One look; true if the page told anything. What was told before is believed until it is too old.
async fn look(gateway: Gateway, upstream: Arc<Upstream>) -> (Arc<str>, bool) {
    let shared = gateway.shared();
    let read = async {
        match &upstream.page {
            Some(page) => get_elsewhere(page, PAGE_BYTES_MAX).await,
            None => {
                get(
                    &upstream,
                    "/metrics",
                    (&shared.tasks, &shared.clock),
                    PAGE_BYTES_MAX,
                )
                .await
            }
        }
    };
    let page = match timeout(PATIENCE, read).await {
        Ok(Ok(page)) => page,
        Ok(Err(error)) => {
            tracing::debug!(upstream = %upstream.name, error = base::chain(&error), "tells no load");
            return (Arc::clone(&upstream.name), false);
        }
        Err(_elapsed) => return (Arc::clone(&upstream.name), false),
    };
    let load = read_load(&page);
    if load.queued.is_none() && load.running.is_none() && load.gpu_free_bytes.is_none() {
        tracing::debug!(upstream = %upstream.name, "its metrics page tells no load");
        return (Arc::clone(&upstream.name), false);
    }
    let report = Report {
        queued: load.queued,
        running: load.running,
        kv_use: load.kv_use,
        gpu_free_bytes: load.gpu_free_bytes,
    };
    upstream.live.meter.report(&report, shared.now_ms());
    (Arc::clone(&upstream.name), true)
}
