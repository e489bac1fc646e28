use std::collections::BTreeMap;

use base::{TaskKind, Tasks};
use discovery::News;
use protocol::resource::UpstreamSpec;
use tokio::sync::{mpsc, watch};

use crate::config::Config;

/// The sources that are asked for servers.
#[derive(Debug)]
pub(super) struct Followed {
    tasks: Tasks,
    listener: mpsc::Sender<News>,
    /// By the template's name: what it was when its source was opened. Dropping the sender ends the source.
    sources: BTreeMap<String, (UpstreamSpec, watch::Sender<()>)>,
}

impl Followed {
    pub(super) fn new(tasks: Tasks, listener: mpsc::Sender<News>) -> Self {
        Self {
            tasks,
            listener,
            sources: BTreeMap::new(),
        }
    }

    /// Follows the sources of these templates, and no others.
    pub(super) fn follow(&mut self, config: &Config) {
        let templates: BTreeMap<&str, &UpstreamSpec> = config
            .upstreams()
            .filter(|(_, spec)| spec.discovery.is_some())
            .collect();
        self.sources.retain(|name, (opened, _)| {
            templates.get(name.as_str()).is_some_and(|template| {
                template.discovery == opened.discovery && template.url == opened.url
            })
        });
        for (name, template) in templates {
            let Some(discovery) = &template.discovery else {
                continue;
            };
            if self.sources.contains_key(name) {
                continue;
            }
            let source = discovery::open(template, discovery, &self.tasks);
            let following = discovery::follow(name.to_owned(), source, self.listener.clone());
            let (alive, mut gone) = watch::channel(());
            self.tasks.spawn(TaskKind::Discovery, name, async move {
                // Cancel-safe: a source that is not wanted any more may lose what it was about to say.
                tokio::select! {
                    () = following => {}
                    _closed = gone.changed() => {}
                }
                Ok(())
            });
            self.sources
                .insert(name.to_owned(), (template.clone(), alive));
        }
    }
}
