use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{self, Data, Kind, Message, UDP_BYTES_MAX};

/// For one name server's answer; the C library waits five seconds, twice.
const PATIENCE: Duration = Duration::from_secs(2);

/// Name servers that are asked for one answer; resolv.conf has three at most.
const SERVERS_MAX: usize = 8;

/// Names that are tried for one that is not complete; the C library's limit is six.
const SEARCH_MAX: usize = 6;

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What a name has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) found: Vec<Data>,
    /// The shortest of all records that led there.
    pub(super) ttl_seconds: u32,
}

impl Answer {
    pub(super) fn and(mut self, other: Self) -> Self {
        // A family without records says nothing of time.
        self.ttl_seconds = match (self.found.is_empty(), other.found.is_empty()) {
            (false, true) => self.ttl_seconds,
            (true, false) => other.ttl_seconds,
            _ => self.ttl_seconds.min(other.ttl_seconds),
        };
        self.found.extend(other.found);
        self
    }
}

impl From<Message> for Answer {
    fn from(message: Message) -> Self {
        let times = message.records.iter().map(|(ttl, _)| *ttl);
        Self {
            ttl_seconds: times.min().unwrap_or_default(),
            found: message
                .records
                .into_iter()
                .filter_map(|(_, data)| data)
                .collect(),
        }
    }
}

/// Asks name servers in turn.
#[derive(Debug)]
pub(super) struct Resolver {
    /// Empty means those of this machine.
    servers: Vec<SocketAddr>,
}

/// How this machine asks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Machine {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// A name with fewer dots is tried below the search domains first.
    dots: usize,
}

impl Resolver {
    pub(super) fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers }
    }

    pub(super) async fn ask(&self, name: &str, kind: Kind) -> Result<Answer, String> {
        // Read each time: it is small, and changes with the machine's networks.
        let mut machine = Machine::read(Path::new(RESOLV_CONF));
        if !self.servers.is_empty() {
            machine.servers.clone_from(&self.servers);
            machine.search.clear();
        }
        let mut last = "no name server is known".to_owned();
        for candidate in machine.candidates(name) {
            match ask_all(&machine.servers, &candidate, kind).await {
                Ok(answer) => return Ok(answer),
                Err(reason) => last = reason,
            }
        }
        Err(last)
    }
}

impl Machine {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        Self::parse(&text)
    }

    fn parse(text: &str) -> Self {
        let mut machine = Self {
            dots: 1,
            ..Self::default()
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A zone (`fe80::1%eth0`) cannot be said here.
                    let ip = words.next().and_then(|ip| ip.parse::<IpAddr>().ok());
                    machine.servers.extend(ip.map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search" | "domain") => {
                    machine.search = words.take(SEARCH_MAX).map(str::to_owned).collect();
                }
                Some("options") => {
                    let mut dots =
                        words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    machine.dots = dots.next().unwrap_or(machine.dots);
                }
                _ => {}
            }
        }
        machine.servers.truncate(SERVERS_MAX);
        machine
    }

    fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') || self.search.is_empty() {
            return vec![name.to_owned()];
        }
        let below = self.search.iter().map(|domain| format!("{name}.{domain}"));
        let mut all: Vec<String> = below.collect();
        let complete = name.matches('.').count() >= self.dots;
        all.insert(if complete { 0 } else { all.len() }, name.to_owned());
        all
    }
}

async fn ask_all(servers: &[SocketAddr], name: &str, kind: Kind) -> Result<Answer, String> {
    let mut last = "no name server is known".to_owned();
    for server in servers.iter().take(SERVERS_MAX) {
        let asked = timeout(PATIENCE, ask_one(*server, name, kind)).await;
        match asked {
            Ok(Ok(message)) => match message.code {
                0 => return Ok(message.into()),
                3 => return Err(format!("name server {server} knows no such name")),
                code => last = format!("name server {server} answers with error {code}"),
            },
            Ok(Err(error)) => last = format!("name server {server}: {error}"),
            Err(_elapsed) => last = format!("name server {server} does not answer"),
        }
    }
    Err(last)
}

async fn ask_one(server: SocketAddr, name: &str, kind: Kind) -> io::Result<Message> {
    // Keyed by the system's random numbers: nobody off the path can guess it.
    let id = RandomState::new().build_hasher().finish();
    let id = u16::try_from(id & 0xffff).unwrap_or_default();
    let question = message::question(id, name, kind)
        .ok_or_else(|| io::Error::other(format!("`{name}` is no DNS name")))?;
    let local: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((local, 0)).await?;
    // From now on the kernel drops what others send.
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut buffer = [0; UDP_BYTES_MAX];
    let answer = loop {
        let count = socket.recv(&mut buffer).await?;
        let answer = message::answer(buffer.get(..count).unwrap_or_default());
        if let Some(answer) = answer.filter(|answer| answer.answers(id, name, kind)) {
            break answer;
        }
    };
    if !answer.truncated {
        return Ok(answer);
    }
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).unwrap_or_default();
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&question).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    message::answer(&answer)
        .filter(|answer| answer.answers(id, name, kind) && !answer.truncated)
        .ok_or_else(|| io::Error::other("an answer to something else"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_way_of_asking_is_kept_to() {
        let text = "# by dhcp\nsearch ns.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\nnameserver fe80::1%eth0\noptions edns0 ndots:5\n";
        let machine = Machine::parse(text);
        assert_eq!(
            machine.servers,
            ["10.96.0.10:53".parse().expect("an address")]
        );
        for (name, expected) in [
            ("llm", "llm.ns.svc.cluster.local llm.svc.cluster.local llm"),
            ("llm.example.org.", "llm.example.org."),
            (
                "a.b.c.d.e.f",
                "a.b.c.d.e.f a.b.c.d.e.f.ns.svc.cluster.local a.b.c.d.e.f.svc.cluster.local",
            ),
        ] {
            assert_eq!(machine.candidates(name).join(" "), expected);
        }
        assert_eq!(Machine::parse("").candidates("llm"), ["llm"]);
    }
}
