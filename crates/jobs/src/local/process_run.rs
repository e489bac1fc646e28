//! A job that runs processes: one for each member of its gang.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::TaskKind;
use process::{Exit, Launch, Process, Sink};
use protocol::resource::JobEnd;
use tokio::sync::{mpsc, watch};

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
            self.parts.tasks.spawn(TaskKind::JobRun, name, async move {
                let exit = watched(process, ordered).await;
                // One place for each.
                drop(tell.send((member, exit)).await);
                Ok(())
            });
        }
        drop(tell);
        let mut how = How::Succeeded;
        let mut first: Option<(usize, Exit)> = None;
        loop {
            // Cancel-safe: the channel keeps what came, and an order stays given.
            tokio::select! {
                ended = told.recv() => match ended {
                    None => break,
                    Some((_, exit)) if how == How::Succeeded && exit.success() => {
                        first.get_or_insert((0, exit));
                    }
                    Some((member, exit)) => {
                        if how == How::Succeeded {
                            how = How::Failed;
                            first = Some((member, exit));
                        }
                        order.send_replace(Some(grace));
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

/// Until it ends, by itself or by order.
async fn watched(mut process: Process, mut ordered: watch::Receiver<Option<Duration>>) -> Exit {
    let grace = tokio::select! {
        exit = process.exited() => return exit,
        grace = ordered.wait_for(Option::is_some) => grace.ok().and_then(|grace| *grace),
    };
    process.stop(grace.unwrap_or_default()).await
}

fn said(how: How, first: Option<(usize, Exit)>, members: usize) -> Ended {
    let end = first.as_ref().map(|(_, exit)| JobEnd {
        exit_code: exit.code(),
        signal: exit.signal(),
    });
    let message = match (how, &first) {
        (How::Succeeded, _) => "it ended well".to_owned(),
        (How::Failed, Some((member, exit))) if members > 1 => format!("member {member}: {exit}"),
        (How::Failed, Some((_, exit))) => exit.to_string(),
        (How::Lost, _) => "kapok stopped while it ran".to_owned(),
        _ => "it was told to stop".to_owned(),
    };
    Ended { how, end, message }
}
