//! The answers of an ensemble that has a member which answers any number of times.
//!
//! ```text
//! steps before it ──► its answer 1 ──► steps behind it ──► the ensemble's answer 1
//!                     its answer 2 (made meanwhile)     …
//! ```
//! Nothing goes on unless somebody asks for the next answer; then at most one answer is ready that nobody has taken, and at
//! each such member one that the steps behind it have not begun with. Dropping [`Answers`] drops the steps.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use base::Deadline;
use protocol::Tensor;
use tokio::sync::mpsc;

use super::Ensemble;
use super::run::{Flow, Order, Work};
use crate::call::Place;
use crate::error::Error;
use crate::model::Model;
use crate::runtime::Inner;
use crate::stream::{self, Responses};

type Going<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// What an ensemble answers, in order.
pub(crate) struct Answers {
    made: mpsc::Receiver<Vec<Tensor>>,
    /// Makes them, for as long as it is polled; none when it has ended.
    going: Option<Going<'static>>,
    failed: Option<Error>,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

/// Begins when the first answer is asked for. `held` are members that must stay in memory meanwhile.
pub(crate) fn answers(
    (inner, model): (&Arc<Inner>, &Arc<Model>),
    deadline: Deadline,
    order: Order,
    held: Vec<Arc<Model>>,
) -> Answers {
    let (sender, made) = mpsc::channel(1);
    let (inner, model) = (Arc::clone(inner), Arc::clone(model));
    let going = async move {
        let Some(ensemble) = model.ensemble() else {
            return Ok(());
        };
        let place = Place {
            runtime: &inner,
            clock: &inner.tools.clock,
            compute: &inner.tools.compute,
            buffers: &inner.buffers,
            deadline,
            own_task: false,
        };
        let flow = Flow::new(ensemble, place, order)?;
        let way = Way {
            arrived: place.clock.now(),
            answers: &sender,
        };
        ensemble.go_on(place, flow, way).await?;
        drop(held);
        Ok(())
    };
    Answers {
        made,
        going: Some(Box::pin(going)),
        failed: None,
    }
}

impl Answers {
    /// The next answer, each output in the shape that the order wants; none at the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Tensor>>, Error> {
        loop {
            let Some(going) = &mut self.going else {
                // What was made before the error comes before it.
                return match (self.made.try_recv(), self.failed.take()) {
                    (Ok(outputs), failed) => {
                        self.failed = failed;
                        Ok(Some(outputs))
                    }
                    (Err(_), Some(error)) => Err(error),
                    (Err(_), None) => Ok(None),
                };
            };
            tokio::select! {
                biased;
                Some(outputs) = self.made.recv() => return Ok(Some(outputs)),
                ended = going => {
                    self.failed = ended.err();
                    self.going = None;
                }
            }
        }
    }
}

/// Where a request's answers go.
#[derive(Clone, Copy)]
struct Way<'a> {
    arrived: Instant,
    answers: &'a mpsc::Sender<Vec<Tensor>>,
}

impl Ensemble {
    /// Runs what can run; then there is an answer, or one for each of the next decoupled step's.
    fn go_on<'a>(&'a self, place: Place<'a>, mut flow: Flow<'a>, way: Way<'a>) -> Going<'a> {
        Box::pin(async move {
            let many = self.run_up(place, &mut flow, way.arrived).await?;
            let now = place.clock.now();
            let Some(step) = many else {
                let (outputs, _) = flow.answer(now.saturating_duration_since(way.arrived))?;
                // The receiver lives as long as this is polled.
                let _taken = way.answers.send(outputs).await;
                return Ok(());
            };
            let work = flow.work(step, way.arrived, now)?;
            self.each(place, (&flow, work), way).await
        })
    }

    async fn each(
        &self,
        place: Place<'_>,
        (flow, work): (&Flow<'_>, Work),
        way: Way<'_>,
    ) -> Result<(), Error> {
        let at_step = |error| self.at_step(work.step, None, error);
        let _inside = match &self.gates[work.step] {
            Some(gate) => Some((
                gate.place(&self.name)?,
                gate.permit(&self.name, place.deadline, place.clock).await?,
            )),
            None => None,
        };
        let inputs = self.graph.steps[work.step].named(self, &work)?;
        let opened = stream::stream(&work.member, place, work.request(inputs), Vec::new()).await;
        let mut responses = opened.map_err(at_step)?;
        let mut next = answer(&mut responses, &work).await.map_err(at_step)?;
        while let Some(outputs) = next {
            let mut one = flow.clone();
            let timing = protocol::Timing::default();
            one.arrived(work.step, (outputs, timing), place.clock.now())?;
            // An answer that has come is passed on before an error that came behind it.
            let ahead = async { Ok(answer(&mut responses, &work).await) };
            let (ahead, ()) = tokio::try_join!(ahead, self.go_on(place, one, way))?;
            next = ahead.map_err(at_step)?;
        }
        Ok(())
    }
}

async fn answer(responses: &mut Responses, work: &Work) -> Result<Option<Vec<Tensor>>, Error> {
    let response = responses.answer().await?;
    response
        .map(|response| work.sorted(response.outputs))
        .transpose()
}
