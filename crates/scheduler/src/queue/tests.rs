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

#[test]
fn a_gang_starts_together_or_not_at_all() {
    let mut queue = queue(vec![node("a", 64, 4), node("b", 64, 4)]);
    let gang = Job {
        gang: 3,
        ..job(1, 4)
    };
    queue.submit(gang, 0).unwrap();
    queue.submit(job(2, 4), 0).unwrap();
    assert_eq!(started(&queue.step(0)), [2]);
    assert_eq!(
        queue.get(JobId(1)).unwrap().phase,
        Phase::Pending {
            wait: Wait::TopologyPlacementFailed { fit: 2 }
        }
    );
    queue.node_joined(node("c", 64, 8), 1).unwrap();
    assert_eq!(started(&queue.step(1)), [1]);
    assert_eq!(queue.get(JobId(1)).unwrap().phase.places().len(), 3);
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
