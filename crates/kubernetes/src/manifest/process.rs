use jobs::executor::Run;
use k8s_openapi::api::batch::v1::{Job as BatchJob, JobSpec as BatchSpec};
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use protocol::resource::JobSpec;

use super::Writer;

impl Writer<'_> {
    /// A gang is an indexed job whose pods run side by side; one that fails ends all.
    pub(super) fn process(&self, run: &Run, metadata: ObjectMeta) -> BatchJob {
        let spec = &run.job.spec;
        let members = i32::try_from(spec.gang).unwrap_or(i32::MAX);
        let mut pods = self.pods(run, self.container(spec));
        if let Some(pod) = &mut pods.spec {
            pod.restart_policy = Some("Never".to_owned());
        }
        BatchJob {
            metadata,
            spec: Some(BatchSpec {
                // Kapok stops it in time; this is for when kapok is not there.
                active_deadline_seconds: spec
                    .timeout_seconds
                    .and_then(|seconds| i64::try_from(seconds).ok()),
                // Whether it runs again is decided in kapok's queue: that is another run.
                backoff_limit: Some(0),
                completion_mode: Some("Indexed".to_owned()),
                completions: Some(members),
                parallelism: Some(members),
                // Kueue admits by lifting it.
                suspend: self.cluster.queue_name.as_ref().map(|_| true),
                template: pods,
                ..BatchSpec::default()
            }),
            status: None,
        }
    }

    fn container(&self, spec: &JobSpec) -> Container {
        let given = |words: &[String]| {
            // Kubernetes expands `$(NAME)`; what was submitted is meant as it is.
            let meant = words.iter().map(|word| word.replace("$(", "$$("));
            (!words.is_empty()).then(|| meant.collect::<Vec<_>>())
        };
        let folder = spec.working_dir.as_ref();
        Container {
            name: "job".to_owned(),
            image: spec.image.clone().or_else(|| self.cluster.image.clone()),
            command: given(&spec.command),
            args: given(&spec.args),
            working_dir: folder.map(|folder| folder.to_string_lossy().into_owned()),
            ..Container::default()
        }
    }
}
