//! One request's way through the steps.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use protocol::{InferRequest, Parameter, Parameters, RequestedOutput, Tensor, TensorSpec, Timing};

use super::items::conform;
use super::{Ensemble, fan_out};
use crate::call::Place;
use crate::error::Error;
use crate::infer;
use crate::model::Model;

/// What a client asks of an ensemble, checked against its inputs and outputs.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) id: Option<String>,
    pub(crate) parameters: Parameters,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) wanted: Vec<TensorSpec>,
}

/// One step that has all it needs.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) step: usize,
    pub(super) member: Arc<Model>,
    /// Under the ensemble's names; an optional input that nobody gave is left out.
    pub(super) inputs: Vec<Tensor>,
    /// The member's names of the outputs that somebody reads.
    pub(super) outputs: Vec<String>,
    pub(super) id: Option<String>,
    pub(super) parameters: Parameters,
}

/// A step's outputs in the order of [`Work::outputs`].
pub(crate) type Answer = Result<(Vec<Tensor>, Timing), Error>;
pub(crate) type Boxed<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

impl Ensemble {
    /// Runs the steps that the wanted outputs need, each as soon as its inputs are there. The first error ends the
    /// others. Cancel-safe, as the steps are.
    ///
    /// Boxed: other models' calls should not carry an ensemble's state.
    pub(crate) fn run<'a>(&'a self, place: Place<'a>, order: Order) -> Boxed<'a> {
        Box::pin(self.steps(place, order))
    }

    async fn steps(&self, place: Place<'_>, order: Order) -> Answer {
        let arrived = place.clock.now();
        let mut flow = Flow::new(self, place, order)?;
        match self.run_up(place, &mut flow, arrived).await? {
            None => flow.answer(place.clock.now().saturating_duration_since(arrived)),
            // Its member has become one since the request began.
            Some(step) => Err(self.at_step(step, None, Error::Decoupled)),
        }
    }

    /// Runs all steps up to the one that answers any number of times, if there is one: between the ensemble's inputs and
    /// its outputs, such steps stand one behind the other.
    pub(super) async fn run_up(
        &self,
        place: Place<'_>,
        flow: &mut Flow<'_>,
        arrived: Instant,
    ) -> Result<Option<usize>, Error> {
        let mut running: Vec<(usize, Boxed<'_>)> = Vec::new();
        loop {
            let ready = flow.ready();
            let (many, once): (Vec<usize>, Vec<usize>) =
                ready.into_iter().partition(|step| flow.decoupled(*step));
            for step in once {
                let work = flow.work(step, arrived, place.clock.now())?;
                running.push((step, self.begin(place, work)));
            }
            if running.is_empty() {
                return Ok(many.first().copied());
            }
            let (step, answer) = first(&mut running).await;
            let answer = answer.map_err(|error| self.at_step(step, None, error))?;
            flow.arrived(step, answer, place.clock.now())?;
        }
    }

    /// A step may be an ensemble, so its type must end here.
    fn begin<'a>(&'a self, place: Place<'a>, work: Work) -> Boxed<'a> {
        Box::pin(self.step(place, work))
    }

    async fn step(&self, place: Place<'_>, work: Work) -> Answer {
        if let Some(fan_out) = &self.graph.steps[work.step].fan_out {
            return fan_out::run(self, place, fan_out, work).await;
        }
        let arrived = place.clock.now();
        let _inside = match &self.gates[work.step] {
            Some(gate) => Some((
                gate.place(&self.name)?,
                gate.permit(&self.name, place.deadline, place.clock).await?,
            )),
            None => None,
        };
        let waited = place.clock.now().saturating_duration_since(arrived);
        let inputs = self.graph.steps[work.step].named(self, &work)?;
        let (outputs, mut timing) = call(place, &work, inputs).await?;
        timing.queue += waited;
        Ok((outputs, timing))
    }

    pub(super) fn at_step(&self, step: usize, item: Option<usize>, error: Error) -> Error {
        // A fan-out has named the item already.
        if matches!(&error, Error::Step { ensemble, .. } if *ensemble == self.name) {
            return error;
        }
        Error::Step {
            ensemble: self.name.clone(),
            step,
            model: self.graph.steps[step].model.clone(),
            item,
            error: Box::new(error),
        }
    }
}

impl super::graph::Step {
    /// The inputs under the member's names, in the member's shapes.
    pub(super) fn named(&self, ensemble: &Ensemble, work: &Work) -> Result<Vec<Tensor>, Error> {
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for (name, number) in &self.inputs {
            let given = work
                .inputs
                .iter()
                .find(|tensor| ensemble.graph.tensor(&tensor.name) == Some(*number));
            if let Some(tensor) = given {
                inputs.push(for_member(&work.member, name, tensor.clone()));
            }
        }
        Ok(inputs)
    }
}

/// A whole tensor under the member's name, with or without a batch of one as the member has it.
pub(super) fn for_member(member: &Model, name: &str, mut tensor: Tensor) -> Tensor {
    name.clone_into(&mut tensor.name);
    match member.inputs.iter().find(|spec| spec.name == name) {
        Some(spec) => conform(tensor, spec),
        None => tensor,
    }
}

/// One call to the member, like any client's.
pub(super) async fn call(mut place: Place<'_>, work: &Work, inputs: Vec<Tensor>) -> Answer {
    let mut request = work.request(inputs);
    let (response, timing) = infer::infer(&work.member, &mut place, &mut request).await?;
    Ok((work.sorted(response.outputs)?, timing))
}

impl Work {
    pub(super) fn request(&self, inputs: Vec<Tensor>) -> InferRequest {
        let wanted = |name: &String| RequestedOutput {
            name: name.clone(),
            ..RequestedOutput::default()
        };
        InferRequest {
            model: self.member.name.clone(),
            version: Some(self.member.version.clone()),
            id: self.id.clone(),
            parameters: self.parameters.clone(),
            inputs,
            outputs: self.outputs.iter().map(wanted).collect(),
        }
    }

