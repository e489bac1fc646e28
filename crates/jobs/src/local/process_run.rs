//! A job that runs processes: one for each member of its gang.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::TaskKind;
use process::{Exit, Launch, Process, Sink};
use protocol::resource::JobEnd;
use tokio::sync::{mpsc, watch};

use super::memory::Limit;
use super::{Shared, cannot_start};
use crate::executor::{Ended, How, Run};

impl Shared {
    pub(super) async fn execute(
        &self,
        run: &Run,
        mut stopped: watch::Receiver<Option<Duration>>,
    ) -> Ended {
        let grace = Duration::from_secs(run.job.spec.grace_seconds);
        let mut started = Vec::new();
        for member in 0..run.placements.len() {
            match self.launch(run, member, grace).await {
                Ok(process) => started.push(process),
                Err(reason) => {
                    // All or none.
                    for mut process in started {
                        process.stop(grace).await;
                    }
                    return cannot_start(reason);
                }
            }
        }
        self.ready(run, None).await;
        let members = started.len();
        let (tell, mut told) = mpsc::channel(members.max(1));
        let (order, ordered) = watch::channel(None);
        for (member, process) in started.into_iter().enumerate() {
            let (tell, ordered) = (tell.clone(), ordered.clone());
            let name = format!("{} member {member}", run.id);
            let limit = self.limit(run, process.pid());
            self.parts.tasks.spawn(TaskKind::JobRun, name, async move {
                let exit = watched(process, ordered, limit).await;
                // One place for each.
                drop(tell.send((member, exit)).await);
                Ok(())
            });
        }
        drop(tell);
        let mut how = How::Succeeded;
        let mut first: Option<(usize, Over)> = None;
        loop {
            // Cancel-safe: the channel keeps what came, and an order stays given.
            tokio::select! {
                ended = told.recv() => match ended {
                    None => break,
                    Some((member, over)) => {
                        if how == How::Succeeded {
                            how = over.how();
                            if how != How::Succeeded || first.is_none() {
                                first = Some((member, over));
                            }
                        }
                        if how != How::Succeeded {
                            order.send_replace(Some(grace));
                        }
                    }
                },
                given = stopped.wait_for(Option::is_some), if how == How::Succeeded => {
                    let grace = given.ok().and_then(|given| *given);
                    how = How::Stopped;
                    order.send_replace(Some(grace.unwrap_or_default()));
                }
                () = self.parts.tasks.stopped(), if how != How::Lost => {
                    how = How::Lost;
                    order.send_replace(Some(grace));
                }
            }
        }
        said(how, first, members)
    }

    /// Level 1 takes whatever is left, as on a cluster.
    fn limit(&self, run: &Run, group: i32) -> Option<Limit> {
        let spec = &run.job.spec;
        let bytes = spec.resources.memory.bytes();
        let meter = &self.meter;
        (spec.qos_level > 1).then(|| meter.limit(group, bytes, &self.parts.tasks))
    }

    async fn launch(
        &self,
        run: &Run,
        member: usize,
        patience: Duration,
    ) -> Result<Process, String> {
        let spec = &run.job.spec;
        let command: Vec<String> = spec.command.iter().chain(&spec.args).cloned().collect();
        let log = self.logs.clone();
        let job = run.id.job.clone();
        let env = self.environment(run, member);
        Process::start(Launch {
            command: &command,
            env: &env,
            hidden: self.parts.hidden,
            working_dir: spec.working_dir.as_deref(),
            patience,
            keeper: self.parts.keeper,
            sink: Sink::Raw(Arc::new(move |bytes| log.write(&job, bytes))),
        })
        .await
    }

    /// What a member is told of itself; the job's own variables win.
    fn environment(&self, run: &Run, member: usize) -> BTreeMap<String, String> {
        let spec = &run.job.spec;
        let gpus = run
            .placements
            .get(member)
            .map_or(&[][..], |place| &place.gpus);
        let cores = spec.resources.cpu.milli().div_ceil(1_000).max(1);
        let own = [
            ("KAPOK_JOB_ID", run.id.job.clone()),
            ("KAPOK_ATTEMPT", run.id.attempt.to_string()),
            ("KAPOK_MEMBER", member.to_string()),
            ("KAPOK_GANG", spec.gang.to_string()),
            ("CUDA_VISIBLE_DEVICES", self.parts.hardware.visible(gpus)),
            // Libraries that compute take as many threads as the machine has cores, unless they are told.
            ("OMP_NUM_THREADS", cores.to_string()),
        ];
        let own = own
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        own.chain(spec.env.clone()).collect()
    }
}

/// The end of a member.
struct Over {
    exit: Exit,
    /// Bytes held and allowed, when that was why it was stopped.
    memory: Option<(u64, u64)>,
}

impl Over {
    fn how(&self) -> How {
        match self.memory {
            Some(_) => How::OutOfMemory,
            None if self.exit.success() => How::Succeeded,
            None => How::Failed,
        }
    }

    fn why(&self) -> String {
        let Some((held, limit)) = self.memory else {
            return self.exit.to_string();
        };
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        format!(
            "it held {} MiB of memory, and `resources.memory` is {} MiB; ask for more, or for qosLevel 1, which has no limit",
            mib(held),
            mib(limit)
        )
    }
}

/// Until it ends, by itself or by order.
async fn watched(
    mut process: Process,
    mut ordered: watch::Receiver<Option<Duration>>,
    mut limit: Option<Limit>,
) -> Over {
    // Cancel-safe: an end is remembered, an order stays given, the next look tells again.
    let (grace, memory) = tokio::select! {
        exit = process.exited() => return Over { exit, memory: None },
        grace = ordered.wait_for(Option::is_some) => (grace.ok().and_then(|grace| *grace), None),
        held = exceeded(&mut limit) => (None, Some(held)),
    };
    let exit = process.stop(grace.unwrap_or_default()).await;
    Over { exit, memory }
}

/// Bytes held and allowed; never without a limit.
async fn exceeded(limit: &mut Option<Limit>) -> (u64, u64) {
    match limit {
        Some(limit) => (limit.exceeded().await, limit.bytes),
        None => std::future::pending().await,
    }
}

fn said(how: How, first: Option<(usize, Over)>, members: usize) -> Ended {
    let end = first.as_ref().map(|(_, over)| JobEnd {
        exit_code: over.exit.code(),
        signal: over.exit.signal(),
    });
    let message = match (how, &first) {
        (How::Succeeded, _) => "it ended well".to_owned(),
        (How::Failed | How::OutOfMemory, Some((member, over))) if members > 1 => {
            format!("member {member}: {}", over.why())
        }
        (How::Failed | How::OutOfMemory, Some((_, over))) => over.why(),
        (How::Lost, _) => "kapok stopped while it ran".to_owned(),
        _ => "it was told to stop".to_owned(),
    };
    Ended { how, end, message }
}
