mod laws;
mod plain;

use super::*;
use crate::request::Request;

pub(super) fn node(name: &str, cores: u32, gpus: u8) -> Node {
    Node {
        name: name.to_owned(),
        cpu_milli: cores * 1_000,
        memory_mib: 100_000,
        gpus,
        model: "A100".to_owned(),
        gpu_memory_mib: 40_000,
        region: "here".to_owned(),
        ..Node::default()
    }
}

pub(super) fn job(id: u64, gpus: u8) -> Job {
    let request = Request {
        cpu_milli: 1_000,
        memory_mib: 1_000,
        gpus,
        gpu_milli: if gpus == 0 { 0 } else { 1_000 },
        ..Request::default()
    };
    Job::new(id, request)
}

pub(super) fn queue(nodes: Vec<Node>) -> Queue {
    Queue::new(Config::default(), nodes).unwrap()
}

/// Ids of jobs that are told to start.
pub(super) fn started(actions: &[Action]) -> Vec<u64> {
    let starts = actions
        .iter()
        .filter(|action| matches!(action, Action::Start { .. }));
    starts.map(|action| action.job().0).collect()
}

fn stopped(actions: &[Action]) -> Vec<u64> {
    let stops = actions
        .iter()
        .filter(|action| matches!(action, Action::Stop { .. }));
    stops.map(|action| action.job().0).collect()
}

#[test]
fn a_gang_starts_together_or_not_at_all() {
    let mut queue = queue(vec![node("a", 64, 4), node("b", 64, 4), node("c", 64, 2)]);
    let gang = Job {
        gang: 3,
        ..job(1, 4)
    };
    queue.submit(gang, 0).unwrap();
    assert_eq!(queue.step(0), []);
    let why = &queue.get(JobId(1)).unwrap().phase;
    assert_eq!(
        why,
        &Phase::Pending {
            wait: Wait::NoMatchingFlavor
        }
    );
    queue.node_joined(node("c", 64, 4), 1).unwrap();
    queue.submit(job(2, 2), 1).unwrap();
    queue.cancel(JobId(1)).unwrap();
    queue
        .submit(
            Job {
                id: JobId(3),
                gang: 3,
                ..job(1, 4)
            },
            2,
        )
        .unwrap();
    assert_eq!(started(&queue.step(2)), [2]);
    assert_eq!(
        queue.get(JobId(3)).unwrap().phase,
        Phase::Pending {
            wait: Wait::TopologyPlacementFailed { fit: 2 }
        }
    );
    queue.finish(JobId(2)).unwrap();
    assert_eq!(started(&queue.step(3)), [3]);
    assert_eq!(queue.get(JobId(3)).unwrap().phase.places().len(), 3);
}

#[test]
fn a_nodes_loss_sends_its_jobs_back_in_line() {
    let mut queue = queue(vec![node("a", 64, 4)]);
    queue.submit(job(1, 4), 0).unwrap();
    assert_eq!(started(&queue.step(0)), [1]);
    queue.node_left("a", 5).unwrap();
    let actions = queue.step(5);
    let reason = Eviction::NodeFailures {
        node: "a".to_owned(),
    };
    assert_eq!(
        actions,
        [Action::Stop {
            job: JobId(1),
            reason
        }]
    );
    queue.stopped(JobId(1), 6).unwrap();
    queue.node_joined(node("b", 64, 4), 7).unwrap();
    assert_eq!(started(&queue.step(7)), [1]);
}

