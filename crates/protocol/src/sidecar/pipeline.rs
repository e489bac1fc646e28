use serde::{Deserialize, Serialize};

/// What an ensemble does beyond Triton's steps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pipeline {
    /// Steps that run once per item of a tensor instead of once per request.
    pub fan_out: Vec<FanOut>,
}

/// One step that runs per item; its outputs are gathered in the items' order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FanOut {
    /// The model of the step; when two steps have the same, the step's number, counted from 0.
    pub step: String,
    /// The ensemble's tensors whose first dimension counts the items. The step's other inputs go to every item whole.
    pub over: Vec<String>,
    /// Items of one request; one with more is refused.
    #[serde(default = "max_items")]
    pub max_items: usize,
    /// Calls of this step at the same time, all requests together; others wait.
    #[serde(default = "in_flight")]
    pub in_flight: usize,
    /// Items of one call. Absent means one when the model's batcher joins calls, and else as many as the model takes.
    #[serde(default)]
    pub chunk: Option<usize>,
}

/// A page of text or a crowd has fewer.
fn max_items() -> usize {
    256
}

/// Some batches ahead of the lanes, far below a queue's length.
fn in_flight() -> usize {
    64
}

impl Pipeline {
    pub(super) fn check(&self, check: &mut impl FnMut(bool, &[&str], &str)) {
        let path = ["pipeline", "fan_out"];
        for fan_out in &self.fan_out {
            check(
                !fan_out.step.is_empty(),
                &path,
                "`step` names a step's model",
            );
            check(
                !fan_out.over.is_empty(),
                &path,
                "`over` names at least one tensor",
            );
            check(fan_out.max_items > 0, &path, "`max_items` is at least 1");
            check(fan_out.in_flight > 0, &path, "`in_flight` is at least 1");
            check(fan_out.chunk != Some(0), &path, "`chunk` is at least 1");
        }
    }
}
