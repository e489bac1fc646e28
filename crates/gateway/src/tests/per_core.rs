use std::num::NonZeroUsize;

use base::PerCore;
use protocol::oip::proto::ServerLiveRequest;
use serde_json::json as value;

use super::Served;
use super::grpc::Channel;
use super::upstream::{FakeUpstream, json};
use crate::Config;
use crate::snapshot::tests::upstream;

const REQUEST: &str = r#"{"model":"m","messages":[]}"#;

#[tokio::test]
async fn each_core_serves_its_clients_over_upstream_connections_of_its_own() {
    let cores = PerCore::start(NonZeroUsize::new(2).expect("two")).expect("threads");
    let served = Served::on(Some(cores), Config::default(), &[]);
    let fake = FakeUpstream::start(&served.tasks, vec![vec![json("{}")]]).await;
    let fields = value!({"url": fake.url(), "models": ["m"]});
    served
        .gateway
        .publish(&[upstream("up", fields)])
        .expect("good resources");
    // A connection goes where the fewest are, so these two are on different cores.
    let mut clients = [served.client().await, served.client().await];
    for _ in 0..3 {
        for client in &mut clients {
            let answer = client
                .ask("POST", "/v1/chat/completions", "", REQUEST.as_bytes())
                .await;
            assert_eq!(answer.status, 200);
        }
    }
    // Six requests, and as many upstream connections as cores: none was passed from one core to the other.
    assert_eq!(fake.requests().len(), 6);
    assert_eq!(fake.connections(), 2);
    drop(clients);
    assert!(served.drain().await);
}

#[tokio::test]
async fn a_connection_of_http2_takes_no_cores_place() {
    let cores = PerCore::start(NonZeroUsize::new(2).expect("two")).expect("threads");
    let served = Served::on(Some(cores.clone()), Config::default(), &[]);
    let core = |cores: &PerCore| cores.sit().handle().map(|core| core.id());
    let first = core(&cores);
    let mut channel = Channel::open(&served, served.public).await;
    let called = channel.call("ServerLive", &ServerLiveRequest {}).await;
    assert_eq!(called.status, "0");
    assert_eq!(core(&cores), first, "it is as empty as the other");

    let mut client = served.client().await;
    assert_eq!(client.ask("GET", "/v2", "", b"").await.status, 200);
    assert_ne!(core(&cores), first, "HTTP/1.1 stays");
    drop((channel, client));
    assert!(served.drain().await);
}
