//! List and watch, for ever: <https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes>.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::Backoff;
use futures_util::TryStreamExt as _;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::world::{Change, Seen};

/// Objects in one page of a list.
const PAGE: u32 = 500;

/// What the API server says when a version is too old to watch from.
const GONE: u16 = 410;

/// One kind of object, and who is told of it.
#[derive(Debug, Clone)]
pub(crate) struct Follow<K> {
    pub(crate) api: Api<K>,
    /// A label selector.
    pub(crate) labels: String,
    /// Lists that have been begun, of all kinds.
    pub(crate) lists: Arc<AtomicU64>,
    pub(crate) tell: mpsc::Sender<Seen>,
    pub(crate) as_seen: fn(Change<K>) -> Seen,
}

/// Nobody listens any more.
struct Unheard;

/// Why a round is over.
enum Over {
    /// Versions have been forgotten: all is listed anew.
    Stale,
    Failed(kube::Error),
    Unheard,
}

impl From<kube::Error> for Over {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == GONE => Self::Stale,
            _ => Self::Failed(error),
        }
    }
}

impl From<Unheard> for Over {
    fn from(Unheard: Unheard) -> Self {
        Self::Unheard
    }
}

impl<K> Follow<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Ends when nobody listens any more.
    pub(crate) async fn run(self, kind: &'static str) {
        let seed = kind
            .bytes()
            .fold(7, |seed, byte| seed * 31 + u64::from(byte));
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30), seed);
        loop {
            match self.round(&mut backoff).await {
                Ok(never) => match never {},
                Err(Over::Unheard) => return,
                Err(Over::Stale) => {}
                Err(Over::Failed(error)) => {
                    let error = base::chain(&error);
                    tracing::warn!(kind, error, "the cluster cannot be watched");
                }
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    async fn round(&self, backoff: &mut Backoff) -> Result<std::convert::Infallible, Over> {
        let mut version = self.list().await?;
        loop {
            let params = WatchParams::default().labels(&self.labels);
            let mut events = pin!(self.api.watch(&params, &version).await?);
            let mut quiet = true;
            while let Some(event) = events.try_next().await? {
                quiet = false;
                backoff.reset();
                let change = match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => Change::Put(object),
                    WatchEvent::Deleted(object) => Change::Gone(object),
                    WatchEvent::Bookmark(mark) => {
                        version = mark.metadata.resource_version;
                        continue;
                    }
                    WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
                };
                if let Change::Put(object) | Change::Gone(object) = &change {
                    version = object.resource_version().unwrap_or(version);
                }
                self.tell(change).await?;
            }
            // A server ends watches after some minutes; one that ends them at once is given time.
            if quiet {
                tokio::time::sleep(backoff.next_wait()).await;
            }
        }
    }

    /// Tells of all there are, and returns the version to watch from.
    async fn list(&self) -> Result<String, Over> {
        let number = self.lists.fetch_add(1, Ordering::SeqCst) + 1;
        let mut params = ListParams::default().labels(&self.labels).limit(PAGE);
        let mut items = Vec::new();
        loop {
            let page = self.api.list(&params).await?;
            items.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => {
                    self.tell(Change::All { number, items }).await?;
                    return Ok(page.metadata.resource_version.unwrap_or_default());
                }
            }
        }
    }

    async fn tell(&self, change: Change<K>) -> Result<(), Unheard> {
        let seen = (self.as_seen)(change);
        self.tell.send(seen).await.map_err(|_| Unheard)
    }
}
