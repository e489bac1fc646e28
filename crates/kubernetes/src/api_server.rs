//! An API server in memory, for tests: objects with versions, lists, watches, conflicts and versions that are forgotten,
//! as <https://kubernetes.io/docs/reference/using-api/api-concepts/> has them. Nobody runs pods: a test says what becomes of
//! its objects.

mod path;
mod serve;
mod store;
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{TaskKind, Tasks};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub(crate) use path::Kind;
use store::Store;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct ApiServer {
    address: SocketAddr,
    store: Arc<Mutex<Store>>,
}

impl ApiServer {
    pub(crate) async fn start(tasks: &Tasks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let store = Arc::new(Mutex::new(Store::default()));
        let (serving, workers) = (Arc::clone(&store), tasks.clone());
        tasks.spawn(TaskKind::Listener, "API server", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let store = Arc::clone(&serving);
                let answer = service_fn(move |request| serve::answer(Arc::clone(&store), request));
                workers.spawn(TaskKind::Connection, "API client", async move {
                    let connection =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                    let _client_went = connection.await;
                    Ok(())
                });
            }
            Ok(())
        });
        Self { address, store }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn client(&self) -> Client {
        let url = self.url().parse().expect("a URL");
        Client::try_from(Config::new(url)).expect("no TLS, no files")
    }

    /// As a node or a controller would.
    pub(crate) fn put(&self, kind: Kind, object: Value) {
        self.store.lock().apply(kind, object);
    }

    pub(crate) fn get(&self, kind: Kind, name: &str) -> Option<Value> {
        self.store.lock().get(kind, name)
    }

    /// What a controller writes.
    pub(crate) fn set_status(&self, kind: Kind, name: &str, status: &Value) {
        let mut object = self.get(kind, name).expect("it is there");
        object["status"] = status.clone();
        self.put(kind, object);
    }

    /// What the garbage collector does when the last pod is gone.
    pub(crate) fn remove(&self, kind: Kind, name: &str) {
        self.store.lock().remove(kind, name);
    }

    /// Watches end, and their versions are not known any more.
    pub(crate) fn forget_history(&self) {
        self.store.lock().forget();
    }

    /// Watches end; nothing is forgotten.
    pub(crate) fn cut_watches(&self) {
        self.store.lock().cut();
    }

    /// The next requests whose `METHOD path` begins so are refused with this code.
    pub(crate) fn refuse(&self, start: &str, code: u16) {
        self.store.lock().refusals.push((start.to_owned(), code));
    }

    pub(crate) fn refuse_nothing(&self) {
        self.store.lock().refusals.clear();
    }

    /// `METHOD path?query` of every request.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.store.lock().requests.clone()
    }

    pub(crate) async fn until<T>(&self, what: &str, ask: impl Fn(&Self) -> Option<T>) -> T {
        let mut changes = self.store.lock().changes.subscribe();
        let wait = async {
            loop {
                if let Some(found) = ask(self) {
                    return found;
                }
                changes.changed().await.expect("the store lives");
            }
        };
        let found = tokio::time::timeout(PATIENCE, wait).await;
        found.unwrap_or_else(|_| unreachable!("not within {PATIENCE:?}: {what}"))
    }

    /// A pod that belongs to a job's object.
    pub(crate) fn pod_of(&self, owner: &Value, name: &str, status: &Value) {
        let labels = owner["spec"]["template"]["metadata"]["labels"].clone();
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": owner["metadata"]["namespace"], "labels": labels},
            "spec": owner["spec"]["template"]["spec"],
            "status": status,
        });
        self.put(Kind::Pods, pod);
    }
}
