//! A cluster's nodes as the scheduler knows nodes.

use k8s_openapi::api::core::v1::Node as ClusterNode;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use scheduler::Node;

const REGION: &str = "topology.kubernetes.io/region";
const PRODUCT: &str = "nvidia.com/gpu.product";

/// What feature discovery says of each GPU's memory, in MiB.
const GPU_MEMORY: &str = "nvidia.com/gpu.memory";

/// What one node lends to jobs; none while it takes no pods.
pub(crate) fn node(seen: &ClusterNode) -> Option<Node> {
    let spec = seen.spec.as_ref();
    let status = seen.status.as_ref()?;
    let closed = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
    let ready = status.conditions.iter().flatten();
    let ready = ready
        .filter(|condition| condition.type_ == "Ready")
        .any(|condition| condition.status == "True");
    if closed || !ready {
        return None;
    }
    let labels = seen.metadata.labels.clone().unwrap_or_default();
    let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
    let amount = |name: &str| {
        let amounts = status.allocatable.as_ref().or(status.capacity.as_ref());
        amounts.and_then(|amounts| milli(amounts.get(name)?))
    };
    let gpus = amount("nvidia.com/gpu").unwrap_or(0) / 1000;
    let memory = amount("memory").unwrap_or(0) / 1000 / (1 << 20);
    Some(Node {
        // Placements name it by the label that pods are bound with.
        name: match label("kubernetes.io/hostname") {
            host if host.is_empty() => seen.metadata.name.clone()?,
            host => host,
        },
        cpu_milli: bounded(amount("cpu").unwrap_or(0)),
        memory_mib: bounded(memory),
        gpus: u8::try_from(gpus).unwrap_or(u8::MAX),
        model: label(PRODUCT),
        gpu_memory_mib: label(GPU_MEMORY).parse().unwrap_or(0),
        region: label(REGION),
        labels,
        ..Node::default()
    })
}

fn bounded(amount: u128) -> u32 {
    u32::try_from(amount).unwrap_or(u32::MAX)
}

/// Thousandths of a quantity, whose suffixes are
/// <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.
fn milli(quantity: &Quantity) -> Option<u128> {
    let text = quantity.0.trim();
    let digits = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    if number.is_empty() {
        return None;
    }
    let scale: u128 = match suffix {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction = fraction.get(..fraction.len().min(9))?;
    let part = |digits: &str| match digits {
        "" => Some(0),
        digits => digits.parse::<u128>().ok(),
    };
    let places = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let value = part(whole)?
        .checked_mul(places)?
        .checked_add(part(fraction)?)?;
    Some(value.checked_mul(scale)? / places)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(more: &serde_json::Value) -> ClusterNode {
        let mut node = json!({
            "metadata": {"name": "gpu-7", "labels": {
                "kubernetes.io/hostname": "gpu-7.local",
                "topology.kubernetes.io/region": "gz-nansha",
                "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB",
                "nvidia.com/gpu.memory": "81920",
            }},
            "spec": {},
            "status": {
                "allocatable": {"cpu": "95500m", "memory": "392Gi", "nvidia.com/gpu": "8"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        for (path, value) in more.as_object().into_iter().flatten() {
            *node.pointer_mut(path).expect("it is there") = value.clone();
        }
        serde_json::from_value(node).expect("a node")
    }

    #[test]
    fn a_node_lends_what_pods_may_take_of_it() {
        let read = node(&seen(&json!({}))).expect("it is ready");
        let expected = ("gpu-7.local", 95_500, 392 * 1024, 8);
        let found = (
            read.name.as_str(),
            read.cpu_milli,
            read.memory_mib,
            read.gpus,
        );
        assert_eq!(found, expected);
        assert_eq!(read.model, "NVIDIA-A100-SXM4-80GB");
        assert_eq!(
            (read.gpu_memory_mib, read.region.as_str()),
            (81_920, "gz-nansha")
        );
    }

    #[test]
    fn a_node_that_takes_no_pods_is_not_there() {
        let cordoned = json!({"/spec": {"unschedulable": true}});
        let broken = json!({"/status/conditions/0/status": "Unknown"});
        for change in [cordoned, broken] {
            assert_eq!(node(&seen(&change)), None, "{change}");
        }
    }

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("2", Some(2_000)),
            ("1500m", Some(1_500)),
            ("0.5", Some(500)),
            ("1.5Gi", Some(1_500 << 30)),
            ("1k", Some(1_000_000)),
            ("8Ti", Some(8_000 << 40)),
            ("", None),
            ("Mi", None),
            ("1e3", None),
            ("-1", None),
            ("five", None),
            ("1.2.3", None),
            ("999999999999999999999999999999999999999999", None),
        ] {
            assert_eq!(milli(&Quantity(text.to_owned())), expected, "`{text}`");
        }
    }
}
