use std::num::NonZeroUsize;

use base::PerCore;
use serde_json::json as value;

use super::Served;
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
