#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{Clock, TaskKind, Tasks};
use jobs::executor::{Answer, Event, Events, Executor, LogQuery, LogStream, Run, RunId};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, Resource, ResourceExt as _};
use parking_lot::Mutex;
use protocol::ApiError;
use protocol::resource::{JobSpec, KubernetesSpec};
use scheduler::queue::qos::Table;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::error::{code, of_cluster};
use crate::follow::Follow;
use crate::logs;
use crate::manifest::{self, JOB_LABEL, MANAGER, Objects, Writer};
use crate::mirror::Mirror;
use crate::world::{Change, Seen, World};

/// Changes that were seen and not told yet; then watchers wait.
const SEEN_MAX: usize = 256;

/// Runs jobs on a Kubernetes cluster. What runs there is known from the cluster alone, so kapok may stop and come back.
pub struct Kubernetes {
    client: Client,
    cluster: KubernetesSpec,
    promises: Table,
    tasks: Tasks,
    mirror: Arc<Mirror>,
    world: Arc<Mutex<World>>,
    lists: Arc<AtomicU64>,
}

impl fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Kubernetes");
        shown
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl Kubernetes {
    fn writer(&self) -> Writer<'_> {
        Writer {
            cluster: &self.cluster,
            promises: &self.promises,
            owner: None,
        }
    }

    pub fn new(client: Client, cluster: KubernetesSpec, (tasks, clock): (Tasks, Clock)) -> Self {
        let mirror = Mirror::new(client.clone(), &cluster, clock);
        let world = World::new(&cluster.namespace);
        Self {
            client,
            cluster,
            promises: Table::default(),
            tasks,
            mirror: Arc::new(mirror),
            world: Arc::new(Mutex::new(world)),
            lists: Arc::new(AtomicU64::new(0)),
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.cluster.namespace)
    }

    fn cluster_api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = ClusterResourceScope, DynamicType = ()>,
    {
        Api::all(self.client.clone())
    }

    /// Classes are the cluster's: who may not create them needs somebody who does, and is told which.
    async fn ensure_classes(&self) -> Result<(), ApiError> {
        let api = self.cluster_api::<PriorityClass>();
        for class in manifest::priority_classes() {
            let Err(error) = api.create(&PostParams::default(), &class).await else {
                continue;
            };
            match code(&error) {
                Some(409) => {}
                Some(401 | 403) => {
                    let class = class.name_any();
                    tracing::warn!(
                        class,
                        "may not be created here: somebody must apply it once"
                    );
                }
                _ => return Err(of_cluster("take a PriorityClass", &error)),
            }
        }
        Ok(())
    }

    fn follow<K>(
        &self,
        kind: &'static str,
        (api, labels): (Api<K>, &str),
        tell: &mpsc::Sender<Seen>,
        as_seen: fn(Change<K>) -> Seen,
    ) where
        K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static,
    {
        let follow = Follow {
            api,
            labels: labels.to_owned(),
            lists: Arc::clone(&self.lists),
            tell: tell.clone(),
            as_seen,
        };
        self.tasks.spawn(TaskKind::ClusterWatch, kind, async move {
            follow.run(kind).await;
            Ok(())
        });
    }

    /// Objects of a run; what is there already is as good as created.
    async fn create(&self, objects: &Objects) -> Result<(), ApiError> {
        match objects {
            Objects::Process(job) => self.put(&**job, "take the Job").await,
            Objects::Replica(deployment, service) => {
                self.put(&**service, "take the Service").await?;
                self.put(&**deployment, "take the Deployment").await
            }
        }
    }

    async fn put<K>(&self, object: &K, doing: &str) -> Result<(), ApiError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let params = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        match self.api::<K>().create(&params, object).await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == Some(409) => Ok(()),
            Err(error) => Err(of_cluster(doing, &error)),
        }
    }

    /// Deletes by name, with all that belongs to it.
    async fn delete<K>(&self, name: &str, params: &DeleteParams) -> Result<(), ApiError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + fmt::Debug
            + DeserializeOwned,
    {
        match self.api::<K>().delete(name, params).await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == Some(404) => Ok(()),
            Err(error) => Err(of_cluster(&format!("delete `{name}`"), &error)),
        }
    }

    async fn delete_all<K>(&self, job: &str) -> Result<(), ApiError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + fmt::Debug
            + DeserializeOwned,
    {
        let selector = ListParams::default().labels(&format!("{JOB_LABEL}={job}"));
        let found = self.api::<K>().list(&selector).await;
        let found = found.map_err(|error| of_cluster("list a job's objects", &error))?;
        for object in found.items {
            let background = DeleteParams::background();
            self.delete::<K>(&object.name_any(), &background).await?;
        }
        Ok(())
    }
}

