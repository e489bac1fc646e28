//! What a job's pods have printed, one pod after the other.

use std::collections::VecDeque;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::io::{AsyncBufRead, AsyncReadExt as _};
use jobs::executor::{Answer, LogQuery, LogStream};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, LogParams};
use protocol::ApiError;

use crate::error::{code, of_cluster};
use crate::manifest::{self, JOB_LABEL};

/// Of one piece.
const PIECE_BYTES: usize = 16 << 10;

type Reader = Pin<Box<dyn AsyncBufRead + Send>>;

struct PodLogs {
    pods: Api<Pod>,
    /// Names, oldest run first, then by member.
    left: VecDeque<String>,
    query: LogQuery,
    open: Option<Reader>,
}

/// Pods that a cluster has forgotten have taken their output with them.
pub(crate) async fn of_job(
    pods: Api<Pod>,
    job: &str,
    query: LogQuery,
) -> Result<Box<dyn LogStream>, ApiError> {
    let selector = ListParams::default().labels(&format!("{JOB_LABEL}={job}"));
    let found = pods.list(&selector).await;
    let mut found = found.map_err(|error| of_cluster("list a job's pods", &error))?;
    let order = |pod: &Pod| {
        let attempt = manifest::run_of(&pod.metadata).map_or(0, |run| run.attempt);
        (attempt, pod.name_any())
    };
    found.items.sort_by_cached_key(order);
    let mut left: VecDeque<String> = found.items.iter().map(Pod::name_any).collect();
    // The last lines are those of whoever came last.
    if query.tail.is_some() {
        left = left.pop_back().into_iter().collect();
    }
    let logs = PodLogs {
        pods,
        left,
        query,
        open: None,
    };
    Ok(Box::new(logs))
}

impl PodLogs {
    /// The output of the next pod that has any.
    async fn open_next(&mut self) -> Result<bool, ApiError> {
        while let Some(name) = self.left.front().cloned() {
            let params = LogParams {
                // Of those before the last one there is nothing more to come.
                follow: self.query.follow && self.left.len() == 1,
                tail_lines: self.query.tail.and_then(|lines| i64::try_from(lines).ok()),
                ..LogParams::default()
            };
            let opened = self.pods.log_stream(&name, &params).await;
            self.left.pop_front();
            match opened {
                Ok(reader) => {
                    self.open = Some(Box::pin(reader));
                    return Ok(true);
                }
                // Its container has not started, or is not there any more.
                Err(error) if matches!(code(&error), Some(400 | 404)) => {}
                Err(error) => return Err(of_cluster("read a pod's log", &error)),
            }
        }
        Ok(false)
    }
}

impl LogStream for PodLogs {
    fn next(&mut self) -> Answer<'_, Option<Bytes>> {
        Box::pin(async move {
            loop {
                let Some(reader) = &mut self.open else {
                    if self.open_next().await? {
                        continue;
                    }
                    return Ok(None);
                };
                let mut piece = vec![0; PIECE_BYTES];
                let read = reader.read(&mut piece).await;
                let read = read.map_err(|error| {
                    let message = format!("a pod's log was cut off: {error}");
                    ApiError::new(base::ErrorKind::Unavailable, message)
                })?;
                if read > 0 {
                    piece.truncate(read);
                    return Ok(Some(Bytes::from(piece)));
                }
                self.open = None;
            }
        })
    }
}
