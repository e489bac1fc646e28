use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::secret::Secret;
use super::upstream::check_url;
use super::validate::Findings;

/// Where the servers of a pool are learned from. The `Upstream` that says so is a template: each server becomes an
/// upstream `NAME/ADDRESS` of the pool NAME with its fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DiscoverySpec {
    /// Written here: `host:port`, or whole URLs.
    Static(Vec<String>),
    Dns(DnsSpec),
    /// A YAML or JSON list of servers, watched.
    File(PathBuf),
    Etcd(EtcdSpec),
}

/// The names are the servers': asked of DNS itself, again when the answer's time to live is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DnsSpec {
    /// Absent means the host of the upstream's `url`.
    pub name: Option<String>,
    /// What to ask for: `address` is A and AAAA, with the port of the `url`; `srv` brings its own ports.
    pub records: DnsRecords,
    /// Name servers as `ip` or `ip:port`; empty means those of `/etc/resolv.conf`.
    pub servers: Vec<String>,
    /// Longest time between two questions, whatever the time to live.
    pub interval_max_ms: u64,
}

impl Default for DnsSpec {
    fn default() -> Self {
        Self {
            name: None,
            records: DnsRecords::default(),
            servers: Vec::new(),
            interval_max_ms: 30_000,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DnsRecords {
    #[default]
    Address,
    Srv,
}

/// Keys under a prefix, each of them one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EtcdSpec {
    /// Client URLs of the cluster's members, asked in this order.
    pub endpoints: Vec<String>,
    #[serde(default = "default_prefix")]
    pub prefix: String,
    /// For `https` endpoints. Files are read at every connection, so certificates may be renewed.
    #[serde(default)]
    pub tls: EtcdTlsSpec,
    /// Where etcd's own authentication is on.
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub password: Option<Secret>,
}

/// PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EtcdTlsSpec {
    /// Whom to trust. Absent means those whom the machine trusts.
    pub ca_file: Option<PathBuf>,
    /// This node's own certificate, with those between it and its root.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

impl EtcdTlsSpec {
    /// The files that it names.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.ca_file, &mut self.cert_file, &mut self.key_file]
            .into_iter()
            .flatten()
    }
}

fn default_prefix() -> String {
    "/kapok/nodes/".to_owned()
}

/// This node as a server of others: written while it is ready, gone when it stops or no longer answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegisterSpec {
    pub etcd: EtcdSpec,
    /// How others reach the public port; absent means `http://` and `listen`.
    #[serde(default)]
    pub url: Option<String>,
    /// How long the entry outlives a node that says nothing more.
    #[serde(default = "default_lease_ms")]
    pub lease_ms: u64,
}

fn default_lease_ms() -> u64 {
    10_000
}

pub(super) fn check(spec: &DiscoverySpec, url: &str, found: &mut Findings) {
    match spec {
        DiscoverySpec::Static(servers) => {
            found.check(!servers.is_empty(), "spec.discovery.static", || {
                "name at least one server".to_owned()
            });
            for (index, server) in servers.iter().enumerate() {
                found.check(
                    is_server(server),
                    &format!("spec.discovery.static.{index}"),
                    || "a server is `host:port` or a URL".to_owned(),
                );
            }
        }
        DiscoverySpec::Dns(dns) => check_dns(dns, url, found),
        DiscoverySpec::File(file) => {
            found.check(!file.as_os_str().is_empty(), "spec.discovery.file", || {
                "the path of a file".to_owned()
            })
        }
        DiscoverySpec::Etcd(etcd) => check_etcd(etcd, "spec.discovery.etcd", found),
    }
}

fn check_dns(dns: &DnsSpec, url: &str, found: &mut Findings) {
    found.check(!url.starts_with("https:"), "spec.discovery.dns", || {
        "a certificate is for a name, and DNS tells addresses: list https servers by name, in `file` or `static`"
            .to_owned()
    });
    let name = dns.name.as_deref();
    found.check(
        name.is_none_or(|name| !name.is_empty() && name.len() <= 253 && name.is_ascii()),
        "spec.discovery.dns.name",
        || "a DNS name in ASCII".to_owned(),
    );
    for (index, server) in dns.servers.iter().enumerate() {
        let legal = server.parse::<std::net::IpAddr>().is_ok()
            || server.parse::<std::net::SocketAddr>().is_ok();
        found.check(
            legal,
            &format!("spec.discovery.dns.servers.{index}"),
            || "a name server is `ip` or `ip:port`".to_owned(),
        );
    }
    found.positive(dns.interval_max_ms, "spec.discovery.dns.intervalMaxMs");
}

fn check_etcd(etcd: &EtcdSpec, at: &str, found: &mut Findings) {
    found.check(
        !etcd.endpoints.is_empty(),
        &format!("{at}.endpoints"),
        || "name at least one member of the cluster, such as `http://127.0.0.1:2379`".to_owned(),
    );
    for (index, endpoint) in etcd.endpoints.iter().enumerate() {
        let path = format!("{at}.endpoints.{index}");
        if let Err(message) = check_url(endpoint) {
            found.check(false, &path, || message.to_owned());
        }
        let plain = etcd.tls != EtcdTlsSpec::default() && endpoint.starts_with("http://");
        found.check(!plain, &path, || {
            "`tls` is for `https` endpoints".to_owned()
        });
    }
    let tls = &etcd.tls;
    let pair = tls.cert_file.is_some() == tls.key_file.is_some();
    found.check(pair, &format!("{at}.tls"), || {
        "a certificate needs its key: name both `certFile` and `keyFile`".to_owned()
    });
    let login = etcd.user.is_some() == etcd.password.is_some();
    found.check(login, &format!("{at}.user"), || {
        "name both `user` and `password`".to_owned()
    });
    found.check(!etcd.prefix.is_empty(), &format!("{at}.prefix"), || {
        "the start of the keys, such as `/kapok/nodes/`".to_owned()
    });
}

pub(super) fn check_register(spec: &RegisterSpec, found: &mut Findings) {
    check_etcd(&spec.etcd, "spec.register.etcd", found);
    if let Some(Err(message)) = spec.url.as_deref().map(check_url) {
        found.check(false, "spec.register.url", || message.to_owned());
    }
    // etcd counts leases in seconds, and raises what is less than its election timeout.
    found.check(spec.lease_ms >= 2_000, "spec.register.leaseMs", || {
        "must be at least 2000".to_owned()
    });
}

/// `host:port`, or a URL.
pub(crate) fn is_server(text: &str) -> bool {
    if text.contains("://") {
        return check_url(text).is_ok();
    }
    check_url(&format!("http://{text}")).is_ok() && !text.contains('/')
}
