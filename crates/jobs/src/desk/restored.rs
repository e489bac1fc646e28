use scheduler::Node;
use scheduler::queue::{self, Phase, Queue};

use crate::config::Config;
use crate::store::Record;

/// The queue with what was in it; what does not fit any more waits again.
pub(super) fn restored(
    config: &Config,
    nodes: &[Vec<Node>],
    records: &[Record],
) -> Result<Queue, queue::Refused> {
    let rules = queue::Config {
        pending_max: config.queue_max,
        tenant_pending_max: config.queue_max,
        // No executor moves a process while it runs.
        moves_permille_hour: 0,
        ..queue::Config::default()
    };
    let nodes: Vec<Node> = nodes.iter().flatten().cloned().collect();
    let mut saved = Queue::new(rules.clone(), nodes)?.save();
    let live = records
        .iter()
        .filter(|record| !record.job.status.state.is_final());
    saved.entries = live.filter_map(|record| record.entry.clone()).collect();
    if let Ok(queue) = Queue::restore(rules.clone(), saved.clone()) {
        return Ok(queue);
    }
    // The nodes are others now. Jobs that run nowhere any more are heard of from their executors.
    saved
        .entries
        .retain(|entry| matches!(entry.phase, Phase::Pending { .. }));
    match Queue::restore(rules.clone(), saved.clone()) {
        Ok(queue) => Ok(queue),
        Err(_) => {
            saved.entries.clear();
            Queue::restore(rules, saved)
        }
    }
}
