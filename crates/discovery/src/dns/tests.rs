use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use base::{TaskKind, Tasks};

use super::*;

type Zone = Arc<Mutex<Vec<(u16, u32, Vec<u8>)>>>;

/// A name server for one name, over UDP and TCP; answers of more than two records do not fit into its datagrams.
async fn name_server_of(zone: &Zone, tasks: &Tasks) -> String {
    let (udp, tcp, address) = loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = tcp.local_addr().expect("bound");
        if let Ok(udp) = UdpSocket::bind(address).await {
            break (udp, tcp, address);
        }
    };
    let records = Arc::clone(zone);
    tasks.spawn(TaskKind::HealthCheck, "udp", async move {
        let mut buffer = [0; 512];
        loop {
            let (count, peer) = udp.recv_from(&mut buffer).await?;
            udp.send_to(&reply(&buffer[..count], &records, 2), peer)
                .await?;
        }
    });
    let records = Arc::clone(zone);
    tasks.spawn(TaskKind::HealthCheck, "tcp", async move {
        loop {
            let (mut stream, _) = tcp.accept().await?;
            let mut question = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut question).await?;
            let answer = reply(&question, &records, usize::MAX);
            stream.write_u16(u16::try_from(answer.len())?).await?;
            stream.write_all(&answer).await?;
        }
    });
    address.to_string()
}

fn reply(question: &[u8], zone: &Zone, room: usize) -> Vec<u8> {
    let mut out = question[..question.len() - 11].to_vec();
    let asked = u16::from_be_bytes([out[out.len() - 4], out[out.len() - 3]]);
    let zone = zone.lock();
    let records: Vec<_> = zone.iter().filter(|(kind, ..)| *kind == asked).collect();
    let fits = records.len() <= room;
    let count = if fits { records.len() } else { 0 };
    let code = if zone.is_empty() { 3 } else { 0 };
    out[2..4].copy_from_slice(&[if fits { 0x81 } else { 0x83 }, 0x80 | code]);
    out[6..8].copy_from_slice(&u16::try_from(count).expect("few").to_be_bytes());
    out[10..12].copy_from_slice(&[0, 0]);
    for (kind, ttl, data) in records.into_iter().take(count) {
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        out.extend(ttl.to_be_bytes());
        out.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
        out.extend(data);
    }
    out
}

fn source(server: &str, records: DnsRecords) -> DnsSource {
    let spec = DnsSpec {
        records,
        servers: vec![server.to_owned()],
        ..DnsSpec::default()
    };
    DnsSource::new(&spec, "http://llm.test:8000/base")
}

fn urls(servers: &[Endpoint]) -> Vec<&str> {
    servers.iter().map(|server| server.url.as_str()).collect()
}

#[tokio::test]
async fn addresses_of_both_families_are_servers_and_change_with_the_answer() {
    let (zone, tasks) = (Zone::default(), Tasks::new());
    let server = name_server_of(&zone, &tasks).await;
    let mut source = source(&server, DnsRecords::Address);
    let unknown = source.next().await.expect_err("an empty zone").to_string();
    assert!(
        unknown.contains("`llm.test`") && unknown.contains("no such name"),
        "{unknown}"
    );
    let mut six = vec![0; 16];
    six[15] = 1;
    *zone.lock() = vec![(1, 0, vec![10, 0, 0, 1]), (28, 7, six)];
    let servers = source.next().await.expect("two records");
    assert_eq!(urls(&servers), ["10.0.0.1:8000", "[::1]:8000"]);
    assert_eq!(source.wait, INTERVAL_MIN, "a time to live of 0 is a second");
    // Too many for a datagram.
    *zone.lock() = (1..=9)
        .map(|last| (1, 3600, vec![10, 0, 0, last]))
        .collect();
    let servers = source.next().await.expect("over TCP");
    assert_eq!(servers.len(), 9);
    assert_eq!(
        source.wait,
        Duration::from_secs(30),
        "never longer than configured"
    );
}

#[tokio::test]
async fn services_bring_names_and_ports_and_the_lowest_priority_counts() {
    let (zone, tasks) = (Zone::default(), Tasks::new());
    let server = name_server_of(&zone, &tasks).await;
    let record = |priority: u8, port: u8, name: &str| {
        let mut data = vec![
            0,
            priority,
            0,
            0,
            0,
            port,
            u8::try_from(name.len()).expect("short"),
        ];
        data.extend(name.as_bytes());
        data.push(0);
        (33, 60, data)
    };
    *zone.lock() = vec![record(1, 81, "gpu-1"), record(2, 82, "spare")];
    let servers = source(&server, DnsRecords::Srv)
        .next()
        .await
        .expect("services");
    assert_eq!(urls(&servers), ["gpu-1:81"]);
}

#[tokio::test]
async fn a_name_server_that_is_away_is_passed_over_and_named() {
    let (zone, tasks) = (Zone::default(), Tasks::new());
    *zone.lock() = vec![(1, 60, vec![10, 0, 0, 1])];
    let here = name_server_of(&zone, &tasks).await;
    // Nothing listens there, so the kernel says so at once.
    let away = {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        socket.local_addr().expect("bound").to_string()
    };
    let mut source = source(&away, DnsRecords::Address);
    let error = source.next().await.expect_err("nobody").to_string();
    assert!(error.contains(&away), "{error}");
    source.resolver = Resolver::new(
        [&away, &here]
            .iter()
            .filter_map(|server| name_server(server))
            .collect(),
    );
    assert_eq!(
        urls(&source.next().await.expect("the second")),
        ["10.0.0.1:8000"]
    );
}
