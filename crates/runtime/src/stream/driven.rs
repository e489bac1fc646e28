//! Answers that others make: an ensemble's steps, or the iterations of a sequence.

use std::sync::Arc;

use protocol::{InferRequest, InferResponse, Parameters, Tensor, Timing};

use super::books::{Books, Wanted};
use crate::call::Place;
use crate::ensemble::{self, Order};
use crate::error::Error;
use crate::infer;
use crate::model::{Model, Serving};
use crate::request::Fitted;
use crate::sequence;

#[derive(Debug)]
pub(super) struct Driven {
    source: Source,
    wanted: Wanted,
    /// Asked for, and not there.
    pending: bool,
    pub(super) books: Books,
}

#[derive(Debug)]
enum Source {
    Steps(ensemble::Answers),
    Iterations(sequence::Answers),
}

pub(super) fn begin(
    model: &Arc<Model>,
    mut place: Place<'_>,
    mut request: InferRequest,
    held: Vec<Arc<Model>>,
) -> Result<Driven, Error> {
    let arrived = place.clock.now();
    let controls = infer::controls(model, &request, &mut place)?;
    let id = request.id.take();
    let parameters = match model.ensemble() {
        Some(_) => request.parameters.clone(),
        None => Parameters::default(),
    };
    let Fitted {
        call,
        outputs,
        classes,
        batch,
    } = model.interface.fit(request)?;
    let (source, rows) = match &model.serving {
        Serving::Ensemble(_) => {
            let order = Order {
                id: id.clone(),
                parameters,
                inputs: call.inputs,
                wanted: model.interface.behind(&outputs),
            };
            let answers = ensemble::answers((place.runtime, model), place.deadline, order, held);
            (Source::Steps(answers), Some(batch))
        }
        Serving::Engine(engine) => {
            let Some(sequencer) = &engine.sequencer else {
                return Err(Error::Decoupled);
            };
            let answers = sequencer.stream(place.deadline, call, &controls)?;
            (Source::Iterations(answers), None)
        }
    };
    let now = place.clock.now();
    let timing = Timing {
        input: now.saturating_duration_since(arrived),
        ..Timing::default()
    };
    Ok(Driven {
        source,
        pending: false,
        wanted: Wanted {
            id,
            outputs,
            classes,
        },
        books: Books::begin((model, place.clock), rows, timing, (arrived, now)),
    })
}

impl Driven {
    pub(super) async fn next(&mut self) -> Result<Option<InferResponse>, Error> {
        // A call that was dropped and is made again has waited all the time.
        if !std::mem::replace(&mut self.pending, true) {
            self.books.asked = self.books.clock.now();
        }
        let outputs: Option<Vec<Tensor>> = match &mut self.source {
            Source::Steps(answers) => answers.next().await?,
            Source::Iterations(answers) => answers.next().await?,
        };
        self.pending = false;
        let books = &mut self.books;
        let ready = books.clock.now();
        books.timing.infer += ready.saturating_duration_since(books.asked);
        let Some(outputs) = outputs else {
            return Ok(None);
        };
        let response = self.wanted.response(&books.model, outputs)?;
        books.answered(ready);
        Ok(Some(response))
    }
}
