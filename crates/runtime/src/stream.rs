//! The answers to one call, one at a time: exactly one, or any number from a decoupled model.
//!
//! Nothing is computed before it is asked for, but what [`driven`]'s sources make ahead within their bounds, so a client that
//! reads slowly holds its place in the model and little memory. Dropping [`Responses`] cancels what is left.

mod books;
mod driven;
mod lane;

use std::sync::Arc;

use protocol::{ApiError, InferRequest, InferResponse, StreamedResponse};

use crate::call::Place;
use crate::error::Error;
use crate::model::Model;
use crate::statistics::Attempt;

use books::Books;
use driven::Driven;
use lane::Streaming;

/// The answers to one call. Dropping it cancels what is left of the call.
#[derive(Debug)]
pub struct Responses(State);

#[derive(Debug)]
enum State {
    Once(Box<InferResponse>),
    Lane(Box<Streaming>),
    Driven(Box<Driven>),
    Ended,
}

impl Responses {
    pub(crate) fn once(response: InferResponse) -> Self {
        Self(State::Once(Box::new(response)))
    }

    /// The next answer; none at the end. An error ends the stream. Cancel-safe: an answer that is not taken now is the
    /// next call's.
    pub async fn next(&mut self) -> Result<Option<StreamedResponse>, ApiError> {
        let last = matches!(self.0, State::Once(_));
        let answer = self.answer().await?;
        Ok(answer.map(|response| StreamedResponse { response, last }))
    }

    /// As [`Self::next`], for the runtime itself.
    pub(crate) async fn answer(&mut self) -> Result<Option<InferResponse>, Error> {
        let answer = match &mut self.0 {
            State::Lane(streaming) => streaming.next().await,
            State::Driven(driven) => driven.next().await,
            State::Once(_) | State::Ended => {
                return Ok(match std::mem::replace(&mut self.0, State::Ended) {
                    State::Once(response) => Some(*response),
                    _ => None,
                });
            }
        };
        if !matches!(answer, Ok(Some(_)))
            && let Some(books) = self.books()
        {
            match &answer {
                Ok(_) => books.succeeded(),
                Err(error) => books.failed(error),
            }
            self.0 = State::Ended;
        }
        answer
    }

    fn books(&mut self) -> Option<&mut Books> {
        match &mut self.0 {
            State::Lane(streaming) => Some(&mut streaming.books),
            State::Driven(driven) => Some(&mut driven.books),
            State::Once(_) | State::Ended => None,
        }
    }
}

/// For a decoupled model; resolves when the call has begun. `held` are models that must stay in memory meanwhile.
pub(crate) async fn stream(
    model: &Arc<Model>,
    place: Place<'_>,
    request: InferRequest,
    held: Vec<Arc<Model>>,
) -> Result<Responses, Error> {
    let attempt = model.statistics.begin(place.clock);
    match begin(model, place, request, held).await {
        Ok(mut responses) => {
            if let Some(books) = responses.books() {
                books.attempt = Some(attempt);
            }
            Ok(responses)
        }
        Err(error) => fail(attempt, error),
    }
}

fn fail(attempt: Attempt, error: Error) -> Result<Responses, Error> {
    attempt.fail(&error);
    Err(error)
}

async fn begin(
    model: &Arc<Model>,
    place: Place<'_>,
    request: InferRequest,
    held: Vec<Arc<Model>>,
) -> Result<Responses, Error> {
    let by_lane = model
        .by_engine()
        .is_some_and(|engine| engine.sequencer.is_none());
    let state = if by_lane {
        State::Lane(Box::new(lane::begin(model, place, request).await?))
    } else {
        State::Driven(Box::new(driven::begin(model, place, request, held)?))
    };
    Ok(Responses(state))
}

#[cfg(test)]
mod tests;
