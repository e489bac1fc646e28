//! `/api/v1`: jobs and the nodes that they run on.

use std::time::Duration;

use base::ErrorKind;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use protocol::ApiError;
use protocol::resource::{JobControl, JobState, Submission};
use serde_json::json;
use tokio::sync::mpsc;

use super::control::{may_give_orders, refuse_pages};
use super::path::{BOTH, Call, GET, POST};
use super::visit::Visit;
use crate::body::{Part, Payload, Streamed};
use crate::flow::Flow;
use crate::reply::{Failure, Reply, Shape};
use crate::server::{JobLog, JobQuery, JobServer};
use crate::upload::Upload;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JobCall {
    /// List them, or submit one.
    All,
    One(String),
    Cancel(String),
    Logs(String),
    Explain(String),
    Nodes,
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Enough to look through, when no number is given, and the most.
const LISTED: usize = 100;
const LISTED_MAX: usize = 10_000;

pub(super) fn call(segments: &[&str]) -> Option<(Call, &'static str)> {
    let (call, allow) = match segments {
        ["jobs"] => (JobCall::All, BOTH),
        // Ids are legal names: nothing in them is written in another way.
        ["jobs", id] => (JobCall::One((*id).to_owned()), GET),
        ["jobs", id, "cancel"] => (JobCall::Cancel((*id).to_owned()), POST),
        ["jobs", id, "logs"] => (JobCall::Logs((*id).to_owned()), GET),
        ["jobs", id, "explain"] => (JobCall::Explain((*id).to_owned()), GET),
        ["nodes"] => (JobCall::Nodes, GET),
        _ => return None,
    };
    Some((Call::Job(call), allow))
}

pub(super) async fn answer(
    mut visit: Visit<'_>,
    call: JobCall,
    head: Box<Parts>,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    may_use_jobs(&visit)?;
    let gateway = visit.exchange.gateway.clone();
    let Some(jobs) = &gateway.shared().jobs else {
        return Err(Failure::no_such_path(head.uri.path()));
    };
    let jobs = jobs.as_ref();
    let query = Query(head.uri.query().unwrap_or_default());
    match call {
        JobCall::All if head.method == Method::POST => {
            let body = visit.whole_body(body, Shape::Oip).await?;
            submit(visit, jobs, &query, &body).await
        }
        JobCall::All => {
            let listed = visit.wait(jobs.list(query.jobs()?)).await?;
            Ok(Reply::serialised(
                StatusCode::OK,
                &json!({ "jobs": listed }),
            )?)
        }
        JobCall::One(id) => {
            let wait = query.number("waitMs")?.map(Duration::from_millis);
            // A moment is left for the answer itself.
            let left = visit.exchange.time_left().mul_f64(0.95);
            let job = jobs.get(&id, wait.map(|wait| wait.min(left)));
            Ok(Reply::serialised(StatusCode::OK, &visit.wait(job).await?)?)
        }
        JobCall::Cancel(id) => {
            let job = visit.wait(jobs.cancel(&id)).await?;
            Ok(Reply::serialised(StatusCode::OK, &job)?)
        }
        JobCall::Explain(id) => {
            let why = visit.wait(jobs.explain(&id)).await?;
            Ok(Reply::serialised(StatusCode::OK, &why)?)
        }
        JobCall::Nodes => {
            let nodes = visit.wait(jobs.nodes()).await?;
            Ok(Reply::serialised(StatusCode::OK, &nodes)?)
        }
        JobCall::Logs(id) => {
            let tail = query.number("tail")?;
            let tail = tail.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX));
            let follow = query.flag("follow")?;
            let log = visit.wait(jobs.logs(&id, tail, follow)).await?;
            let flow = Flow::new(|sender| pass_on(log, sender));
            let payload = Payload::Streamed(Box::new(Streamed::new(flow)));
            Ok(Reply::new(StatusCode::OK, TEXT, payload))
        }
    }
}

async fn submit(
    mut visit: Visit<'_>,
    jobs: &dyn JobServer,
    query: &Query<'_>,
    body: &[u8],
) -> Result<Reply, Failure> {
    let submission = Submission::from_json(body).map_err(|problem| {
        let field = problem.path.join(".");
        // The reader of manifests names the field itself.
        let message = if problem.message.contains('`') {
            problem.message
        } else {
            format!("`{field}`: {}", problem.message)
        };
        ApiError::invalid(message).with_param(field)
    })?;
    if query.flag("dryRun")? {
        let told = visit.wait(jobs.check(submission)).await?;
        return Ok(Reply::serialised(StatusCode::OK, &told)?);
    }
    let job = visit.wait(jobs.submit(submission)).await?;
    Ok(Reply::serialised(StatusCode::CREATED, &job)?)
}

/// A job is a program that runs as whoever runs kapok, so also what is told of jobs is for those who may submit them.
fn may_use_jobs(visit: &Visit<'_>) -> Result<(), Failure> {
    refuse_pages(visit)?;
    match visit.exchange.gateway.shared().config.job_control {
        JobControl::Auto => may_give_orders(visit, "jobs: {control: on}"),
        JobControl::On => Ok(()),
        JobControl::Off => {
            let message = "jobs are switched off by `jobs.control` of the Node";
            Err(ApiError::new(ErrorKind::Denied, message).into())
        }
    }
}

async fn pass_on(mut log: Box<dyn JobLog>, sender: mpsc::Sender<Part>) {
    loop {
        let part = match log.next().await {
            Ok(Some(piece)) => Part::Data(piece),
            Ok(None) => return,
            Err(error) => Part::Failed(error.message),
        };
        let failed = matches!(part, Part::Failed(_));
        if sender.send(part).await.is_err() || failed {
            return;
        }
    }
}

/// What stands behind the `?`.
struct Query<'a>(&'a str);

impl Query<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let mut pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(key, value)| (key == name).then_some(value))
    }

    fn number(&self, name: &'static str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| {
            let shown = protocol::shown::name(text);
            ApiError::invalid(format!("`{name}` is a whole number, not `{shown}`")).with_param(name)
        })
    }

    fn flag(&self, name: &'static str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                let shown = protocol::shown::name(other);
                let message = format!("`{name}` is true or false, not `{shown}`");
                Err(ApiError::invalid(message).with_param(name))
            }
        }
    }

    fn jobs(&self) -> Result<JobQuery, ApiError> {
        let state = match self.get("state") {
            None => None,
            Some(text) => {
                let known = JobState::ALL.into_iter();
                let found = known
                    .clone()
                    .find(|state| state.name().eq_ignore_ascii_case(text));
                Some(found.ok_or_else(|| {
                    let names: Vec<_> = known.map(JobState::name).collect();
                    let message = format!("`state` is one of {}", names.join(", "));
                    ApiError::invalid(message).with_param("state")
                })?)
            }
        };
        let limit = self.number("limit")?.map(usize::try_from);
        Ok(JobQuery {
            state,
            tenant: self.get("tenant").map(str::to_owned),
            limit: limit
                .map_or(LISTED, |limit| limit.unwrap_or(LISTED_MAX))
                .min(LISTED_MAX),
        })
    }
}
