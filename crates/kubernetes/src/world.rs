//! What a cluster has shown, and what that means for the runs: a pure state, told of objects, that tells events.

mod phase;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jobs::executor::{Ended, Event, How, Progress, Run, RunId};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use protocol::resource::JobEnd;

use crate::manifest;
use crate::nodes;
use phase::{Phase, PodPhase};

/// What a watcher has seen of one kind of object.
#[derive(Debug)]
pub(crate) enum Change<K> {
    /// All there are. The list was begun as the so-manieth of all lists.
    All {
        number: u64,
        items: Vec<K>,
    },
    Put(K),
    Gone(K),
}

#[derive(Debug)]
pub(crate) enum Seen {
    Processes(Change<Job>),
    Replicas(Change<Deployment>),
    Pods(Change<Pod>),
    Nodes(Change<Node>),
}

#[derive(Debug)]
pub(crate) struct World {
    namespace: String,
    runs: BTreeMap<RunId, Watched>,
    nodes: BTreeMap<String, scheduler::Node>,
    told_nodes: bool,
}

/// One run that has not ended.
#[derive(Debug)]
struct Watched {
    kind: Kind,
    members: u32,
    /// It was told to stop.
    stopping: bool,
    shown: Shown,
    told: Told,
    pods: BTreeMap<String, PodPhase>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Process,
    Replica,
}

/// Whether an absence from a list means that it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// It is being created.
    NotYet,
    /// It was created before the list after this one was begun.
    Since(u64),
    /// A watcher has seen it.
    Yes,
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Starting(String),
    Ready,
}

