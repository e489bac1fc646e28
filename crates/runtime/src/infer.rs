//! One inference: does it fit, run it, say the answer in the model's words, keep the books.

use std::sync::Arc;

use base::Deadline;
use protocol::oip::proto::model_config::SchedulingChoice;
use protocol::{Controls, InferRequest, InferResponse, Parameters, Tensor, Timing};

use crate::cache::{Find, Key, Member};
use crate::call::{self, Place};
use crate::ensemble::Order;
use crate::error::Error;
use crate::model::{Model, Serving};
use crate::request::Fitted;

/// Inputs beyond this are hashed on a compute thread: here it takes about 0.1 ms.
const HASH_INLINE_BYTES: usize = 128 << 10;

/// What the parameters ask of the server. A `timeout` shortens the deadline and never lengthens it; under dynamic batching
/// it is the queue policy's alone, as Triton's `allow_timeout_override` says.
pub(crate) fn controls(
    model: &Model,
    request: &InferRequest,
    place: &mut Place<'_>,
) -> Result<Controls, Error> {
    let controls = Controls::of(&request.parameters).map_err(Error::Parameter)?;
    let scheduling = model.config.scheduling_choice.as_ref();
    let policed = matches!(scheduling, Some(SchedulingChoice::DynamicBatching(_)));
    if let Some(timeout) = controls.timeout.filter(|_| !policed) {
        let asked = Deadline::after(place.clock.now(), timeout);
        place.deadline = place.deadline.min(asked);
    }
    Ok(controls)
}

/// Takes what the request says out of it, and may shorten the deadline of its place. Cancel-safe, as its call is.
pub(crate) async fn infer(
    model: &Arc<Model>,
    place: &mut Place<'_>,
    request: &mut InferRequest,
) -> Result<(InferResponse, Timing), Error> {
    let attempt = model.statistics.begin(place.clock);
    match fitted(model, place, request).await {
        Ok((response, timing, Source::Run)) => {
            attempt.success(&timing);
            Ok((response, timing))
        }
        Ok((response, timing, Source::Cache)) => {
            attempt.cached(timing.input);
            Ok((response, timing))
        }
        Err(error) => {
            attempt.fail(&error);
            Err(error)
        }
    }
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Run,
    Cache,
}

async fn fitted(
    model: &Arc<Model>,
    place: &mut Place<'_>,
    request: &mut InferRequest,
) -> Result<(InferResponse, Timing, Source), Error> {
    let arrived = place.clock.now();
    if model.decoupled() {
        return Err(Error::Decoupled);
    }
    let controls = controls(model, request, place)?;
    let id = request.id.take();
    let passed_on = model
        .ensemble()
        .map(|_| (id.clone(), request.parameters.clone()));
    let mut fitted = model.interface.fit(std::mem::take(request))?;
    fitted.call.priority = controls.priority;
    fitted.call.timeout = controls.timeout;
    let checked = place.clock.now().saturating_duration_since(arrived);
    let mut asked = Asked {
        controls,
        passed_on: passed_on.unwrap_or_default(),
    };
    let (outputs, mut timing, source) = match &model.cache {
        Some(member) => Box::pin(through(member, model, place, (fitted, asked))).await?,
        None => {
            let (outputs, timing) = run(model, place, (&mut fitted, &mut asked)).await?;
            (outputs, timing, Source::Run)
        }
    };
    timing.input += checked;
    let response = InferResponse {
        model: model.name.clone(),
        version: model.version.clone(),
        id,
        outputs,
        ..InferResponse::default()
    };
    Ok((response, timing, source))
}

/// What a request asks beside its tensors.
struct Asked {
    controls: Controls,
    /// For an ensemble's members: the request's id and parameters.
    passed_on: (Option<String>, Parameters),
}

