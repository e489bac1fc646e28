//! One step per item: cut, call the member once per item or chunk, join in order.
//!
//! The calls are the member's like any others, so its batcher joins items of all requests.

use std::ops::Range;

use parking_lot::Mutex;
use protocol::{Tensor, Timing};

use super::graph::{FanOut, Step};
use super::items::{Items, Part, gather};
use super::run::{Work, call, for_member};
use super::{Ensemble, Gate};
use crate::call::Place;
use crate::error::Error;
use crate::join::join_all;
use crate::model::Model;

/// Cancel-safe: a dropped future drops its calls.
pub(super) async fn run(
    ensemble: &Ensemble,
    place: Place<'_>,
    fan_out: &FanOut,
    work: Work,
) -> Result<(Vec<Tensor>, Timing), Error> {
    let arrived = place.clock.now();
    let step = &ensemble.graph.steps[work.step];
    let plan = Plan::of(ensemble, step, fan_out, &work)?;
    let Some(gate) = &ensemble.gates[work.step] else {
        return Err(Error::Failed {
            model: ensemble.name.clone(),
            reason: "a step per item has no bound".to_owned(),
        });
    };
    let _place = gate.place(&ensemble.name)?;
    let chunks: Vec<Range<usize>> = (0..plan.count)
        .step_by(plan.chunk)
        .map(|first| first..plan.count.min(first.saturating_add(plan.chunk)))
        .collect();
    let calls = chunks.len();
    let done = Mutex::new(Done {
        chunks: (0..calls).map(|_| Vec::new()).collect(),
        last: Timing::default(),
    });
    let open = Mutex::new(chunks.into_iter().enumerate());
    // As many as may run: whoever has items left stands in line once for each.
    let workers = (0..calls.min(fan_out.in_flight)).map(|_| async {
        loop {
            let Some((index, range)) = open.lock().next() else {
                return Ok::<(), Error>(());
            };
            let answer = one(ensemble, place, (gate, &plan, &work), &range).await;
            let (outputs, timing) =
                answer.map_err(|error| ensemble.at_step(work.step, Some(range.start), error))?;
            let mut done = done.lock();
            let part = |tensor| Part {
                first: range.start,
                tensor,
            };
            done.chunks[index] = outputs.into_iter().map(part).collect();
            done.last = timing;
        }
    });
    join_all(workers).await?;
    let Done { chunks, mut last } = done.into_inner();
    let outputs = join(ensemble, place, (&plan, &work), chunks)?;
    // The last call's own times; until then, items waited for their turn.
    let wall = place.clock.now().saturating_duration_since(arrived);
    last.queue += wall.saturating_sub(last.total());
    Ok((outputs, last))
}

struct Done {
    /// By chunk, then by output.
    chunks: Vec<Vec<Part>>,
    last: Timing,
}

async fn one(
    ensemble: &Ensemble,
    place: Place<'_>,
    (gate, plan, work): (&Gate, &Plan, &Work),
    range: &Range<usize>,
) -> Result<(Vec<Tensor>, Timing), Error> {
    let _permit = gate
        .permit(&ensemble.name, place.deadline, place.clock)
        .await?;
    let cut = plan
        .items
        .iter()
        .map(|(name, items)| items.cut(name, range, plan.rows));
    let inputs = cut.chain(plan.whole.iter().cloned()).collect();
    let (outputs, timing) = call(place, work, inputs).await?;
    for output in &outputs {
        if plan.rows && output.shape.first() != Some(&range.len()) {
            return Err(Error::Failed {
                model: work.member.name.clone(),
                reason: format!(
                    "output `{}` has shape {:?} for {} items",
                    output.name,
                    output.shape,
                    range.len()
                ),
            });
        }
    }
    Ok((outputs, timing))
}

/// How a request's items become calls.
struct Plan {
    /// Under the member's names.
    items: Vec<(String, Items)>,
    whole: Vec<Tensor>,
    count: usize,
    chunk: usize,
    /// The member has a batch dimension, where the items go.
    rows: bool,
}

fn too_many(items: usize, items_max: usize) -> Error {
    let message = format!("{items} items, `max_items` of the pipeline is {items_max}");
    Error::request("inputs", message)
}

impl Plan {
    fn of(ensemble: &Ensemble, step: &Step, fan_out: &FanOut, work: &Work) -> Result<Self, Error> {
        let mut items = Vec::new();
        let mut whole = Vec::new();
        for (name, number) in &step.inputs {
            let given = work
                .inputs
                .iter()
                .find(|tensor| ensemble.graph.tensor(&tensor.name) == Some(*number));
            let Some(tensor) = given.cloned() else {
                continue;
            };
            if !fan_out.over.contains(number) {
                whole.push(for_member(&work.member, name, tensor));
                continue;
            }
            // Before anything is counted: a shape with a zero in it may claim any number of items.
            let claimed = tensor.shape.first().copied().unwrap_or(0);
            if claimed > fan_out.items_max {
                return Err(too_many(claimed, fan_out.items_max));
            }
            let tensor_name = tensor.name.clone();
            let cut = Items::of(tensor).ok_or_else(|| {
                let message = format!("`{tensor_name}` has no first dimension to count items by");
                Error::request("inputs", message)
            })?;
            items.push((name.clone(), cut));
        }
        let count = items.first().map_or(0, |(_, items)| items.count());
        if let Some((_, other)) = items.iter().find(|(_, items)| items.count() != count) {
            let message = format!(
                "`{}` has {count} items, `{}` has {}",
                items[0].1.name(),
                other.name(),
                other.count()
            );
            return Err(Error::request("inputs", message));
        }
        Ok(Self {
            chunk: chunk(&work.member, fan_out, whole.is_empty()),
            rows: work.member.interface.batch_max.is_some(),
            items,
            whole,
            count,
        })
    }
}

/// Single items leave the batcher free to fill its batches; without one, or where none says so, a full batch is the
/// least calls. What goes to each item whole goes with one item at a time.
fn chunk(member: &Model, fan_out: &FanOut, alone: bool) -> usize {
    let Some(rows_max) = member.interface.batch_max.filter(|_| alone) else {
        return 1;
    };
    let joins = member
        .by_engine()
        .is_some_and(|engine| engine.queue.batches());
    let chosen = fan_out.chunk.unwrap_or(if joins { 1 } else { rows_max });
    chosen.clamp(1, rows_max)
}

fn join(
    ensemble: &Ensemble,
    place: Place<'_>,
    (plan, work): (&Plan, &Work),
    chunks: Vec<Vec<Part>>,
) -> Result<Vec<Tensor>, Error> {
    let mut by_output: Vec<Vec<Part>> = work.outputs.iter().map(|_| Vec::new()).collect();
    for chunk in chunks {
        for (parts, part) in by_output.iter_mut().zip(chunk) {
            parts.push(part);
        }
    }
    let outputs = work.outputs.iter().zip(by_output);
    outputs
        .map(|(name, parts)| {
            let specs = &work.member.interface.outputs;
            let Some(port) = specs.iter().find(|port| port.spec.name == *name) else {
                return Err(Error::Failed {
                    model: work.member.name.clone(),
                    reason: format!("there is no output `{name}`"),
                });
            };
            gather(name, &port.spec, parts, (plan.rows, place.buffers)).map_err(|ragged| {
                ensemble.at_step(work.step, Some(ragged.item), ragged.error.into())
            })
        })
        .collect()
}
