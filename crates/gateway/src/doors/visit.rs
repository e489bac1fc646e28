mod admitted;
pub(super) mod kept;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use base::{ErrorKind, nearest};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use protocol::oip::Shared;
use protocol::resource::Scope;
use protocol::{ApiError, Timing, openai};
use routing::Caller;
use telemetry::Stage;
use tokio::time::timeout;

use crate::bridge::Bridge;
use crate::exchange::Exchange;
use crate::headers::{API_KEY, X_API_KEY};
use crate::hold;
use crate::keys::Key;
use crate::operation::Operation;
use crate::pick::{self, Hints, Local, NoRoute, Now, Pick, Placed, RequestFacts, Running};
use crate::read::{Held, ReadError, Reader};
use crate::reply::{Failure, Shape};
use crate::snapshot::{Snapshot, Target};
use crate::upload::Upload;
use crate::upstream::{Upstream, Wire};

/// A request whose key was checked, with the snapshot that it sees from start to end.
pub(super) struct Visit<'a> {
    pub(super) exchange: &'a mut Exchange,
    pub(super) snapshot: &'a Arc<Snapshot>,
    /// None when no key is needed.
    pub(super) key: Option<&'a Key>,
}

/// Names that a "not found" lists before it says "and more".
const NAMES_SHOWN: usize = 10;

/// No registry has names this long: twice what a file name may have.
const MODEL_BYTES_MAX: usize = 512;

/// When to ask again for a target that is starting.
const NOT_READY_RETRY: Duration = Duration::from_secs(1);

impl<'a> Visit<'a> {
    pub(super) fn enter(
        exchange: &'a mut Exchange,
        snapshot: &'a Arc<Snapshot>,
        headers: &HeaderMap,
    ) -> Result<Self, Failure> {
        exchange.doing = Stage::Admit;
        let key = snapshot.keys.check(headers)?;
        let scope = exchange.operation.scope();
        if let (Some(key), Some(scope)) = (key, scope) {
            key.opens(scope)?;
        }
        if snapshot.limited && scope == Some(Scope::Inference) {
            admitted::enter(exchange, key, headers)?;
        }
        exchange.hints = Hints::read(snapshot, headers);
        exchange.caller = caller(headers);
        exchange.mark(Stage::Admit);
        exchange.doing = Stage::Read;
        Ok(Self {
            exchange,
            snapshot,
            key,
        })
    }

