//! A visit's limits, its class, its place in line, and what it used.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::ACCEPT_ENCODING;
use http::request::Parts;
use policy::{Ask, Used};
use protocol::openai::Facts;
use protocol::openai::usage::{Unasked, ask_usage, demand};
use telemetry::Stage;

use super::Visit;
use crate::admission::{Asking, Metering, Permit, class_asked};
use crate::body::Payload;
use crate::exchange::Exchange;
use crate::keys::Key;
use crate::operation::Operation;
use crate::pick::{Outcome, Placing};
use crate::reply::{Failure, Reply};
use crate::snapshot::Target;
use crate::upstream::Upstream;

/// Counts a request for its key. What is refused here costs no read of its body.
pub(super) fn enter(
    exchange: &mut Exchange,
    key: Option<&Key>,
    headers: &HeaderMap,
) -> Result<(), Failure> {
    let shared = exchange.gateway.shared();
    let permit = Permit::new(shared.clock.clone(), shared.metrics.clone());
    let permit = exchange.permit.insert(Box::new(permit));
    permit.claim.asked = class_asked(headers);
    // The messages of a stream are its requests, and are counted one by one.
    if exchange.operation == Operation::GrpcStreamInfer {
        return Ok(());
    }
    permit.enter_key(key)?;
    Ok(())
}

