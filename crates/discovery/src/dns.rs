//! Servers from DNS. The names are asked of name servers directly (RFC 1035), for what the C library returns has no
//! time to live and no SRV records; so `/etc/hosts` has no say here.

mod message;
mod resolve;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::Uri;
use protocol::resource::{DnsRecords, DnsSpec, Endpoint};

pub use message::fuzz_dns_answer;
use message::{Data, Kind};
use resolve::{Answer, Resolver};

use crate::source::Found;
use crate::{Error, Source};

/// A record that may not be kept at all would have us ask without end.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The addresses (or services) behind a name.
#[derive(Debug)]
pub(crate) struct DnsSource {
    name: String,
    /// Of address records; services bring their own.
    port: u16,
    records: DnsRecords,
    interval_max: Duration,
    resolver: Resolver,
    /// Until when the last answer holds.
    wait: Duration,
}

impl DnsSource {
    /// `url` is the template's, which has been checked.
    pub(crate) fn new(spec: &DnsSpec, url: &str) -> Self {
        let uri: Uri = url.parse().unwrap_or_default();
        let host = uri.host().unwrap_or_default();
        let name = spec.name.as_deref().unwrap_or(host);
        Self {
            name: name.to_owned(),
            port: uri.port_u16().unwrap_or(80),
            records: spec.records,
            interval_max: Duration::from_millis(spec.interval_max_ms),
            resolver: Resolver::new(
                spec.servers
                    .iter()
                    .filter_map(|server| name_server(server))
                    .collect(),
            ),
            wait: Duration::ZERO,
        }
    }

    async fn ask(&mut self) -> Result<Vec<Endpoint>, Error> {
        let answer = match self.records {
            DnsRecords::Srv => self.resolver.ask(&self.name, Kind::Srv).await,
            DnsRecords::Address => {
                let (four, six) = tokio::join!(
                    self.resolver.ask(&self.name, Kind::A),
                    self.resolver.ask(&self.name, Kind::Aaaa)
                );
                either(four, six)
            }
        };
        let answer = answer.map_err(|reason| Error::Dns {
            name: self.name.clone(),
            reason,
        })?;
        let ttl = Duration::from_secs(answer.ttl_seconds.into());
        self.wait = ttl.max(INTERVAL_MIN).min(self.interval_max);
        Ok(servers(&answer, self.port))
    }
}

impl Source for DnsSource {
    fn next(&mut self) -> Found<'_> {
        Box::pin(async {
            // Taken, so that a failure is tried again as soon as the caller likes.
            tokio::time::sleep(std::mem::take(&mut self.wait)).await;
            self.ask().await
        })
    }
}

/// What is known of both families; one alone will do, for a name often has only one.
fn either(four: Result<Answer, String>, six: Result<Answer, String>) -> Result<Answer, String> {
    match (four, six) {
        (Ok(four), Ok(six)) => Ok(four.and(six)),
        (Ok(one), Err(_)) | (Err(_), Ok(one)) if !one.found.is_empty() => Ok(one),
        (Err(reason), _) | (_, Err(reason)) => Err(reason),
    }
}

fn servers(answer: &Answer, port: u16) -> Vec<Endpoint> {
    let first = answer.found.iter().filter_map(|data| match data {
        Data::Service { priority, .. } => Some(*priority),
        Data::Address(_) => None,
    });
    // Those of a higher number are for when none of the lowest can be reached (RFC 2782): a second pool, and a fallback.
    let first = first.min();
    let place = |data: &Data| match data {
        Data::Address(IpAddr::V4(ip)) => Some(format!("{ip}:{port}")),
        Data::Address(IpAddr::V6(ip)) => Some(format!("[{ip}]:{port}")),
        Data::Service {
            priority,
            port,
            target,
        } if Some(*priority) == first && !target.is_empty() => Some(format!("{target}:{port}")),
        Data::Service { .. } => None,
    };
    let places = answer.found.iter().filter_map(place);
    places.map(Endpoint::at).collect()
}

/// `ip` or `ip:port`.
fn name_server(text: &str) -> Option<SocketAddr> {
    let bare = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    bare.ok().or_else(|| text.parse().ok())
}

#[cfg(test)]
mod tests;