async fn named(
    member: &Member,
    model: &Model,
    place: &Place<'_>,
    fitted: Fitted,
) -> Result<(Key, Fitted), Error> {
    let hasher = member.hasher();
    if fitted.call.bytes() <= HASH_INLINE_BYTES {
        return Ok((hasher.of(&fitted), fitted));
    }
    let hashed = place.compute.run(move || (hasher.of(&fitted), fitted));
    let left = place.deadline.left(place.clock.now());
    match tokio::time::timeout(left, hashed).await {
        Ok(hashed) => hashed.map_err(|refused| call::refused_error(&model.name, refused)),
        Err(_) => Err(Error::Timeout {
            model: model.name.clone(),
            place: "waiting for a compute thread",
        }),
    }
}

/// Runs what the cache does not have; equal requests at the same time run once. A lookup's time is the timing's `input`.
async fn through(
    member: &Member,
    model: &Arc<Model>,
    place: &Place<'_>,
    (fitted, mut asked): (Fitted, Asked),
) -> Result<(Vec<Tensor>, Timing, Source), Error> {
    let began = place.clock.now();
    let (key, mut fitted) = named(member, model, place, fitted).await?;
    let leader = loop {
        let outputs = match member.find(key) {
            Find::Lead(leader) => break leader,
            Find::Found(outputs) => Some(outputs),
            Find::Follow(mut running) => {
                let left = place.deadline.left(place.clock.now());
                match tokio::time::timeout(left, running.changed()).await {
                    Ok(Ok(())) => running.borrow().clone(),
                    // Whoever ran has failed or left.
                    Ok(Err(_)) => None,
                    Err(_) => {
                        return Err(Error::Timeout {
                            model: model.name.clone(),
                            place: "waiting for an equal request",
                        });
                    }
                }
            }
        };
        if let Some(outputs) = outputs {
            let timing = Timing {
                input: place.clock.now().saturating_duration_since(began),
                ..Timing::default()
            };
            return Ok((outputs.to_vec(), timing, Source::Cache));
        }
    };
    let looked = place.clock.now().saturating_duration_since(began);
    let (outputs, timing) = run(model, place, (&mut fitted, &mut asked)).await?;
    let ran = place.clock.now();
    leader.keep(&outputs);
    let kept = place.clock.now().saturating_duration_since(ran);
    model.statistics.missed(looked + kept);
    Ok((outputs, timing, Source::Run))
}

async fn run(
    model: &Arc<Model>,
    place: &Place<'_>,
    (fitted, asked): (&mut Fitted, &mut Asked),
) -> Result<(Vec<Tensor>, Timing), Error> {
    let wanted = std::mem::take(&mut fitted.outputs);
    let classes = std::mem::take(&mut fitted.classes);
    let ordered = model.ensemble().map(|_| model.interface.behind(&wanted));
    // On the thread that computed: ranking a wide output's classes is work.
    let own = Arc::clone(model);
    let finish = move |outputs: Vec<Tensor>| {
        let wanted = (&wanted[..], &classes[..]);
        own.interface.classified(outputs, wanted, &own.labels)
    };
    match &model.serving {
        Serving::Ensemble(ensemble) => {
            let (id, parameters) = std::mem::take(&mut asked.passed_on);
            let order = Order {
                id,
                parameters,
                inputs: std::mem::take(&mut fitted.call.inputs),
                wanted: ordered.unwrap_or_default(),
            };
            // Its steps run beside each other, in one task.
            let place = Place {
                own_task: false,
                ..*place
            };
            let (outputs, timing) = Box::pin(ensemble.run(place, order)).await?;
            model
                .statistics
                .executed(fitted.batch, &timing, place.clock);
            Ok((finish(outputs)?, timing))
        }
        Serving::Engine(engine) => match &engine.sequencer {
            Some(sequencer) => {
                let call = std::mem::take(&mut fitted.call);
                let run = Box::pin(sequencer.run(*place, call, &asked.controls));
                let (outputs, timing) = run.await?;
                Ok((finish(outputs)?, timing))
            }
            None => call::run(engine, place, &mut fitted.call, finish).await,
        },
    }
}