#[test]
fn slices_reserve_memory_by_their_level_on_the_smallest_device_that_is_enough() {
    let large = Node {
        gpu_memory_mib: 80_000,
        ..node("large", 64, 1)
    };
    let mut queue = queue(vec![large, node("small", 64, 1)]);
    let slice = |id, qos, device_memory_mib| Job {
        qos: Level::try_from(qos).unwrap(),
        device_memory_mib,
        request: Request {
            gpu_milli: 1,
            ..job(0, 1).request
        },
        ..job(id, 1)
    };
    // Of 40,000 MiB: 34,000 at level 3; 110 % of 5,000 at level 5 fits beside it, 4,000 more do not.
    for (id, qos, memory, node, reserved) in [
        (1, 3, 40_000, "small", 34_000),
        (2, 5, 5_000, "small", 5_520),
        (3, 4, 4_000, "large", 4_000),
        (4, 1, 40_000, "large", 20_000),
        (5, 4, 60_000, "none", 0),
    ] {
        queue.submit(slice(id, qos, memory), id).unwrap();
        queue.step(id);
        let places = queue.get(JobId(id)).unwrap().phase.places();
        let seen = places
            .first()
            .map_or(("none", 0), |place| (place.node.as_str(), place.memory_mib));
        assert_eq!(seen, (node, reserved), "job {id}");
    }
    let too_large = slice(6, 4, 81_000);
    queue.submit(too_large, 9).unwrap();
    queue.step(9);
    let why = &queue.get(JobId(6)).unwrap().phase;
    assert_eq!(
        why,
        &Phase::Pending {
            wait: Wait::NoMatchingFlavor
        }
    );
}

#[test]
fn after_a_restart_members_may_go_where_they_might_before() {
    let there = |name: &str, gpu_memory_mib| Node {
        region: "there".to_owned(),
        gpu_memory_mib,
        ..node(name, 64, 4)
    };
    let nodes = vec![node("a", 64, 4), there("b", 40_000), there("c", 80_000)];
    let mut queue = queue(nodes);
    let regions = [
        Region::Anywhere,
        Region::Required("there".to_owned()),
        Region::Preferred("there".to_owned()),
    ];
    for (id, region) in (1..).zip(regions) {
        for (id, device_memory_mib) in [(id, 0), (id + 10, 50_000), (id + 20, 30_000)] {
            let asked = Job {
                region: region.clone(),
                device_memory_mib,
                ..job(id, 1)
            };
            queue.submit(asked, 0).unwrap();
        }
    }
    assert_eq!(started(&queue.step(0)).len(), 9);
    let again = Queue::restore(Config::default(), queue.save()).unwrap();
    assert_eq!(again.taken, queue.taken);
}

#[test]
fn the_cheapest_to_start_again_make_room_and_only_as_many_as_needed() {
    let mut queue = queue(vec![node("a", 64, 4), node("b", 64, 4)]);
    for (id, gpus, checkpoint_ms) in [(1, 4, None), (2, 2, Some(600)), (3, 2, Some(900))] {
        let soft = Job {
            preemptible: true,
            checkpoint_ms,
            qos: Level::LOWEST,
            ..job(id, gpus)
        };
        queue.submit(soft, 0).unwrap();
    }
    assert_eq!(started(&queue.step(0)), [1, 2, 3]);
    let hurried = |id| Job {
        priority: Priority::Realtime,
        ..job(id, 2)
    };
    // Job 2 saved its work 100 ms ago, job 3 400 ms ago.
    queue.submit(hurried(4), 1_300).unwrap();
    assert_eq!(stopped(&queue.step(1_300)), [2]);
    let why = &queue.get(JobId(4)).unwrap().phase;
    assert!(matches!(why, Phase::Reserved { waits_for, .. } if waits_for.contains(&JobId(2))));
    queue.stopped(JobId(2), 1_310).unwrap();
    assert_eq!(started(&queue.step(1_310)), [4]);
    assert_eq!(queue.get(JobId(2)).unwrap().saved_ms, 1_200);
    // Nothing is stopped for a job that would not fit even then.
    let gang = Job {
        gang: 2,
        ..Job {
            priority: Priority::Realtime,
            ..job(5, 4)
        }
    };
    queue.submit(gang, 1_400).unwrap();
    assert_eq!(queue.step(1_400), []);
}

