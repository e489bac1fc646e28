use proptest::prelude::*;

use super::*;
use crate::cluster::{Cluster, Node};
use crate::policy::{GpuClustering, GpuPacking};
use crate::request::Request;
use crate::scheduler::Scheduler;

fn cluster(sizes: &[(u8, u32)]) -> Cluster {
    let node = |(at, (gpus, cores)): (usize, &(u8, u32))| Node {
        name: format!("n{at}"),
        cpu_milli: cores * 1_000,
        memory_mib: 100_000,
        gpus: *gpus,
        model: if at % 3 == 0 { "T4" } else { "A10" }.to_owned(),
        ..Node::default()
    };
    Cluster::new(sizes.iter().enumerate().map(node).collect()).unwrap()
}

fn request() -> impl Strategy<Value = Request> {
    let gpus = prop_oneof![
        Just((0, 0)),
        Just((1, 300)),
        Just((1, 1_000)),
        Just((2, 1_000))
    ];
    (1_u32..9, 0_u32..40_000, gpus, any::<bool>()).prop_map(
        |(cores, memory_mib, (gpus, gpu_milli), t4)| Request {
            cpu_milli: cores * 1_000,
            memory_mib,
            gpus,
            gpu_milli,
            models: t4.then(|| "T4".to_owned()).into_iter().collect(),
            ..Request::default()
        },
    )
}

/// What the tree must find: every node looked at, the first of the best.
fn by_looking_at_all(
    cluster: &Cluster,
    ask: &Ask,
    policy: &mut dyn Policy,
) -> Option<(usize, i32)> {
    let view = policy.view();
    let mut best = None;
    for (node, state) in cluster.states().iter().enumerate() {
        let seen = view.of(state);
        if ask.fits(&seen) {
            let value = policy.score(&seen, ask).value;
            if best.is_none_or(|(_, score)| value > score) {
                best = Some((node, value));
            }
        }
    }
    best
}

proptest! {
    #[test]
    fn the_tree_finds_the_first_of_the_best_whatever_came_and_went(
        sizes in prop::collection::vec((0_u8..9, 1_u32..64), 1..80),
        events in prop::collection::vec((request(), any::<bool>()), 1..120),
        packing: bool,
    ) {
        let policy = || -> Box<dyn Policy> {
            if packing { Box::new(GpuPacking) } else { Box::new(GpuClustering) }
        };
        let mut scheduler = Scheduler::new(cluster(&sizes), policy(), 1);
        let mut running = Vec::new();
        for (request, leave) in events {
            if leave && let Some((ask, placement)) = running.pop() {
                scheduler.release(&ask, &placement);
            }
            let ask = scheduler.ask(&request);
            let expected = by_looking_at_all(scheduler.cluster(), &ask, &mut *policy());
            let placed = scheduler.place(&ask);
            prop_assert_eq!(placed.as_ref().map(|placed| (placed.placement.node, placed.score)), expected);
            running.extend(placed.map(|placed| (ask, placed.placement)));
        }
    }

    #[test]
    fn what_was_taken_is_what_is_given_back(
        sizes in prop::collection::vec((0_u8..9, 1_u32..64), 1..20),
        requests in prop::collection::vec(request(), 1..60),
    ) {
        let mut scheduler = Scheduler::new(cluster(&sizes), Box::new(GpuPacking), 1);
        let before = scheduler.cluster().states().to_vec();
        let mut running = Vec::new();
        for request in requests {
            let ask = scheduler.ask(&request);
            running.extend(scheduler.place(&ask).map(|placed| (ask, placed.placement)));
            let free: u64 = scheduler.cluster().states().iter().map(|state| u64::from(state.free_milli())).sum();
            let cluster = scheduler.cluster();
            prop_assert_eq!(free + cluster.allocated_milli(), cluster.capacity_milli());
        }
        for (ask, placement) in running {
            scheduler.release(&ask, &placement);
        }
        prop_assert_eq!(scheduler.cluster().states(), &before[..]);
    }
}
