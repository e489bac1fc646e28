//! One inference: does it fit, run it, say the answer in the model's words, keep the books.

use std::sync::Arc;

use protocol::{ApiError, InferRequest, InferResponse, StreamedResponse, Timing};

use crate::call::{self, Place};
use crate::error::Error;
use crate::model::{Model, Serving};

/// Cancel-safe, as its call is.
pub(crate) async fn infer(
    model: &Arc<Model>,
    place: Place<'_>,
    request: InferRequest,
) -> Result<(InferResponse, Timing), Error> {
    let attempt = model.statistics.begin(place.clock);
    let mut batch = 1;
    match fitted(model, place, request, &mut batch).await {
        Ok((response, timing)) => {
            model.statistics.executed(batch, &timing, place.clock);
            attempt.success(&timing);
            Ok((response, timing))
        }
        Err(error) => {
            attempt.fail(&error);
            Err(error)
        }
    }
}

/// `batch` is told before the call runs, for the books.
async fn fitted(
    model: &Model,
    place: Place<'_>,
    mut request: InferRequest,
    batch: &mut usize,
) -> Result<(InferResponse, Timing), Error> {
    let arrived = place.clock.now();
    let id = request.id.take();
    let fitted = model.interface.fit(request)?;
    *batch = fitted.batch;
    let checked = place.clock.now().saturating_duration_since(arrived);
    let (outputs, mut timing) = match &model.serving {
        Serving::Engine(engine) => call::run(engine, place, fitted.call, Ok).await?,
    };
    timing.input += checked;
    let response = InferResponse {
        model: model.name.clone(),
        version: model.version.clone(),
        id,
        outputs: model.interface.answer(outputs, &fitted.outputs),
        ..InferResponse::default()
    };
    Ok((response, timing))
}

/// The answers to one call. Dropping it cancels what is left of the call.
#[derive(Debug)]
pub struct Responses(Option<InferResponse>);

impl Responses {
    pub(crate) fn once(response: InferResponse) -> Self {
        Self(Some(response))
    }

    /// The next answer; none at the end. An error ends the stream.
    pub async fn next(&mut self) -> Result<Option<StreamedResponse>, ApiError> {
        let response = self.0.take();
        Ok(response.map(|response| StreamedResponse {
            response,
            last: true,
        }))
    }
}
