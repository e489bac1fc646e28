//! A job that serves a model.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Shared, cannot_start};
use crate::executor::{Ended, Event, How, Progress, Run};

/// Which models jobs have brought here.
#[derive(Debug, Default)]
pub(super) struct Served(Mutex<BTreeMap<String, Share>>);

#[derive(Debug)]
struct Share {
    jobs: usize,
    /// It answered before the first of them came, and does when the last has gone.
    before: bool,
}

impl Served {
    fn join(&self, model: &str, answers: bool) {
        let mut models = self.0.lock();
        let share = models.entry(model.to_owned()).or_insert(Share {
            jobs: 0,
            before: answers,
        });
        share.jobs += 1;
    }

    /// True when nobody wants it any more.
    fn leave(&self, model: &str) -> bool {
        let mut models = self.0.lock();
        let Some(share) = models.get_mut(model) else {
            return false;
        };
        share.jobs -= 1;
        if share.jobs > 0 {
            return false;
        }
        let before = share.before;
        models.remove(model);
        !before
    }
}

impl Shared {
    pub(super) async fn serve(
        &self,
        run: &Run,
        model: &str,
        mut stopped: watch::Receiver<Option<Duration>>,
    ) -> Ended {
        let models = &self.parts.models;
        self.served.join(model, models.answers(model));
        let loading = Progress::Starting(format!("model `{model}` is being loaded"));
        self.tell(Event::Run(run.id.clone(), loading)).await;
        self.print(run, &format!("loading model `{model}`"));
        let gpus = run.placements.first().map_or(&[][..], |place| &place.gpus);
        let loaded = models.load(model, run.job.spec.batch_size, gpus).await;
        if let Err(error) = loaded {
            self.served.leave(model);
            self.print(run, &error.message);
            return cannot_start(error.message);
        }
        let endpoint = models.endpoint();
        self.print(run, &format!("model `{model}` answers at {endpoint}"));
        self.ready(run, Some(endpoint)).await;
        let told = tokio::select! {
            told = stopped.wait_for(Option::is_some) => told.is_ok(),
            () = self.parts.tasks.stopped() => false,
        };
        if !told {
            return Ended {
                how: How::Lost,
                end: None,
                message: "kapok stopped while it served".to_owned(),
            };
        }
        if self.served.leave(model)
            && let Err(error) = models.unload(model).await
        {
            self.print(run, &error.message);
        }
        self.print(
            run,
            &format!("model `{model}` is not served for this job any more"),
        );
        Ended {
            how: How::Stopped,
            end: None,
            message: "it was told to stop".to_owned(),
        }
    }

    fn print(&self, run: &Run, line: &str) {
        self.logs.write(&run.id.job, format!("{line}\n").as_bytes());
    }
}