    /// The way to an upstream that speaks the other form of the protocol.
    pub(super) fn bridge<'b>(
        &'b mut self,
        upstream: &'b Arc<Upstream>,
        headers: &'b HeaderMap,
    ) -> Bridge<'b> {
        Bridge {
            ours_authorized: self.ours_authorized(),
            exchange: self.exchange,
            snapshot: self.snapshot,
            upstream,
            headers,
        }
    }

    pub(super) fn ours_authorized(&self) -> bool {
        self.key.is_some()
    }

    /// The body, which the caller reads at once.
    pub(super) fn reader<'b>(
        &mut self,
        body: &'b mut Upload,
        shape: Shape,
    ) -> Result<Reader<&'b mut Upload>, Failure> {
        self.exchange.doing = Stage::Read;
        let shared = self.exchange.gateway.shared();
        let held = Held::nothing(&shared.body_bytes);
        let reader = Reader::new(body, shared.config.body_bytes_max, Arc::clone(&held))
            .map_err(|error| error.into_failure(shape))?;
        self.exchange.body_held = Some(held);
        self.exchange.body_asked_for = true;
        Ok(reader)
    }

    /// Waits for the client's bytes, at most until its deadline.
    pub(super) async fn read<T>(
        &mut self,
        shape: Shape,
        reading: impl Future<Output = Result<T, ReadError>>,
    ) -> Result<T, Failure> {
        let due = self.exchange.deadline.instant();
        match self.exchange.alarm.within(due, reading).await {
            Some(read) => read.map_err(|error| error.into_failure(shape)),
            None => Err(too_slow()),
        }
    }

    pub(super) async fn whole_body(
        &mut self,
        body: &mut Upload,
        shape: Shape,
    ) -> Result<Bytes, Failure> {
        let mut reader = self.reader(body, shape)?;
        let whole = self.read(shape, reader.rest()).await?;
        self.exchange.mark(Stage::Read);
        self.exchange.doing = Stage::Parse;
        Ok(whole)
    }

    /// Copies inputs from where they are in shared memory. Like a body's, their bytes count while the request lives.
    pub(super) async fn read_shared(&mut self, places: &[Shared]) -> Result<Vec<Bytes>, Failure> {
        let mut read = Vec::with_capacity(places.len());
        if places.is_empty() {
            return Ok(read);
        }
        let gateway = self.exchange.gateway.clone();
        let shared = gateway.shared();
        let held = self
            .exchange
            .body_held
            .get_or_insert_with(|| Held::nothing(&shared.body_bytes));
        for place in places {
            read.push(shared.regions.read(place, &shared.pool, held).await?);
        }
        Ok(read)
    }

    /// Who answers a request for this model; the exchange is told.
    pub(super) async fn choose(&mut self, model: &str) -> Result<Target, Failure> {
        self.choose_for(model, None).await
    }

    /// [`Visit::choose`], for a request whose body says more than the model.
    pub(super) async fn choose_for(
        &mut self,
        model: &str,
        body: Option<&openai::Facts<'_>>,
    ) -> Result<Target, Failure> {
        self.exchange.mark(Stage::Parse);
        self.exchange.doing = Stage::Route;
        if model.len() > MODEL_BYTES_MAX {
            let bytes = model.len();
            let message =
                format!("`model` has {bytes} bytes, at most {MODEL_BYTES_MAX} are allowed");
            return Err(ApiError::invalid(message).with_param("model").into());
        }
        model.clone_into(&mut self.exchange.model);
        if let Some(key) = self.key {
            key.may_use(model)?;
        }
        if !self.is_placed() {
            self.complete_hints(model, body);
        }
        let pick = match self.pick_now(self.snapshot, model) {
            Ok(pick) => pick,
            Err(refusal @ NoRoute::NotReady(_)) => Box::pin(self.hold(model, refusal)).await?,
            Err(refusal) => return Err(self.no_route(model, refusal).into()),
        };
        let target = self.exchange.chosen(pick);
        self.exchange.mark(Stage::Route);
        self.exchange.doing = Stage::Parse;
        Ok(target)
    }

    fn pick_now(&self, snapshot: &Snapshot, model: &str) -> Result<Pick, NoRoute> {
        let running = self.running();
        let permit = self.exchange.permit.as_ref();
        match permit.and_then(|permit| permit.placed()) {
            None => self.pick_in(snapshot, model, &running),
            Some(line) => self.pick_in(snapshot, model, &Placed { running, line }),
        }
    }

    /// Waits for somebody who is on the way, in line with others and not for ever.
    async fn hold(&mut self, model: &str, refusal: NoRoute) -> Result<Pick, Failure> {
        let gateway = self.exchange.gateway.clone();
        let shared = gateway.shared();
        let wire = self.exchange.operation.wire();
        let place = hold::limit(self.snapshot, model, wire)
            .and_then(|limit| Some((limit, shared.holds.enter()?)));
        let Some((limit, place)) = place else {
            return Err(self.no_route(model, refusal).into());
        };
        self.exchange.mark(Stage::Route);
        self.exchange.doing = Stage::Queue;
        let picked = timeout(limit.min(self.exchange.time_left()), async {
            loop {
                // The resources may be others by now, and whoever was waited for may not be among them.
                match self.pick_now(&gateway.snapshot(), model) {
                    Err(NoRoute::NotReady(_)) => {}
                    decided => return decided,
                }
                place.pass();
                place.called().await;
            }
        });
        let picked = picked.await.unwrap_or(Err(refusal));
        self.exchange.mark(Stage::Queue);
        self.exchange.doing = Stage::Route;
        picked.map_err(|refusal| self.no_route(model, refusal).into())
    }

    /// Whether its upstream was found when it got its place.
    fn is_placed(&self) -> bool {
        let permit = self.exchange.permit.as_ref();
        permit.is_some_and(|permit| permit.placed().is_some())
    }

    /// Reads what the model's route wants to know of the request besides.
    fn complete_hints(&mut self, model: &str, body: Option<&openai::Facts<'_>>) {
        if let Some(group) = self.snapshot.route(model) {
            self.exchange.hints.complete(&group.plan.rules, body);
        }
    }

    fn running(&self) -> Running {
        Running::at(self.exchange.gateway.shared(), self.exchange.caller)
    }

    fn pick(&self, model: &str, now: &impl Now) -> Result<Pick, NoRoute> {
        self.pick_in(self.snapshot, model, now)
    }

    fn pick_in(&self, snapshot: &Snapshot, model: &str, now: &impl Now) -> Result<Pick, NoRoute> {
        let wire = self.exchange.operation.wire();
        let picked = self.pick_over(snapshot, model, (wire, self.local(model)), now);
        // A model that takes strings and gives vectors can embed, though it knows nothing of it.
        if self.exchange.operation == Operation::Embeddings
            && matches!(picked, Err(NoRoute::UnknownModel { .. }))
            && let Ok(other) = self.pick_over(
                snapshot,
                model,
                (Wire::Oip, self.local_of(model, true)),
                now,
            )
        {
            return Ok(other);
        }
        picked
    }

    fn pick_over(
        &self,
        snapshot: &Snapshot,
        model: &str,
        (wire, local): (Wire, Local),
        now: &impl Now,
    ) -> Result<Pick, NoRoute> {
        let facts = RequestFacts {
            model,
            wire,
            local,
            hints: &self.exchange.hints,
            longer: false,
            tried: &[],
            keeper: self.exchange.keeper(),
        };
        pick::pick(snapshot, &facts, now)
    }

    /// Whether this process has the model, for this kind of request.
    fn local(&self, model: &str) -> Local {
        let models = &self.exchange.gateway.shared().models;
        let takes = match self.exchange.operation {
            Operation::Embeddings => models.has(model) && models.embeds(model),
            operation => operation.wire() == Wire::Oip && models.has(model),
        };
        self.local_of(model, takes)
    }

    fn local_of(&self, model: &str, takes: bool) -> Local {
        let models = &self.exchange.gateway.shared().models;
        let there = takes && models.has(model);
        match there.then(|| models.model_ready(model, None)) {
            None => Local::Absent,
            Some(Ok(true)) => Local::Ready,
            Some(Ok(false) | Err(_)) => Local::NotReady,
        }
    }

    fn no_route(&mut self, model: &str, refusal: NoRoute) -> ApiError {
        match refusal {
            NoRoute::NotReady(targets) => {
                let (public, internal): (Vec<String>, Vec<String>) = targets
                    .into_iter()
                    .map(|(name, reason)| {
                        let public = format!("upstream `{name}` is not ready");
                        let internal = format!("{public}: {reason}");
                        (public, internal)
                    })
                    .unzip();
                // A reason can hold what a process wrote or a path: that is for operators.
                self.exchange.reason = internal.join("; ");
                ApiError::new(ErrorKind::Unavailable, public.join("; "))
                    .with_code("upstream_not_ready")
                    .retry_after(NOT_READY_RETRY)
            }
            NoRoute::UnknownModel { .. } if self.exchange.gateway.shared().models.has(model) => {
                let asked = self.exchange.operation.name();
                let message = format!("model `{model}` does not take requests of `{asked}`");
                ApiError::invalid(message).with_param("model")
            }
            NoRoute::UnknownModel { .. } if self.exchange.operation.is_stored() => {
                kept::nobody(model)
            }
            NoRoute::UnknownModel { .. } if self.exchange.goes_by_path() => kept::no_model(model),
            NoRoute::UnknownModel { nearest } => self.unknown_model(model, nearest),
        }
    }

    fn unknown_model(&self, model: &str, suggested: Option<String>) -> ApiError {
        let visible = self.models();
        let suggested = suggested
            .or_else(|| nearest(model, visible.iter().map(String::as_str)).map(str::to_owned));
        let suggested = suggested.filter(|name| self.sees(name));
        let mut error = ApiError::unknown_model(model);
        if self.exchange.operation.wire() != Wire::Oip {
            error.message = format!("the model `{model}` does not exist here");
        }
        if let Some(name) = suggested {
            error.message.push_str(&format!("; did you mean `{name}`?"));
        } else if !visible.is_empty() {
            let shown: Vec<String> = visible
                .iter()
                .take(NAMES_SHOWN)
                .map(|name| format!("`{name}`"))
                .collect();
            let more = if visible.len() > NAMES_SHOWN {
                " and more"
            } else {
                ""
            };
            let list = shown.join(", ");
            error.message.push_str(&format!("; there are {list}{more}"));
        }
        error
    }

    fn sees(&self, model: &str) -> bool {
        self.key.is_none_or(|key| key.sees(model))
    }

    /// Every model name that this caller may know of.
    pub(super) fn models(&self) -> BTreeSet<String> {
        let index = self.exchange.gateway.shared().models.index();
        index
            .into_iter()
            .map(|entry| entry.name)
            .chain(self.snapshot.known_models().map(str::to_owned))
            .filter(|name| self.sees(name))
            .collect()
    }

    /// Divides the time of a call to the models of this process.
    pub(super) fn mark_call(&mut self, timing: &Timing) {
        let parts = [
            (Stage::Input, timing.input),
            (Stage::Infer, timing.infer),
            (Stage::Output, timing.output),
            (Stage::Queue, timing.queue),
        ];
        let now = self.exchange.gateway.shared().clock.now();
        // What nobody measured was spent getting to a lane and back.
        self.exchange.ledger.mark_parts(&parts, Stage::Queue, now);
        self.exchange.doing = Stage::Encode;
    }

    /// Waits for the models of this process, at most until the deadline. Giving up drops the call, which frees its lane.
    ///
    /// A call that fails does not tell where its time went. Whoever ran out of time or was refused is taken to have
    /// waited, as in [`Visit::mark_call`]: that the engine ran is said only of other failures.
    pub(super) async fn wait<T>(
        &mut self,
        call: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, Failure> {
        self.exchange.doing = Stage::Queue;
        let due = self.exchange.deadline.instant();
        match self.exchange.alarm.within(due, call).await {
            Some(answer) => answer.map_err(|error| {
                let waited = [
                    ErrorKind::Timeout,
                    ErrorKind::Unavailable,
                    ErrorKind::Exhausted,
                ];
                if !waited.contains(&error.kind) {
                    self.exchange.doing = Stage::Infer;
                }
                error.into()
            }),
            None => {
                let message = "the deadline passed before the model answered";
                Err(ApiError::new(ErrorKind::Timeout, message)
                    .with_code("deadline_exceeded")
                    .into())
            }
        }
    }
}

/// Requests under one credential are one caller's; those without any are one caller's too.
fn caller(headers: &HeaderMap) -> Caller {
    let key = [&AUTHORIZATION, &X_API_KEY, &API_KEY]
        .into_iter()
        .find_map(|name| headers.get(name));
    key.map_or(Caller::NOBODY, |key| {
        let mut hasher = DefaultHasher::new();
        key.as_bytes().hash(&mut hasher);
        Caller(hasher.finish().max(1))
    })
}

fn too_slow() -> Failure {
    let message = "the deadline passed before the request's body had arrived";
    let error = ApiError::new(ErrorKind::Timeout, message).with_code("deadline_exceeded");
    Failure::with_status(error, StatusCode::REQUEST_TIMEOUT)
}
