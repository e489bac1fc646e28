//! Streamed chat requests over keep-alive connections: when the first event comes, and how late each is.
//!
//! One thread per stream, the standard library only, for the same reason as `mock-upstream`, whose events hold the time at
//! which they were written. Says one line of JSON.
//!
//! ```text
//! sse-load HOST:PORT PATH BODY-FILE STREAMS SECONDS [NAME:VALUE…]
//! ```

#![expect(
    clippy::disallowed_methods,
    reason = "threads and the real clock are all that this program is"
)]
#![expect(clippy::print_stdout, reason = "its result")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// No gateway under test takes longer for an answer that its upstream gives in half a second.
const SILENCE_MAX: Duration = Duration::from_secs(30);

struct Plan {
    address: String,
    request: Vec<u8>,
    end: Instant,
}

/// Microseconds, and what went wrong.
#[derive(Default)]
struct Seen {
    first: Vec<u64>,
    delay: Vec<u64>,
    events: u64,
    errors: u64,
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [address, path, body, streams, seconds, headers @ ..] = args.as_slice() else {
        return ExitCode::FAILURE;
    };
    let (Ok(body), Ok(streams), Ok(seconds)) =
        (std::fs::read(body), streams.parse::<u32>(), seconds.parse())
    else {
        return ExitCode::FAILURE;
    };
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    request.extend_from_slice(&body);
    let start = Instant::now();
    let plan = Arc::new(Plan {
        address: address.clone(),
        request,
        end: start + Duration::from_secs(seconds),
    });
    let workers: Vec<_> = (0..streams)
        .map(|_| {
            let plan = Arc::clone(&plan);
            std::thread::spawn(move || work(&plan))
        })
        .collect();
    let mut all = Seen::default();
    for worker in workers {
        let Ok(seen) = worker.join() else {
            return ExitCode::FAILURE;
        };
        all.first.extend(seen.first);
        all.delay.extend(seen.delay);
        all.events += seen.events;
        all.errors += seen.errors;
    }
    say(all, start.elapsed());
    ExitCode::SUCCESS
}

fn say(mut all: Seen, took: Duration) {
    all.first.sort_unstable();
    all.delay.sort_unstable();
    let of = |sorted: &[u64], percent: usize| {
        let index = sorted.len().saturating_sub(1) * percent / 100;
        sorted.get(index).copied().unwrap_or_default()
    };
    println!(
        r#"{{"streams":{},"events":{},"errors":{},"seconds":{},"first_p50_us":{},"first_p99_us":{},"delay_p50_us":{},"delay_p99_us":{}}}"#,
        all.first.len(),
        all.events,
        all.errors,
        took.as_secs_f64(),
        of(&all.first, 50),
        of(&all.first, 99),
        of(&all.delay, 50),
        of(&all.delay, 99),
    );
}

/// One stream after the other until the time is over; an error opens a new connection.
fn work(plan: &Plan) -> Seen {
    let mut seen = Seen::default();
    let mut connection = None;
    while Instant::now() < plan.end {
        let ended = match connection.take() {
            Some(open) => Ok(open),
            None => connect(&plan.address),
        }
        .and_then(|open| one(open, plan, &mut seen));
        match ended {
            Ok(open) => connection = Some(open),
            Err(_) => {
                seen.errors += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    seen
}

fn connect(address: &str) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    Ok(BufReader::new(stream))
}

fn one(
    mut connection: BufReader<TcpStream>,
    plan: &Plan,
    seen: &mut Seen,
) -> io::Result<BufReader<TcpStream>> {
    let asked = Instant::now();
    connection.get_mut().write_all(&plan.request)?;
    let mut line = String::new();
    connection.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    while line != "\r\n" {
        line.clear();
        if connection.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let mut first = None;
    let mut done = false;
    let mut events = Events::default();
    loop {
        line.clear();
        connection.read_line(&mut line)?;
        let length =
            usize::from_str_radix(line.trim_end(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
        // The line end behind the chunk, too.
        let mut chunk = vec![0; length + 2];
        connection.read_exact(&mut chunk)?;
        if length == 0 {
            break;
        }
        first.get_or_insert_with(|| micros(asked.elapsed()));
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, micros);
        events.take(chunk.get(..length).unwrap_or_default(), |event| {
            done |= event == "data: [DONE]";
            if let Some(written) = stamp(event) {
                seen.events += 1;
                seen.delay.push(now.saturating_sub(written));
            }
        });
    }
    if !done {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    seen.first.extend(first);
    Ok(connection)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// When the mock wrote it: gateways that write the JSON anew keep the text.
fn stamp(event: &str) -> Option<u64> {
    let (_, rest) = event.split_once("\"at ")?;
    rest.split_once(' ')?.0.parse().ok()
}

/// Events out of chunks, which may hold parts of one or several.
#[derive(Default)]
struct Events(Vec<u8>);

impl Events {
    fn take(&mut self, chunk: &[u8], mut each: impl FnMut(&str)) {
        self.0.extend_from_slice(chunk);
        while let Some(end) = self.0.windows(2).position(|two| two == b"\n\n") {
            if let Some(event) = self
                .0
                .get(..end)
                .and_then(|bytes| std::str::from_utf8(bytes).ok())
            {
                each(event);
            }
            self.0.drain(..end + 2);
        }
    }
}