impl Visit<'_> {
    /// Counts the request for its route, keeps the tokens that it may use, and waits for a place.
    pub(in crate::doors) async fn admit(
        &mut self,
        model: &str,
        body: Option<(&Bytes, Option<&Facts<'_>>)>,
    ) -> Result<(), Failure> {
        if self.exchange.permit.is_none() {
            return Ok(());
        }
        self.exchange.mark(Stage::Parse);
        self.exchange.doing = Stage::Admit;
        if let Some(key) = self.key {
            key.may_use(model)?;
        }
        let facts = body.and_then(|(_, facts)| facts);
        let streams = facts.is_none_or(|facts| facts.stream);
        let (patience, total) = (self.patience(), self.total(streams));
        let ask = body.and_then(|(body, _)| ask(self.exchange.operation, body));
        let Some(permit) = &mut self.exchange.permit else {
            return Ok(());
        };
        let asking = Asking {
            rules: self.snapshot.route_rules(model),
            ask,
            patience,
            total,
        };
        let line = permit.admit(&asking)?;
        self.exchange.mark(Stage::Admit);
        // What passes from here on is the line's, also if the caller leaves it.
        self.exchange.doing = Stage::Queue;
        if let (Some(line), Some(permit)) = (line, &mut self.exchange.permit) {
            let waited = Box::pin(permit.stand_in(&line, &asking)).await;
            self.exchange.mark(Stage::Queue);
            waited?;
        }
        if self.snapshot.places {
            self.complete_hints(model, body.and_then(|(_, facts)| facts));
            // The line before the route took some of it.
            let asking = Asking {
                patience: self.patience(),
                total: self.total(streams),
                ..asking
            };
            self.find_place(model, &asking).await?;
            self.exchange.mark(Stage::Queue);
        }
        self.exchange.doing = Stage::Parse;
        Ok(())
    }

    /// A place in an upstream that can answer, at once or in line before all that are full. Nothing to wait for is no
    /// error here: who chooses says best what is wrong.
    async fn find_place(&mut self, model: &str, asking: &Asking<'_>) -> Result<(), Failure> {
        let full = loop {
            let placing = Placing::new(self.running());
            let picked = self.pick(model, &placing);
            match placing.outcome(picked.ok()) {
                Outcome::Go(Target::Upstream(upstream)) => {
                    let line = &upstream.live.line;
                    // None if somebody else was quicker: then it is full, and the next round sees that.
                    if let (Some(place), Some(permit)) = (line.enter(), &mut self.exchange.permit) {
                        permit.place_in(line, place);
                        return Ok(());
                    }
                }
                Outcome::Go(Target::Local) | Outcome::Nobody => return Ok(()),
                Outcome::Wait(full) => break full,
            }
        };
        let Some(permit) = &mut self.exchange.permit else {
            return Ok(());
        };
        let (index, place) = Box::pin(permit.stand_in_any(&full, asking)).await?;
        permit.place_in(&full[index], place);
        Ok(())
    }

    /// A stream of requests goes to an upstream: its first request is counted, and it needs a place like any.
    pub(in crate::doors) async fn admit_stream(
        &mut self,
        model: &str,
        upstream: Arc<Upstream>,
    ) -> Result<Arc<Upstream>, Failure> {
        let Some(permit) = &mut self.exchange.permit else {
            return Ok(upstream);
        };
        permit.enter_key(self.key)?;
        self.admit(model, None).await?;
        // Where it has a place now.
        match self.choose(model).await? {
            Target::Upstream(upstream) => Ok(upstream),
            Target::Local => Ok(upstream),
        }
    }

    /// How long it still waits for the last of it, if it said so: what is not streamed comes all at once.
    fn total(&self, streams: bool) -> Option<Duration> {
        let said = self.exchange.patience;
        let all_at_once = said.silence.filter(|_| !streams);
        said.total.or(all_at_once).map(|_| {
            if streams {
                self.exchange.time_left()
            } else {
                self.patience()
            }
        })
    }

    /// How long the caller still waits for the first of its answer.
    fn patience(&self) -> Duration {
        let exchange = &self.exchange;
        let left = exchange.time_left();
        let silence = exchange.patience.silence;
        silence.map_or(left, |silence| {
            left.min(silence.saturating_sub(exchange.ledger.total()))
        })
    }

    /// The body to send: one that asks for usage, where that matters and nobody else asked.
    pub(in crate::doors) fn ask_usage(&mut self, head: &mut Parts, body: Bytes) -> Bytes {
        let operation = self.exchange.operation;
        let Some(permit) = self
            .exchange
            .permit
            .as_mut()
            .filter(|permit| permit.counts_tokens())
        else {
            return body;
        };
        // What is packed cannot be read as it passes by.
        head.headers.remove(ACCEPT_ENCODING);
        if !matches!(
            operation,
            Operation::ChatCompletions | Operation::Completions
        ) {
            return body;
        }
        match ask_usage(&body) {
            None => body,
            Some(asking) => {
                permit.asked_usage = true;
                asking.into()
            }
        }
    }

    /// Reads what the request used from its answer as that passes by, where it matters to a limit or to an export.
    pub(in crate::doors) fn watch_usage(&mut self, reply: &Reply) {
        if !reply.response.status().is_success() {
            return;
        }
        let exchange = &mut *self.exchange;
        let counted = exchange
            .permit
            .as_ref()
            .filter(|permit| permit.counts_tokens());
        let unasked = match counted {
            Some(permit) => permit.unasked(),
            // A conversation's stream is read event by event in any case.
            None if exchange.gateway.shared().reads_usage
                && exchange.operation.task().is_some()
                && !matches!(reply.response.body(), Payload::Talk(_)) =>
            {
                Unasked::Keep
            }
            None => return,
        };
        exchange.metering = Metering::of(reply.response.headers(), unasked);
    }

    /// What a model of this process used.
    pub(in crate::doors) fn used(&mut self, tokens: usize) {
        self.exchange.metering = Metering::Told(Used {
            prompt: tokens as u64,
            output: 0,
        });
    }
}

/// None for what costs no tokens.
fn ask(operation: Operation, body: &[u8]) -> Option<Ask> {
    if operation == Operation::CountTokens {
        return None;
    }
    let demand = demand(body);
    Some(Ask {
        bytes: demand.bytes,
        output_max: demand.output_max,
        // Vectors are no tokens.
        choices: if operation == Operation::Embeddings {
            0
        } else {
            demand.choices
        },
    })
}
