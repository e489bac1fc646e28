//! What an idle stream costs.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::{Kapok, Running, wait};
use parking_lot::Mutex;

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"m","stream":true}"#;
const OPENERS: usize = 4;
/// Descriptors that are not streams: libraries, logs, listeners.
const SPARE_FILES: usize = 500;

/// Begins every stream and never goes on; one thread, however many there are.
struct Beginner {
    url: String,
    held: Arc<Mutex<Vec<TcpStream>>>,
}

impl Beginner {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let held = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&held);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                keep.lock().extend(begin(socket));
            }
        });
        Self { url, held }
    }
}

fn begin(mut socket: TcpStream) -> Option<TcpStream> {
    let mut request = Vec::new();
    let mut part = [0; 4096];
    loop {
        let got = socket.read(&mut part).ok().filter(|got| *got > 0)?;
        request.extend_from_slice(&part[..got]);
        if request.starts_with(b"GET") && request.ends_with(b"\r\n\r\n") {
            let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
            socket.write_all(answer.as_bytes()).ok()?;
            return None;
        }
        if request.ends_with(BODY.as_bytes()) {
            break;
        }
    }
    let event = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{event}\r\n",
        event.len()
    );
    socket.write_all(answer.as_bytes()).ok()?;
    Some(socket)
}

/// As many as this process and its children may open, two for each stream.
fn streams_possible(wanted: usize) -> usize {
    let files = 2 * wanted + SPARE_FILES;
    // Root may raise its own limit; others have the one they have.
    let _may_be_refused = Command::new("prlimit")
        .args(["--pid", &std::process::id().to_string()])
        .arg(format!("--nofile={files}:{files}"))
        .status();
    let limits = std::fs::read_to_string("/proc/self/limits").expect("Linux");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    let soft: usize = soft.and_then(|soft| soft.parse().ok()).expect("a number");
    wanted.min((soft - SPARE_FILES) / 2)
}

/// One descriptor, which a [`e2e::client::Connection`] is not.
fn open_stream(kapok: &Running) -> TcpStream {
    let mut socket = TcpStream::connect(kapok.address()).expect("it listens");
    socket.set_read_timeout(Some(wait::PATIENCE)).expect("open");
    let mut message = kapok.http().head("POST", CHAT, BODY.len());
    message.extend_from_slice(BODY.as_bytes());
    socket.write_all(&message).expect("open");
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while !answer.ends_with(b"\n\n\r\n") {
        let got = socket.read(&mut part).expect("its first event");
        assert!(got > 0, "closed: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&part[..got]);
    }
    assert!(
        answer.starts_with(b"HTTP/1.1 200 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    socket
}

/// Opens so many streams and keeps them.
fn open_streams(kapok: &Running, streams: usize) -> Vec<TcpStream> {
    let opened = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let openers: Vec<_> = (0..OPENERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut held = Vec::new();
                    while opened.fetch_add(1, Ordering::SeqCst) < streams {
                        held.push(open_stream(kapok));
                    }
                    held
                })
            })
            .collect();
        let join = |opener: std::thread::ScopedJoinHandle<'_, Vec<_>>| opener.join();
        let held = openers
            .into_iter()
            .flat_map(|opener| join(opener).expect("it opens them"));
        held.collect()
    })
}

#[test]
fn ten_thousand_idle_streams_fit_in_200_mb() {
    const WANTED: usize = 2_000;
    // What is there once, whoever comes: threads' stacks, allocators' arenas.
    const FIRST: usize = 200;
    const KIB_EACH_MAX: u64 = 20;
    let streams = streams_possible(FIRST + WANTED) - FIRST;
    let upstream = Beginner::start();
    let kapok = Kapok::new().upstream("llm", &upstream.url).start();
    let first = open_streams(&kapok, FIRST);
    let before = kapok.rss_kib();
    let held = open_streams(&kapok, streams);
    let all = kapok.rss_kib();
    assert_eq!(upstream.held.lock().len(), FIRST + streams);
    let each = (all - before) as f64 / streams as f64;
    println!("{streams} streams: {before} to {all} KiB, {each:.1} KiB each");
    let allowed = KIB_EACH_MAX * streams as u64 * 11 / 10;
    assert!(
        all - before <= allowed,
        "{streams} streams take {} KiB, {allowed} are allowed",
        all - before
    );
    drop((first, held));
    upstream.held.lock().clear();
}
