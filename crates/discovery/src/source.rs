use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use base::{Backoff, Tasks};
use protocol::resource::{DiscoverySpec, Endpoint, UpstreamSpec};
use tokio::sync::mpsc;

use crate::{Error, dns, etcd, file};

/// The servers that a source names, when they are known or have changed.
pub type Found<'a> = Pin<Box<dyn Future<Output = Result<Vec<Endpoint>, Error>> + Send + 'a>>;

/// One way to learn of servers.
pub trait Source: Send + fmt::Debug {
    /// At first the servers as they are, later whenever they may have changed. After an error the next call tries again;
    /// whoever calls waits a while before.
    fn next(&mut self) -> Found<'_>;

    /// Whether a list without servers is somebody's will. Of other sources it is more likely a failure: leases run out
    /// when a registry restarts, a name server answers before it knows.
    fn empty_is_meant(&self) -> bool {
        false
    }
}

/// The source of an upstream's servers.
pub fn open(upstream: &UpstreamSpec, spec: &DiscoverySpec, tasks: &Tasks) -> Box<dyn Source> {
    match spec {
        DiscoverySpec::Static(servers) => {
            Box::new(Written(Some(servers.iter().map(Endpoint::at).collect())))
        }
        DiscoverySpec::Dns(spec) => Box::new(dns::DnsSource::new(spec, &upstream.url)),
        DiscoverySpec::File(path) => Box::new(file::FileSource::new(path)),
        DiscoverySpec::Etcd(spec) => Box::new(etcd::EtcdSource::new(spec, tasks.clone())),
    }
}

/// The servers of the configuration: told once.
#[derive(Debug)]
struct Written(Option<Vec<Endpoint>>);

impl Source for Written {
    fn next(&mut self) -> Found<'_> {
        Box::pin(async {
            match self.0.take() {
                Some(servers) => Ok(servers),
                None => std::future::pending().await,
            }
        })
    }
}

/// What one source has to say.
#[derive(Debug)]
pub struct News {
    /// The name of the upstream whose servers these are.
    pub pool: String,
    /// Sorted, without doubles; or why they are not known.
    pub found: Result<Vec<Endpoint>, Error>,
}

/// Waits between two attempts of a source that fails.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));

/// Asks the source for ever and tells what has changed. Ends when nobody listens; drop it to end it before.
pub async fn follow(pool: String, mut source: Box<dyn Source>, listener: mpsc::Sender<News>) {
    let mut backoff = Backoff::new(WAITS.0, WAITS.1, u64::from(std::process::id()));
    let mut last: Option<Vec<Endpoint>> = None;
    let mut failing = false;
    loop {
        let found = match source.next().await {
            Ok(servers) if servers.is_empty() && !source.empty_is_meant() => {
                Err(Error::Empty(format!("the source of `{pool}`")))
            }
            Ok(mut servers) => {
                servers.sort();
                servers.dedup_by(|next, first| next.url == first.url);
                Ok(servers)
            }
            Err(error) => Err(error),
        };
        let wait = match &found {
            Ok(servers) => {
                backoff.reset();
                // The same again is news only after a failure, which it ends.
                if !failing && last.as_ref() == Some(servers) {
                    continue;
                }
                last = Some(servers.clone());
                None
            }
            Err(_) => Some(backoff.next_wait()),
        };
        failing = found.is_err();
        let news = News {
            pool: pool.clone(),
            found,
        };
        if listener.send(news).await.is_err() {
            return;
        }
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says these things, then nothing.
    #[derive(Debug)]
    struct Script(Vec<Result<Vec<Endpoint>, Error>>);

    impl Source for Script {
        fn next(&mut self) -> Found<'_> {
            Box::pin(async {
                match self.0.is_empty() {
                    true => std::future::pending().await,
                    false => self.0.remove(0),
                }
            })
        }
    }

    #[tokio::test]
    async fn what_is_the_same_is_no_news_and_an_empty_list_is_a_failure() {
        let list = |names: &[&str]| Ok(names.iter().map(|name| Endpoint::at(*name)).collect());
        let script = Script(vec![
            list(&["b:1", "a:1", "b:1"]),
            list(&["a:1", "b:1"]),
            Err(Error::Etcd("gone".to_owned())),
            list(&["a:1", "b:1"]),
            list(&[]),
            list(&["c:1"]),
        ]);
        let (listener, mut news) = mpsc::channel(1);
        let following = follow("pool".to_owned(), Box::new(script), listener);
        let mut seen = Vec::new();
        let listening = async {
            while seen.len() < 5 {
                let next = news.recv().await.expect("it follows for ever");
                seen.push(match next.found {
                    Ok(servers) => servers.iter().map(|server| server.url.clone()).collect(),
                    Err(error) => vec![error.to_string()],
                });
            }
        };
        tokio::select! {
            () = following => {}
            () = listening => {}
        }
        let kept = "the source of `pool` names no servers any more; the last ones are kept";
        assert_eq!(
            seen,
            [
                vec!["a:1", "b:1"],
                vec!["etcd: gone"],
                vec!["a:1", "b:1"],
                vec![kept],
                vec!["c:1"]
            ]
        );
    }
}
