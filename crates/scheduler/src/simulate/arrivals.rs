use crate::request::Request;
use crate::rng::Rng;
use crate::trace::Pod;

/// The pods in random order, and pods drawn again until they ask for `demand` times the capacity; when they ask for more
/// to begin with, some are left out. As in the FGD artifact: the check counts one GPU of the next pod, whatever it asks.
pub fn inflate(pods: &[Pod], capacity_milli: u64, demand: f64, rng: &mut Rng) -> Vec<Request> {
    let mut sorted: Vec<&Pod> = pods.iter().collect();
    sorted.sort_by(|left, right| left.name.cmp(&right.name));
    let mut requests: Vec<Request> = sorted.iter().map(|pod| pod.request.clone()).collect();
    let originals = requests.clone();
    rng.shuffle(&mut requests);
    let target = demand * capacity_milli as f64;
    let sum = requests
        .iter()
        .map(|request| u64::from(request.total_gpu_milli()));
    let mut asked: u64 = sum.sum();
    if asked as f64 > target {
        while asked as f64 > target && !requests.is_empty() {
            let removed = requests.remove(rng.below(requests.len()));
            asked -= u64::from(removed.total_gpu_milli());
        }
        return requests;
    }
    // Without GPUs in the list no target would ever be reached.
    let some = originals.iter().any(|request| request.gpus > 0);
    while some && (asked as f64) < target {
        let drawn = &originals[rng.below(originals.len())];
        if (asked + u64::from(drawn.gpu_milli)) as f64 > target {
            break;
        }
        asked += u64::from(drawn.total_gpu_milli());
        requests.push(drawn.clone());
    }
    requests
}