    /// What the member has answered, in the order of [`Self::outputs`].
    pub(super) fn sorted(&self, mut answered: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        let mut outputs = Vec::with_capacity(self.outputs.len());
        for name in &self.outputs {
            let found = answered.iter().position(|output| output.name == *name);
            let Some(found) = found else {
                return Err(Error::Failed {
                    model: self.member.name.clone(),
                    reason: format!("the answer has no output `{name}`"),
                });
            };
            outputs.push(answered.swap_remove(found));
        }
        Ok(outputs)
    }
}

/// Resolves with the first that is done, which leaves the list.
async fn first(running: &mut Vec<(usize, Boxed<'_>)>) -> (usize, Answer) {
    // Every wake-up polls all of them: they are at most an ensemble's steps.
    std::future::poll_fn(|context| {
        for place in 0..running.len() {
            if let Poll::Ready(answer) = running[place].1.as_mut().poll(context) {
                let (step, _) = running.swap_remove(place);
                return Poll::Ready((step, answer));
            }
        }
        Poll::Pending
    })
    .await
}

/// What one request's tensors are at the moment. A copy holds the same tensors, by handle.
#[derive(Clone)]
pub(super) struct Flow<'a> {
    ensemble: &'a Ensemble,
    id: Option<String>,
    parameters: Parameters,
    wanted: Vec<usize>,
    specs: Vec<TensorSpec>,
    members: Vec<Option<Arc<Model>>>,
    /// Needed and not begun.
    waiting: Vec<bool>,
    values: Vec<Value>,
    /// Who will still read the tensor; at none it is let go.
    readers: Vec<usize>,
}

#[derive(Debug, Clone)]
enum Value {
    /// Its step has not answered.
    Coming,
    /// An optional input that the client left out.
    Left,
    Here(Tensor, Path),
    /// Everybody has read it.
    Gone(Path),
}

/// When a tensor was there, and where the time until then went.
#[derive(Debug, Clone, Copy)]
struct Path {
    at: Instant,
    timing: Timing,
}

impl<'a> Flow<'a> {
    pub(super) fn new(
        ensemble: &'a Ensemble,
        place: Place<'_>,
        order: Order,
    ) -> Result<Self, Error> {
        let graph = &ensemble.graph;
        let number = |spec: &TensorSpec| graph.tensor(&spec.name);
        let wanted: Vec<usize> = order.wanted.iter().filter_map(number).collect();
        let waiting = graph.needed(&wanted);
        let mut members = Vec::with_capacity(waiting.len());
        for (index, (step, needed)) in graph.steps.iter().zip(&waiting).enumerate() {
            members.push(match needed {
                true => Some(
                    place
                        .runtime
                        .member(&step.model, step.version.as_deref())
                        .map_err(|error| ensemble.at_step(index, None, error))?,
                ),
                false => None,
            });
        }
        let mut readers = vec![0; graph.tensors()];
        let read = graph
            .steps
            .iter()
            .zip(&waiting)
            .filter(|(_, needed)| **needed)
            .flat_map(|(step, _)| step.inputs.iter().map(|(_, tensor)| tensor))
            .chain(&wanted);
        for tensor in read {
            readers[*tensor] += 1;
        }
        let mut values: Vec<Value> = (0..graph.tensors())
            .map(|tensor| match graph.is_input(tensor) {
                true => Value::Left,
                false => Value::Coming,
            })
            .collect();
        let path = Path {
            at: place.clock.now(),
            timing: Timing::default(),
        };
        for input in order.inputs {
            if let Some(number) = graph.tensor(&input.name) {
                values[number] = Value::Here(input, path);
            }
        }
        let mut parameters = order.parameters;
        // Each step answers once, and only to us.
        parameters.remove("triton_enable_empty_final_response");
        Ok(Self {
            ensemble,
            id: order.id,
            parameters,
            wanted,
            specs: order.wanted,
            members,
            waiting,
            values,
            readers,
        })
    }

