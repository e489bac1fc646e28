//! Requests at a constant rate, whatever the server does: latency counts from the moment at which a request was due.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::http::Http;
use crate::workspace::{now, sleep_until};

/// Each with one request at a time; more than are ever in flight at the rates used here.
const CONNECTIONS: u32 = 8;

/// Longer than this is a failure, not a latency.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// What is sent again and again.
#[derive(Debug, Clone)]
pub(super) struct Question {
    model: &'static str,
    body: Vec<u8>,
}

/// Connections that send at an even pace until they are stopped.
#[derive(Debug)]
pub(super) struct Load {
    model: &'static str,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Answered>>>,
}

#[derive(Debug, Clone, Copy)]
struct Answered {
    due: Instant,
    /// None for a request that failed.
    took: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Log(Vec<Answered>);

/// Those that were due in some span of time.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) failed: f64,
    pub(super) count: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) max_us: f64,
}

impl Question {
    pub(super) fn new(model: &'static str, body: &Value) -> Self {
        let body = body.to_string().into_bytes();
        Self { model, body }
    }

    /// The whole message, head and body.
    fn message(&self, host: &str) -> Vec<u8> {
        let head = format!(
            "POST /v2/models/{}/infer HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.model,
            self.body.len()
        );
        [head.as_bytes(), &self.body].concat()
    }
}

impl Load {
    pub(super) fn start(http: &Http, question: Question, rate: f64) -> Result<Self> {
        let host = host(http);
        let stop = Arc::new(AtomicBool::new(false));
        let began = now();
        let apart = Duration::from_secs_f64(f64::from(CONNECTIONS) / rate);
        let mut threads = Vec::new();
        for place in 0..CONNECTIONS {
            let mut caller = Caller::new(&host, &question);
            let (stop, first) = (Arc::clone(&stop), began + apart * place / CONNECTIONS);
            let send = move || {
                let mut seen = Vec::new();
                let mut due = first;
                while !stop.load(Ordering::Relaxed) {
                    sleep_until(due);
                    let took = caller.ask().map(|()| now().duration_since(due));
                    if let Err(error) = &took {
                        eprintln!("a request failed: {error:#}");
                    }
                    let took = took.ok();
                    seen.push(Answered { due, took });
                    due += apart;
                }
                seen
            };
            threads.push(std::thread::Builder::new().spawn(send)?);
        }
        Ok(Self {
            model: question.model,
            stop,
            threads,
        })
    }

    pub(super) fn stop(self) -> Result<(&'static str, Log)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for thread in self.threads {
            let seen = thread.join();
            all.extend(seen.ok().context("a connection's thread panicked")?);
        }
        Ok((self.model, Log(all)))
    }
}

impl Log {
    pub(super) fn between(&self, from: Instant, to: Instant) -> Result<Answers> {
        let within = |answered: &&Answered| (from..to).contains(&answered.due);
        let all: Vec<_> = self.0.iter().filter(within).collect();
        let mut times: Vec<_> = all.iter().filter_map(|answered| answered.took).collect();
        ensure!(!times.is_empty(), "no request was answered");
        times.sort_unstable();
        let at = |percent: usize| {
            let index = (times.len() * percent / 100).min(times.len() - 1);
            times
                .get(index)
                .map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        Ok(Answers {
            failed: (all.len() - times.len()) as f64,
            count: all.len() as f64,
            p50_us: at(50),
            p99_us: at(99),
            max_us: at(100),
        })
    }
}

/// Requests a second of two callers without a pause.
pub(super) fn capacity(http: &Http, question: &Question, length: Duration) -> Result<f64> {
    let host = host(http);
    let began = now();
    let mut threads = Vec::new();
    for _ in 0..2 {
        let mut caller = Caller::new(&host, question);
        let send = move || -> Result<u32> {
            let mut count = 0;
            while now().duration_since(began) < length {
                caller.ask()?;
                count += 1;
            }
            Ok(count)
        };
        threads.push(std::thread::Builder::new().spawn(send)?);
    }
    let mut count = 0;
    for thread in threads {
        let sent = thread.join();
        count += sent.ok().context("a caller's thread panicked")??;
    }
    Ok(f64::from(count) / now().duration_since(began).as_secs_f64())
}

fn host(http: &Http) -> String {
    let base = http.base();
    base.strip_prefix("http://").unwrap_or(base).to_owned()
}

/// One connection, kept open; opened anew after a failure.
struct Caller {
    host: String,
    message: Vec<u8>,
    connection: Option<BufReader<TcpStream>>,
    body: Vec<u8>,
}

impl Caller {
    fn new(host: &str, question: &Question) -> Self {
        Self {
            host: host.to_owned(),
            message: question.message(host),
            connection: None,
            body: Vec::new(),
        }
    }

    /// Sends the request and reads the whole answer; any but 200 is an error.
    fn ask(&mut self) -> Result<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let socket = TcpStream::connect(&self.host)?;
                socket.set_nodelay(true)?;
                socket.set_read_timeout(Some(ANSWER_TIME_MAX))?;
                BufReader::new(socket)
            }
        };
        connection.get_mut().write_all(&self.message)?;
        let (status, length) = read_head(&mut connection)?;
        self.body.resize(length, 0);
        connection.read_exact(&mut self.body)?;
        self.connection = Some(connection);
        if status == "200" {
            return Ok(());
        }
        bail!("status {status}: {}", String::from_utf8_lossy(&self.body))
    }
}

/// The status and the body's length.
fn read_head(connection: &mut BufReader<TcpStream>) -> Result<(String, usize)> {
    let mut status = None;
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        ensure!(
            connection.read_line(&mut line)? > 0,
            "the connection was closed"
        );
        let text = line.trim_end();
        if text.is_empty() {
            break;
        }
        if status.is_none() {
            status = text.split(' ').nth(1).map(str::to_owned);
        } else if let Some((name, value)) = text.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    Ok((status.context("no status line")?, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_request_is_counted_and_is_no_latency() {
        let began = now();
        let answered = |second: u64, took: Option<u64>| Answered {
            due: began + Duration::from_secs(second),
            took: took.map(Duration::from_micros),
        };
        let log = Log(vec![
            answered(0, Some(5)),
            answered(1, Some(10)),
            answered(1, None),
            answered(1, Some(30)),
        ]);
        let second = |count| began + Duration::from_secs(count);
        let answers = log.between(second(1), second(2)).unwrap();
        assert_eq!((answers.failed, answers.count), (1.0, 3.0));
        assert_eq!((answers.p50_us, answers.max_us), (30.0, 30.0));
        assert!(log.between(second(2), second(3)).is_err());
    }
}