impl Executor for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn watch(&self, known: Vec<Run>, events: Events) -> Answer<'_, ()> {
        Box::pin(async move {
            for run in &known {
                self.world.lock().remember(run);
            }
            self.ensure_classes().await?;
            let (tell, seen) = mpsc::channel(SEEN_MAX);
            let ours = format!("app.kubernetes.io/managed-by={MANAGER},{JOB_LABEL}");
            self.follow::<Node>("nodes", (self.cluster_api(), ""), &tell, Seen::Nodes);
            self.follow::<Pod>("pods", (self.api(), &ours), &tell, Seen::Pods);
            self.follow::<Job>("jobs", (self.api(), &ours), &tell, Seen::Processes);
            self.follow::<Deployment>("deployments", (self.api(), &ours), &tell, Seen::Replicas);
            let teller = Teller {
                world: Arc::clone(&self.world),
                pods: self.api(),
                mirror: Arc::clone(&self.mirror),
                events,
            };
            let kind = TaskKind::ClusterWatch;
            self.tasks.spawn(kind, "cluster events", async move {
                teller.run(seen).await;
                Ok(())
            });
            Ok(())
        })
    }

    fn check<'a>(&'a self, spec: &'a JobSpec) -> Answer<'a, ()> {
        Box::pin(async move { self.writer().check(spec) })
    }

    fn start(&self, run: Run) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut writer = self.writer();
            writer.check(&run.job.spec)?;
            if !self.world.lock().begin(&run) {
                return Ok(());
            }
            writer.owner = self.mirror.show(&run).await;
            if let Err(error) = self.create(&writer.objects(&run)).await {
                self.world.lock().abandon(&run.id);
                return Err(error);
            }
            let lists = self.lists.load(Ordering::SeqCst);
            self.world.lock().created(&run.id, lists);
            Ok(())
        })
    }

    /// Pods have the job's grace in their own specification, so that it holds when a node is drained, too.
    fn stop(&self, run: &RunId, _grace: Duration) -> Answer<'_, ()> {
        let run = run.clone();
        Box::pin(async move {
            if !self.world.lock().stop(&run) {
                return Ok(());
            }
            let name = manifest::object_name(&run);
            // The object goes when its pods are gone, which is what the end of a run means.
            let last = DeleteParams::foreground();
            self.delete::<Job>(&name, &last).await?;
            self.delete::<Deployment>(&name, &last).await?;
            self.delete::<Service>(&name, &DeleteParams::background())
                .await
        })
    }

    fn logs(&self, job: &str, query: LogQuery) -> Answer<'_, Box<dyn LogStream>> {
        let job = job.to_owned();
        Box::pin(async move { logs::of_job(self.api(), &job, query).await })
    }

    fn forget(&self, job: &str) -> Answer<'_, ()> {
        let job = job.to_owned();
        Box::pin(async move {
            self.delete_all::<Job>(&job).await?;
            self.delete_all::<Deployment>(&job).await?;
            self.delete_all::<Service>(&job).await?;
            self.mirror.forget(&job).await;
            Ok(())
        })
    }
}

/// Brings what watchers see before the world, and what that says to whoever listens.
struct Teller {
    world: Arc<Mutex<World>>,
    pods: Api<Pod>,
    mirror: Arc<Mirror>,
    events: Events,
}

impl Teller {
    async fn run(self, mut seen: mpsc::Receiver<Seen>) {
        while let Some(next) = seen.recv().await {
            let wanted = self.world.lock().wants_pods(&next);
            let mut told = Vec::new();
            if let Some(run) = wanted {
                told = self.look_at_pods(&run).await;
            }
            told.extend(self.world.lock().take(next));
            for event in told {
                if let Event::Run(run, progress) = &event {
                    self.mirror.tell(run, progress).await;
                }
                if self.events.send(event).await.is_err() {
                    return;
                }
            }
        }
    }

    /// The watcher of pods may be behind that of jobs.
    async fn look_at_pods(&self, run: &RunId) -> Vec<Event> {
        let selector = ListParams::default().labels(&manifest::pods_of(run));
        match self.pods.list(&selector).await {
            Ok(found) => {
                let pods = found.items.into_iter();
                let mut world = self.world.lock();
                pods.flat_map(|pod| world.take(Seen::Pods(Change::Put(pod))))
                    .collect()
            }
            Err(error) => {
                let error = base::chain(&error);
                tracing::debug!(%run, error, "how it ended is not known");
                Vec::new()
            }
        }
    }
}
