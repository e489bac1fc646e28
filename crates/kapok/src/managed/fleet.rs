use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base::{Clock, Deadline, TaskKind, Tasks};
use gateway::Usage;
use protocol::resource::UpstreamSpec;
use tokio::sync::{oneshot, watch};

use super::{Managed, Process, Report, Wish};
use crate::exit::{Failure, Outcome};

/// A process that runs already.
#[derive(Debug)]
pub(crate) struct Adopted {
    pub(crate) process: Process,
    pub(crate) ready: bool,
}

/// Every managed process, as the resources want them.
pub(crate) struct Fleet {
    tasks: Tasks,
    clock: Clock,
    report: Report,
    members: BTreeMap<String, Member>,
}

/// One upstream's process and the way to its task.
#[derive(Debug)]
struct Member {
    upstream: UpstreamSpec,
    wish: watch::Sender<Wish>,
    /// Told when the task is over: the process, if it was released.
    over: oneshot::Receiver<Option<Adopted>>,
}

/// Upstreams with a process, by name.
pub(crate) type Wanted = BTreeMap<String, UpstreamSpec>;

/// Between two looks whether an upstream that goes is still used.
const LOOK: Duration = Duration::from_millis(25);

/// Looks in a row that must find it unused: a request that has just been routed there is not counted yet.
const UNUSED_LOOKS: u32 = 4;

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

impl Fleet {
    pub(crate) fn new(tasks: Tasks, clock: Clock, report: Report) -> Self {
        Self {
            tasks,
            clock,
            report,
            members: BTreeMap::new(),
        }
    }

    /// Whether every one of these could be managed.
    pub(crate) fn check(&self, wanted: &Wanted) -> Outcome {
        for (name, upstream) in wanted {
            let (_sender, wish) = watch::channel(Wish::Run);
            self.managed(name, upstream, wish)?;
        }
        Ok(())
    }

    /// Processes that are to go: not wanted any more, or wanted otherwise.
    pub(crate) fn leaving(&self, wanted: &Wanted) -> Vec<String> {
        let same = |name: &str, member: &Member| {
            wanted.get(name).is_some_and(|upstream| {
                upstream.url == member.upstream.url && upstream.process == member.upstream.process
            })
        };
        let leaving = self
            .members
            .iter()
            .filter(|(name, member)| !same(name, member));
        leaving.map(|(name, _)| name.clone()).collect()
    }

    /// Starts what is new and stops what is to go, once its requests are answered or `patience` is over. What takes the
    /// place of a process waits for its end, for it wants the same port. `running` are processes to go on with.
    pub(crate) fn follow(
        &mut self,
        wanted: &Wanted,
        mut usage: BTreeMap<String, Usage>,
        patience: Duration,
        mut running: BTreeMap<String, Adopted>,
    ) -> Outcome {
        self.check(wanted)?;
        let mut previous = BTreeMap::new();
        for name in self.leaving(wanted) {
            if let Some(member) = self.members.remove(&name) {
                previous.insert(name, member);
            }
        }
        for (name, upstream) in wanted {
            if self.members.contains_key(name) {
                continue;
            }
            let (wish, wishes) = watch::channel(Wish::Run);
            let (tell, over) = oneshot::channel();
            let managed = self.managed(name, upstream, wishes)?;
            let before = previous
                .remove(name)
                .map(|member| (member, usage.remove(name)));
            let adopted = running.remove(name);
            let clock = self.clock.clone();
            self.tasks
                .spawn(TaskKind::ManagedProcess, name.clone(), async move {
                    if let Some((member, usage)) = before {
                        member.retire(usage, &clock, patience).await;
                    }
                    // Whoever released it listens; otherwise there is nothing to tell.
                    let _unheard = tell.send(managed.run(adopted).await);
                    Ok(())
                });
            let upstream = upstream.clone();
            let member = Member {
                upstream,
                wish,
                over,
            };
            self.members.insert(name.clone(), member);
        }
        for (name, member) in previous {
            let (clock, usage) = (self.clock.clone(), usage.remove(&name));
            self.tasks
                .spawn(TaskKind::ManagedProcess, name, async move {
                    member.retire(usage, &clock, patience).await;
                    Ok(())
                });
        }
        Ok(())
    }

    /// Lets go of every process that runs; nobody watches them until they are followed again, here or elsewhere.
    pub(crate) async fn release(&mut self) -> Vec<(String, UpstreamSpec, Adopted)> {
        let members = std::mem::take(&mut self.members);
        for member in members.values() {
            member.wish.send_replace(Wish::Release);
        }
        let mut released = Vec::new();
        for (name, member) in members {
            // One that waits to be started again has no process: whoever follows starts it.
            if let Ok(Some(adopted)) = member.over.await {
                released.push((name, member.upstream, adopted));
            }
        }
        released
    }

    fn managed(
        &self,
        name: &str,
        upstream: &UpstreamSpec,
        wish: watch::Receiver<Wish>,
    ) -> Outcome<Managed> {
        let (report, tasks, clock) = (self.report.clone(), self.tasks.clone(), self.clock.clone());
        let managed = Managed::new(name, upstream, report, clock, (tasks, wish));
        let hint = "a process is asked for its health over plain http";
        managed
            .map_err(|error| Failure::usage(format!("upstream `{name}`: {error}")).hint(hint))?
            .ok_or_else(|| Failure::usage(format!("upstream `{name}` has no process")))
    }
}

impl Member {
    /// Ends it when nobody uses it any more.
    async fn retire(self, usage: Option<Usage>, clock: &Clock, patience: Duration) {
        let deadline = Deadline::after(clock.now(), patience);
        let mut unused = 0;
        while let Some(usage) = &usage
            && unused < UNUSED_LOOKS
            && !deadline.passed(clock.now())
        {
            unused = if usage.in_flight() == 0 {
                unused + 1
            } else {
                0
            };
            tokio::time::sleep(LOOK).await;
        }
        self.wish.send_replace(Wish::Stop);
        let _over = self.over.await;
    }
}
