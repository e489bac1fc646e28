use scheduler::{GPUS_MAX, Node};

/// One GPU of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// As in `CUDA_VISIBLE_DEVICES`.
    pub uuid: String,
    pub model: String,
    pub memory_mib: u32,
}

/// What this node has for jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct Hardware {
    pub node: Node,
    /// By the index that the scheduler knows them by.
    pub(crate) gpus: Vec<Gpu>,
}

impl Hardware {
    /// GPUs are counted only while they are alike, for a node is of one model: those like the first are taken.
    pub fn new(mut node: Node, gpus: Vec<Gpu>) -> Self {
        let first = gpus.first().cloned();
        let alike = gpus.into_iter().filter(|gpu| {
            first.as_ref().is_some_and(|first| {
                (&gpu.model, gpu.memory_mib) == (&first.model, first.memory_mib)
            })
        });
        let gpus: Vec<Gpu> = alike.take(GPUS_MAX).collect();
        node.gpus = u8::try_from(gpus.len()).unwrap_or(u8::MAX);
        if let Some(first) = first {
            node.model = first.model;
            node.gpu_memory_mib = first.memory_mib;
        }
        Self { node, gpus }
    }

    /// For `CUDA_VISIBLE_DEVICES`: a job without GPUs sees none.
    pub(crate) fn visible(&self, gpus: &[u8]) -> String {
        let uuids = gpus
            .iter()
            .filter_map(|index| self.gpus.get(usize::from(*index)))
            .map(|gpu| gpu.uuid.as_str());
        uuids.collect::<Vec<_>>().join(",")
    }
}
