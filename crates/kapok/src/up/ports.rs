//! Every port is open before any work begins.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use gateway::{Door, Gateway, Listener};
use protocol::resource::NodeSpec;
use serde_json::{Value, json};

use super::handover::Offered;
use crate::cli::Format;
use crate::exit::{Failure, Outcome};
use crate::output::Printer;

/// Open ports that nobody serves yet.
#[derive(Debug)]
pub(super) struct Ports(Vec<Port>);

#[derive(Debug)]
struct Port {
    door: Door,
    listener: Listener,
    /// What was asked for, and what it has become.
    configured: SocketAddr,
    bound: SocketAddr,
}

/// The ports again, to be handed to another process. While this is there, the kernel takes connections for them whether
/// anybody accepts or not: drop it before stopping.
#[derive(Debug)]
pub(super) struct Kept(Vec<(Offered, OwnedFd)>);

impl Kept {
    pub(super) fn offered(&self) -> impl Iterator<Item = (Offered, BorrowedFd<'_>)> {
        let ports = self.0.iter();
        ports.map(|(offered, socket)| (offered.clone(), socket.as_fd()))
    }
}

/// Where the doors are; port 0 has become a real one.
#[derive(Debug, Clone, Default)]
pub(super) struct Addresses(Vec<(Door, SocketAddr)>);

impl Ports {
    /// Must be called within a runtime. What another process hands over is taken where it is what is asked for.
    pub(super) fn open(node: &NodeSpec, mut inherited: Vec<(Offered, OwnedFd)>) -> Outcome<Self> {
        let wanted = [
            (
                Door::Public,
                Some(node.listen),
                "take another with --listen ADDR",
            ),
            (
                Door::Admin,
                Some(node.admin),
                "take another with --admin ADDR",
            ),
            (Door::Grpc, node.grpc_alias.address(), NO_ALIASES),
            (Door::Metrics, node.metrics_alias.address(), NO_ALIASES),
        ];
        let mut ports = Vec::new();
        for (door, addr, hint) in wanted {
            let Some(configured) = addr else { continue };
            let same = |(offered, _): &(Offered, OwnedFd)| {
                offered.door == name(door) && offered.configured == configured
            };
            let opened = match inherited.iter().position(same) {
                Some(index) => {
                    let (_, socket) = inherited.swap_remove(index);
                    Listener::adopt(socket).map_err(Failure::from)
                }
                None => Gateway::bind(configured)
                    .map_err(|error| Failure::failed(base::chain(&error)).hint(hint)),
            };
            let (listener, bound) = opened?;
            ports.push(Port {
                door,
                listener,
                configured,
                bound,
            });
        }
        Ok(Self(ports))
    }

    pub(super) fn keep(&self) -> Outcome<Kept> {
        let kept = self.0.iter().map(|port| {
            let offered = Offered {
                door: name(port.door).to_owned(),
                configured: port.configured,
            };
            Ok((offered, port.listener.share()?))
        });
        kept.collect::<Outcome<_>>().map(Kept)
    }

    pub(super) fn addresses(&self) -> Addresses {
        let ports = self.0.iter();
        Addresses(ports.map(|port| (port.door, port.bound)).collect())
    }

    pub(super) fn serve(self, gateway: &Gateway) {
        for port in self.0 {
            gateway.serve(port.listener, port.door);
            tracing::info!("listening on http://{} ({})", port.bound, name(port.door));
        }
    }
}

const NO_ALIASES: &str =
    "it stands for one of Triton's ports: do without them with --triton-ports off";

impl Addresses {
    /// Where clients of this machine reach the public port.
    pub(super) fn url(&self, node: &NodeSpec) -> String {
        let mut address = self.public().unwrap_or(node.listen);
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        format!("http://{address}")
    }

    pub(super) fn public(&self) -> Option<SocketAddr> {
        self.of(Door::Public)
    }

    pub(super) fn of(&self, wanted: Door) -> Option<SocketAddr> {
        let mut addresses = self.0.iter();
        addresses.find_map(|(door, addr)| (*door == wanted).then_some(*addr))
    }

    /// For scripts: one line on stdout that tells the real ports.
    pub(super) fn announce(&self, printer: &Printer) -> Outcome {
        match printer.format() {
            Format::Table | Format::Csv | Format::Html => {}
            Format::Json => printer.write(&format!("{}\n", self.document()))?,
            Format::Yaml => printer.print(&self.document(), |_, _| String::new())?,
        }
        Ok(())
    }

    fn document(&self) -> Value {
        let listening: serde_json::Map<String, Value> = self
            .0
            .iter()
            .map(|(door, addr)| (name(*door).to_owned(), addr.to_string().into()))
            .collect();
        json!({ "listening": listening, "pid": std::process::id() })
    }
}

fn name(door: Door) -> &'static str {
    match door {
        Door::Public => "public",
        Door::Admin => "admin",
        Door::Grpc => "grpc",
        Door::Metrics => "metrics",
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use protocol::resource::Alias;

    use super::*;

    fn free() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[tokio::test]
    async fn a_busy_port_stops_the_start_and_names_its_switch() {
        let busy = TcpListener::bind(free()).expect("a free port");
        let busy = busy
            .local_addr()
            .map(|addr| (busy, addr))
            .expect("it is bound");
        for (switch, place) in [
            ("--listen", 0),
            ("--admin", 1),
            ("--triton-ports off", 2),
            ("--triton-ports off", 3),
        ] {
            let pick = |index| if index == place { busy.1 } else { free() };
            let node = NodeSpec {
                listen: pick(0),
                admin: pick(1),
                grpc_alias: Alias::At(pick(2)),
                metrics_alias: Alias::At(pick(3)),
                ..NodeSpec::default()
            };
            let failure = Ports::open(&node, Vec::new()).expect_err(switch);
            let text = base::chain(failure.error.as_ref());
            assert!(text.contains(&busy.1.to_string()), "{text}");
            assert!(failure.hint.is_some_and(|hint| hint.contains(switch)));
        }
    }

    #[test]
    fn the_document_names_every_door() {
        let addresses = Addresses(vec![
            (Door::Public, SocketAddr::from(([127, 0, 0, 1], 40123))),
            (Door::Admin, SocketAddr::from(([127, 0, 0, 1], 40124))),
        ]);
        assert_eq!(
            addresses.document()["listening"],
            json!({"public": "127.0.0.1:40123", "admin": "127.0.0.1:40124"})
        );
    }
}
