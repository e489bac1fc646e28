//! One inference: does it fit, run it, say the answer in the model's words, keep the books.

use std::sync::Arc;

use base::Deadline;
use protocol::oip::proto::model_config::SchedulingChoice;
use protocol::{Controls, InferRequest, InferResponse, Tensor, Timing};

use crate::call::{self, Place};
use crate::ensemble::Order;
use crate::error::Error;
use crate::model::{Model, Serving};
use crate::request::Fitted;

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

/// Cancel-safe, as its call is.
pub(crate) async fn infer(
    model: &Arc<Model>,
    place: Place<'_>,
    request: InferRequest,
) -> Result<(InferResponse, Timing), Error> {
    let attempt = model.statistics.begin(place.clock);
    match fitted(model, place, request).await {
        Ok((response, timing)) => {
            attempt.success(&timing);
            Ok((response, timing))
        }
        Err(error) => {
            attempt.fail(&error);
            Err(error)
        }
    }
}

async fn fitted(
    model: &Arc<Model>,
    mut place: Place<'_>,
    mut request: InferRequest,
) -> Result<(InferResponse, Timing), Error> {
    let arrived = place.clock.now();
    if model.decoupled() {
        return Err(Error::Decoupled);
    }
    let controls = controls(model, &request, &mut place)?;
    let id = request.id.take();
    let passed_on = model
        .ensemble()
        .map(|_| (id.clone(), request.parameters.clone()));
    let mut fitted = model.interface.fit(request)?;
    fitted.call.priority = controls.priority;
    fitted.call.timeout = controls.timeout;
    let checked = place.clock.now().saturating_duration_since(arrived);
    let Fitted {
        call,
        outputs: wanted,
        classes,
        batch,
    } = fitted;
    let ordered = model.ensemble().map(|_| model.interface.behind(&wanted));
    // On the thread that computed: ranking a wide output's classes is work.
    let own = Arc::clone(model);
    let finish = move |outputs: Vec<Tensor>| {
        let wanted = (&wanted[..], &classes[..]);
        own.interface.classified(outputs, wanted, &own.labels)
    };
    let (outputs, mut timing) = match &model.serving {
        Serving::Ensemble(ensemble) => {
            let (id, parameters) = passed_on.unwrap_or_default();
            let order = Order {
                id,
                parameters,
                inputs: call.inputs,
                wanted: ordered.unwrap_or_default(),
            };
            let (outputs, timing) = ensemble.run(place, order).await?;
            model.statistics.executed(batch, &timing, place.clock);
            (finish(outputs)?, timing)
        }
        Serving::Engine(engine) => match &engine.sequencer {
            Some(sequencer) => {
                let (outputs, timing) = sequencer.run(place, call, &controls).await?;
                (finish(outputs)?, timing)
            }
            None => call::run(engine, place, call, finish).await?,
        },
    };
    timing.input += checked;
    let response = InferResponse {
        model: model.name.clone(),
        version: model.version.clone(),
        id,
        outputs,
        ..InferResponse::default()
    };
    Ok((response, timing))
}