impl World {
    pub(crate) fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            runs: BTreeMap::new(),
            nodes: BTreeMap::new(),
            told_nodes: false,
        }
    }

    /// A run that was there when kapok last stopped: the first list shows whether it still is.
    pub(crate) fn remember(&mut self, run: &Run) {
        self.begin(run);
        self.created(&run.id, 0);
    }

    /// A run whose objects are about to be created. Whether it is a new one.
    pub(crate) fn begin(&mut self, run: &Run) -> bool {
        if self.runs.contains_key(&run.id) {
            return false;
        }
        let kind = match run.job.spec.model {
            Some(_) => Kind::Replica,
            None => Kind::Process,
        };
        let watched = Watched {
            kind,
            members: run.job.spec.gang,
            stopping: false,
            shown: Shown::NotYet,
            told: Told::Nothing,
            pods: BTreeMap::new(),
        };
        self.runs.insert(run.id.clone(), watched);
        true
    }

    /// Its objects were created after so many lists had been begun.
    pub(crate) fn created(&mut self, id: &RunId, lists: u64) {
        if let Some(run) = self.runs.get_mut(id)
            && run.shown == Shown::NotYet
        {
            run.shown = Shown::Since(lists);
        }
    }

    /// Its objects could not be created.
    pub(crate) fn abandon(&mut self, id: &RunId) {
        self.runs.remove(id);
    }

    /// Whether there is anything to stop.
    pub(crate) fn stop(&mut self, id: &RunId) -> bool {
        match self.runs.get_mut(id) {
            Some(run) => {
                run.stopping = true;
                true
            }
            None => false,
        }
    }

    /// Of a process that has failed: its pods say how.
    pub(crate) fn wants_pods(&self, seen: &Seen) -> Option<RunId> {
        let Seen::Processes(Change::Put(job)) = seen else {
            return None;
        };
        let id = manifest::run_of(&job.metadata)?;
        let run = self.runs.get(&id)?;
        let failed = matches!(phase::of_process(job), Phase::Failed(_));
        let unknown = !run.pods.values().any(|pod| pod.end().is_some());
        (failed && unknown).then_some(id)
    }

    pub(crate) fn take(&mut self, seen: Seen) -> Vec<Event> {
        match seen {
            Seen::Nodes(change) => self.take_nodes(change),
            Seen::Pods(change) => self.take_pods(change),
            Seen::Processes(change) => {
                let name = |job: &Job| manifest::run_of(&job.metadata);
                self.take_objects(Kind::Process, change, name, phase::of_process)
            }
            Seen::Replicas(change) => {
                let name = |replica: &Deployment| manifest::run_of(&replica.metadata);
                self.take_objects(Kind::Replica, change, name, phase::of_replica)
            }
        }
    }

    fn take_objects<K>(
        &mut self,
        kind: Kind,
        change: Change<K>,
        name: impl Fn(&K) -> Option<RunId>,
        phase: impl Fn(&K) -> Phase,
    ) -> Vec<Event> {
        match change {
            Change::Put(object) => {
                let id = name(&object);
                let event = id.and_then(|id| self.shows(id, phase(&object)));
                event.into_iter().collect()
            }
            Change::Gone(object) => {
                let event = name(&object).and_then(|id| self.gone(id));
                event.into_iter().collect()
            }
            Change::All { number, items } => {
                let there: BTreeSet<RunId> = items.iter().filter_map(&name).collect();
                let missing = |run: &Watched| match run.shown {
                    Shown::NotYet => false,
                    Shown::Since(lists) => lists < number,
                    Shown::Yes => true,
                };
                let missing = self
                    .runs
                    .iter()
                    .filter(|(id, run)| run.kind == kind && missing(run) && !there.contains(*id));
                let missing: Vec<RunId> = missing.map(|(id, _)| id.clone()).collect();
                let mut events: Vec<Event> =
                    missing.into_iter().filter_map(|id| self.gone(id)).collect();
                for object in &items {
                    let id = name(object);
                    events.extend(id.and_then(|id| self.shows(id, phase(object))));
                }
                events
            }
        }
    }

    fn shows(&mut self, id: RunId, phase: Phase) -> Option<Event> {
        let endpoint = manifest::endpoint(&id, &self.namespace);
        let run = self.runs.get_mut(&id)?;
        run.shown = Shown::Yes;
        let how = match phase {
            Phase::Waiting(why) => {
                let why = run.trouble().unwrap_or(why);
                return run.starting(why).map(|told| Event::Run(id, told));
            }
            Phase::Ready => {
                if run.told == Told::Ready {
                    return None;
                }
                run.told = Told::Ready;
                let endpoint = (run.kind == Kind::Replica).then_some(endpoint);
                return Some(Event::Run(id, Progress::Ready { endpoint }));
            }
            // Its pods still end.
            Phase::Leaving => return None,
            Phase::Succeeded => (How::Succeeded, "all members ended well".to_owned()),
            Phase::Failed(message) => (How::Failed, message),
        };
        let run = self.runs.remove(&id)?;
        let (how, message) = match how {
            (How::Failed, _) if run.stopping => (How::Stopped, "it was told to stop".to_owned()),
            (How::Failed, message) if run.pods.values().any(PodPhase::out_of_memory) => {
                (How::OutOfMemory, message)
            }
            how => how,
        };
        let end = run.end();
        Some(ended(id, how, end, message))
    }

    /// Nothing is left of it.
    fn gone(&mut self, id: RunId) -> Option<Event> {
        let run = self.runs.remove(&id)?;
        let (how, message) = match run.stopping {
            true => (How::Stopped, "it was told to stop"),
            false => (How::Lost, "its object was deleted from the cluster"),
        };
        Some(ended(id, how, run.end(), message.to_owned()))
    }

    fn take_pods(&mut self, change: Change<Pod>) -> Vec<Event> {
        let pods = match change {
            Change::Put(pod) => vec![pod],
            Change::All { items, .. } => items,
            // How it ended is still wanted when the run's own object tells of its end.
            Change::Gone(_) => Vec::new(),
        };
        let mut events = Vec::new();
        for pod in pods {
            let Some(id) = manifest::run_of(&pod.metadata) else {
                continue;
            };
            let Some(run) = self.runs.get_mut(&id) else {
                continue;
            };
            let name = pod.metadata.name.clone().unwrap_or_default();
            run.pods.insert(name, PodPhase::of(&pod));
            if let Some(told) = run.trouble().and_then(|why| run.starting(why)) {
                events.push(Event::Run(id, told));
            }
        }
        events
    }

    fn take_nodes(&mut self, change: Change<Node>) -> Vec<Event> {
        let before = self.nodes.clone();
        let mut put = |seen: Node| {
            let name = seen.metadata.name.clone().unwrap_or_default();
            match nodes::node(&seen) {
                Some(node) => self.nodes.insert(name, node),
                None => self.nodes.remove(&name),
            }
        };
        match change {
            Change::Put(node) => drop(put(node)),
            Change::Gone(node) => {
                let name = node.metadata.name.unwrap_or_default();
                self.nodes.remove(&name);
            }
            Change::All { items, .. } => {
                self.nodes.clear();
                for item in items {
                    let name = item.metadata.name.clone().unwrap_or_default();
                    if let Some(node) = nodes::node(&item) {
                        self.nodes.insert(name, node);
                    }
                }
            }
        }
        // Nodes tell of themselves every few seconds, and mostly nothing new.
        if self.told_nodes && before == self.nodes {
            return Vec::new();
        }
        self.told_nodes = true;
        vec![Event::Nodes(self.nodes.values().cloned().collect())]
    }
}

impl Watched {
    /// Said once, and never after it was ready.
    fn starting(&mut self, why: String) -> Option<Progress> {
        let said = matches!(&self.told, Told::Starting(before) if *before == why);
        if said || self.told == Told::Ready {
            return None;
        }
        self.told = Told::Starting(why.clone());
        Some(Progress::Starting(why))
    }

    /// What keeps a pod from starting, in the cluster's words.
    fn trouble(&self) -> Option<String> {
        self.pods.values().find_map(PodPhase::trouble)
    }

    /// How the first member ended that did not end well; of a single member, how it ended.
    fn end(&self) -> Option<JobEnd> {
        let mut ends = self.pods.values().filter_map(PodPhase::end);
        let failed = self.pods.values().filter_map(PodPhase::end);
        let failed = failed.into_iter().find(|end| end.exit_code != Some(0));
        failed.or_else(|| ends.next().filter(|_| self.members == 1))
    }
}

fn ended(id: RunId, how: How, end: Option<JobEnd>, message: String) -> Event {
    Event::Run(id, Progress::Ended(Ended { how, end, message }))
}
