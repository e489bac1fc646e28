//! This node as a server of others: registered while it serves, gone before it stops.

use std::net::SocketAddr;

use base::{TaskKind, Tasks};
use discovery::Registration;
use protocol::resource::{Endpoint, NodeSpec};
use tokio::sync::{oneshot, watch};

/// The entry, for as long as this is there.
#[derive(Debug)]
pub(super) struct Registered {
    wanted: watch::Sender<bool>,
    gone: oneshot::Receiver<()>,
}

impl Registered {
    /// Starts to register the node; none if nobody wants it to. Serving does not wait for the registry.
    pub(super) fn start(
        node: &NodeSpec,
        public: Option<SocketAddr>,
        tasks: &Tasks,
    ) -> Option<Self> {
        let spec = node.register.as_ref()?;
        let listen = public.unwrap_or(node.listen);
        let url = spec
            .url
            .clone()
            .unwrap_or_else(|| format!("http://{listen}"));
        if spec.url.is_none() && listen.ip().is_unspecified() {
            tracing::warn!(
                url,
                "others cannot reach this node by the address that it registers: set `register.url`"
            );
        }
        let endpoint = Endpoint {
            region: node.region.clone(),
            ..Endpoint::at(url)
        };
        let registration = Registration::new(spec, &endpoint, tasks.clone());
        let (wanted, wishes) = watch::channel(true);
        let (tell, gone) = oneshot::channel();
        tasks.spawn(TaskKind::Registration, "registration", async move {
            let first = || tracing::info!(url = endpoint.url, "this node is registered");
            registration.keep(wishes, first).await;
            // Nobody waits for it when the process that takes over has written the entry anew.
            let _unheard = tell.send(());
            Ok(())
        });
        Some(Self { wanted, gone })
    }

    /// Takes the entry away, so that nobody is sent here any more.
    pub(super) async fn leave(self) {
        self.wanted.send_replace(false);
        let _gone = self.gone.await;
    }
}