#[test]
fn who_has_waited_past_its_bound_is_stopped_for_nobody() {
    let bound = Config::default().qos.of(Level::LOWEST).overtaken_ms;
    for (waits, expected) in [(bound - 1, vec![2]), (bound, vec![])] {
        let mut queue = queue(vec![node("a", 64, 4)]);
        queue.submit(job(1, 4), 0).unwrap();
        assert_eq!(started(&queue.step(0)), [1]);
        let soft = Job {
            preemptible: true,
            qos: Level::LOWEST,
            ..job(2, 4)
        };
        queue.submit(soft, 0).unwrap();
        queue.finish(JobId(1)).unwrap();
        assert_eq!(started(&queue.step(waits)), [2]);
        let hurried = Job {
            priority: Priority::Realtime,
            ..job(3, 2)
        };
        queue.submit(hurried, waits + 1).unwrap();
        assert_eq!(
            stopped(&queue.step(waits + 1)),
            expected,
            "waited {waits} ms"
        );
    }
}

#[test]
fn quota_is_taken_back_from_others_jobs_only_as_the_rule_allows() {
    const SECOND_MS: u64 = 1_000;
    let half = Tenant {
        nominal: Some(Amounts {
            cpu_milli: 64_000,
            memory_mib: 100_000,
            gpu_milli: 2_000,
        }),
        ..Tenant::default()
    };
    // One that borrows runs for 100 s and never saves; the owner needs its part for 20 s after so many seconds.
    let stopped = |reclaim, at_s: u64| {
        let config = Config {
            reclaim,
            other_tenants: half,
            ..Config::default()
        };
        let mut queue = Queue::new(config, vec![node("a", 64, 4)]).unwrap();
        let of = |id, gpus, tenant: &str, seconds: u64| Job {
            tenant: tenant.to_owned(),
            preemptible: true,
            expected_ms: Some(seconds * SECOND_MS),
            ..job(id, gpus)
        };
        queue.submit(of(1, 4, "borrower", 100), 0).unwrap();
        assert_eq!(started(&queue.step(0)), [1]);
        let now_ms = at_s * SECOND_MS;
        queue.submit(of(2, 2, "owner", 20), now_ms).unwrap();
        let actions = queue.step(now_ms);
        actions
            .iter()
            .any(|action| matches!(action, Action::Stop { job, .. } if job.0 == 1))
    };
    let cases = [
        (Reclaim::Never, 10, false),
        (Reclaim::Worthwhile, 10, true),
        // 60 s are done that would be done again, for 40 s that are left.
        (Reclaim::Worthwhile, 60, false),
        (Reclaim::Always, 60, true),
    ];
    for (reclaim, at_s, expected) in cases {
        assert_eq!(
            stopped(reclaim, at_s),
            expected,
            "{reclaim:?} after {at_s} s"
        );
    }
    assert_eq!(Config::default().reclaim, Reclaim::Never);
}

#[test]
fn of_a_tenants_jobs_the_shortest_goes_first_until_one_has_waited_to_its_bound() {
    let mut queue = queue(vec![node("a", 64, 1)]);
    let lasting = |id, seconds: u64| Job {
        expected_ms: Some(seconds * 1_000),
        ..job(id, 1)
    };
    queue.submit(lasting(1, 60), 0).unwrap();
    assert_eq!(started(&queue.step(0)), [1]);
    queue.submit(job(2, 1), 1).unwrap();
    queue.submit(lasting(3, 500), 2).unwrap();
    queue.submit(lasting(4, 5), 3).unwrap();
    assert_eq!(queue.step(3), []);
    assert_eq!(queue.in_order(3), [4, 3, 2].map(JobId));
    // Six hours at level 3.
    let bound_ms = queue.bound_ms(JobId(2)).unwrap();
    assert_eq!(queue.in_order(bound_ms), [2, 4, 3].map(JobId));
}