    /// The steps that can begin.
    fn ready(&self) -> Vec<usize> {
        let there = |(_, tensor): &(String, usize)| !matches!(self.values[*tensor], Value::Coming);
        let steps = self.ensemble.graph.steps.iter().zip(&self.waiting);
        steps
            .enumerate()
            .filter(|(_, (step, waiting))| **waiting && step.inputs.iter().all(there))
            .map(|(index, _)| index)
            .collect()
    }

    /// Whether the step's member answers any number of times.
    fn decoupled(&self, step: usize) -> bool {
        let member = self.members[step].as_ref();
        member.is_some_and(|member| member.decoupled())
    }

    pub(super) fn work(
        &mut self,
        index: usize,
        arrived: Instant,
        now: Instant,
    ) -> Result<Work, Error> {
        self.waiting[index] = false;
        let step = &self.ensemble.graph.steps[index];
        let mut inputs = Vec::with_capacity(step.inputs.len());
        for (_, tensor) in &step.inputs {
            inputs.extend(self.read(*tensor));
        }
        let read = |(_, tensor): &&(String, usize)| self.readers[*tensor] > 0;
        let outputs = step.outputs.iter().filter(read);
        let Some(member) = self.members[index].clone() else {
            return Err(Error::Failed {
                model: self.ensemble.name.clone(),
                reason: format!("step {index} was not expected"),
            });
        };
        let elapsed = now.saturating_duration_since(arrived);
        let late = || Error::Timeout {
            model: self.ensemble.name.clone(),
            place: "between the steps",
        };
        Ok(Work {
            step: index,
            member,
            inputs,
            outputs: outputs.map(|(name, _)| name.clone()).collect(),
            id: self.id.clone(),
            parameters: left(&self.parameters, elapsed).ok_or_else(late)?,
        })
    }

    /// Under the ensemble's name. The last reader gets the tensor itself.
    fn read(&mut self, tensor: usize) -> Option<Tensor> {
        self.readers[tensor] -= 1;
        let Value::Here(value, path) = &self.values[tensor] else {
            return None;
        };
        if self.readers[tensor] > 0 {
            return Some(value.clone());
        }
        let gone = Value::Gone(*path);
        match std::mem::replace(&mut self.values[tensor], gone) {
            Value::Here(value, _) => Some(value),
            _ => None,
        }
    }

    pub(super) fn arrived(
        &mut self,
        index: usize,
        (outputs, timing): (Vec<Tensor>, Timing),
        now: Instant,
    ) -> Result<(), Error> {
        let step = &self.ensemble.graph.steps[index];
        let before = self.latest(step.inputs.iter().map(|(_, tensor)| *tensor));
        let path = Path {
            at: now,
            timing: before.plus(timing),
        };
        let mut outputs = outputs.into_iter();
        for (name, tensor) in &step.outputs {
            if self.readers[*tensor] == 0 {
                self.values[*tensor] = Value::Gone(path);
                continue;
            }
            let Some(mut output) = outputs.next() else {
                return Err(Error::Failed {
                    model: step.model.clone(),
                    reason: format!("the answer has no output `{name}`"),
                });
            };
            output.name = self.ensemble.graph.name(*tensor).to_owned();
            self.values[*tensor] = Value::Here(output, path);
        }
        Ok(())
    }

    /// The time of whichever came last: the others were there by then.
    fn latest(&self, tensors: impl Iterator<Item = usize>) -> Timing {
        let path = |tensor: usize| match &self.values[tensor] {
            Value::Here(_, path) | Value::Gone(path) => Some(*path),
            Value::Coming | Value::Left => None,
        };
        let last = tensors.filter_map(path).max_by_key(|path| path.at);
        last.map(|path| path.timing).unwrap_or_default()
    }

    /// The wanted tensors; what the steps do not explain of the time counts as output.
    pub(super) fn answer(mut self, wall: Duration) -> Answer {
        let mut timing = self.latest(self.wanted.iter().copied());
        timing.output += wall.saturating_sub(timing.total());
        let mut outputs = Vec::with_capacity(self.wanted.len());
        let specs = std::mem::take(&mut self.specs);
        for (tensor, spec) in std::mem::take(&mut self.wanted).into_iter().zip(&specs) {
            let output = self.read(tensor).ok_or_else(|| Error::Failed {
                model: self.ensemble.name.clone(),
                reason: format!("no step made `{}`", spec.name),
            })?;
            outputs.push(conform(output, spec));
        }
        Ok((outputs, timing))
    }
}

/// The parameters for a step that begins now; none when the caller's `timeout` is over.
fn left(parameters: &Parameters, elapsed: Duration) -> Option<Parameters> {
    let mut parameters = parameters.clone();
    let asked = match parameters.get("timeout") {
        Some(Parameter::Uint(micros)) => *micros,
        Some(Parameter::Int(micros)) => u64::try_from(*micros).unwrap_or(0),
        // None, or what the member refuses by name.
        _ => 0,
    };
    if asked > 0 {
        let elapsed = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let left = asked.checked_sub(elapsed).filter(|left| *left > 0)?;
        parameters.insert("timeout".to_owned(), Parameter::Uint(left));
    }
    Some(parameters)
}