#[test]
fn those_past_their_bounds_go_first_until_they_have_their_part_of_the_cluster() {
    // Two of eight GPUs are a quarter. The long ones have waited past their bounds when all that runs ends at once.
    let bound_ms = Config::default().qos.of(Level::default()).overtaken_ms;
    let lasting = |id, gpus, seconds: u64| Job {
        expected_ms: Some(seconds * 1_000),
        ..job(id, gpus)
    };
    for (percent, long, expected) in [
        (25, 1, vec![2, 3, 10, 11, 12, 13, 14, 15]),
        (0, 1, vec![2, 10, 11, 12, 13, 14, 15, 16]),
        (100, 1, vec![2, 3, 4, 5, 6, 7, 8, 9]),
        // More than its part, and the only one.
        (25, 4, vec![2, 10, 11, 12, 13]),
    ] {
        let config = Config {
            past_bounds_percent: percent,
            ..Config::default()
        };
        let mut queue = Queue::new(config, vec![node("a", 64, 8)]).unwrap();
        queue.submit(job(1, 8), 0).unwrap();
        assert_eq!(started(&queue.step(0)), [1]);
        for id in 2..10 {
            queue.submit(lasting(id, long, 10_000), id).unwrap();
        }
        queue.step(10);
        let now_ms = bound_ms + 20;
        for id in 10..18 {
            queue.submit(lasting(id, 1, 10), now_ms).unwrap();
        }
        queue.finish(JobId(1)).unwrap();
        let mut ids = started(&queue.step(now_ms));
        ids.sort_unstable();
        assert_eq!(ids, expected, "{percent} %, {long} GPUs each");
        // The part is in use: what ends next is for those whose turn it is.
        queue.finish(JobId(10)).ok();
        let next = started(&queue.step(now_ms + 1));
        assert!(
            percent == 100 || next.iter().all(|id| *id >= 10),
            "{next:?}"
        );
    }
}

#[test]
fn room_is_kept_for_a_deadline_until_it_is_lost_and_then_others_are_woken() {
    let minute_ms = 60_000;
    let lasting = |id, gpus, minutes: u64| Job {
        expected_ms: Some(minutes * minute_ms),
        ..job(id, gpus)
    };
    let mut queue = queue(vec![node("a", 64, 4)]);
    queue.submit(lasting(1, 1, 10), 0).unwrap();
    queue.submit(lasting(2, 3, 20), 0).unwrap();
    assert_eq!(started(&queue.step(0)), [1, 2]);
    // All four GPUs for half an hour, to be done within an hour: at 20 minutes it can start.
    let due = Job {
        deadline_ms: Some(60 * minute_ms),
        ..lasting(3, 4, 30)
    };
    queue.submit(due, 1).unwrap();
    assert_eq!(queue.step(1), []);
    // Of its level, and later: one that would be in its way, and one that is over before.
    queue.submit(lasting(4, 1, 30), 2).unwrap();
    queue.submit(lasting(5, 1, 9), 3).unwrap();
    queue.finish(JobId(1)).unwrap();
    assert_eq!(started(&queue.step(10 * minute_ms)), [5]);
    queue.finish(JobId(5)).unwrap();
    assert_eq!(queue.step(19 * minute_ms), []);
    // Job 2 goes on for longer than was said, so that the deadline is lost.
    let lost_ms = 30 * minute_ms + 1;
    let mut now_ms = 19 * minute_ms;
    while let Some(at) = queue.wake_ms(now_ms).filter(|at| *at < lost_ms) {
        now_ms = at;
        assert_eq!(queue.step(now_ms), []);
    }
    assert_eq!(queue.wake_ms(now_ms), Some(lost_ms));
    assert_eq!(started(&queue.step(lost_ms)), [4]);
}

#[test]
fn who_is_too_many_is_told_and_so_is_who_names_a_region_that_is_not_there() {
    let config = Config {
        pending_max: 2,
        tenant_pending_max: 1,
        ..Config::default()
    };
    let mut queue = Queue::new(config, vec![node("a", 64, 4)]).unwrap();
    let of = |id, tenant: &str| Job {
        tenant: tenant.to_owned(),
        ..job(id, 1)
    };
    queue.submit(of(1, "x"), 0).unwrap();
    let full = queue.submit(of(2, "x"), 0).unwrap_err();
    assert!(matches!(full, Refused::TenantFull { .. }), "{full}");
    queue.submit(of(3, "y"), 0).unwrap();
    let full = queue.submit(of(4, "z"), 0).unwrap_err();
    assert_eq!(full, Refused::Full { max: 2 });
    queue.step(0);
    let elsewhere = Job {
        region: Region::Required("mars".to_owned()),
        ..job(5, 1)
    };
    let refused = queue.submit(elsewhere, 0).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "region `mars` is not known; there are: here"
    );
}
