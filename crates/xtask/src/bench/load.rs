//! Load from programs that are not ours: wrk for HTTP/1.1, h2load for gRPC.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::process::output;
use crate::setup::{self, Program};

pub(super) const PROGRAMS: &[Program] = &[("wrk", "wrk"), ("h2load", "nghttp2-client")];

/// Slow models behind many connections answer late; none of wrk's two seconds.
const ANSWER_TIME_MAX: &str = "60s";

/// One burst, as the client saw it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Burst {
    pub(super) requests: f64,
    pub(super) seconds: f64,
    /// What the program knows of it, by name: h2load has no percentiles.
    pub(super) latency: [(&'static str, f64); 2],
}

/// A POST that is sent again and again.
pub(super) struct Post<'a> {
    pub(super) url: String,
    pub(super) headers: Vec<(&'a str, &'a str)>,
    pub(super) body: &'a [u8],
}

pub(super) fn install() -> Result<()> {
    setup::debian(PROGRAMS)
}

/// A closed loop over keep-alive connections on one thread. Any answer but 2xx or 3xx, or a broken connection, fails.
pub(super) fn wrk(
    scratch: &Path,
    post: &Post<'_>,
    connections: u32,
    length: Duration,
) -> Result<Burst> {
    let script = scratch.join("wrk.lua");
    let body = scratch.join("wrk.body");
    std::fs::write(&body, post.body)?;
    std::fs::write(&script, lua(post, &body))?;
    let said = output(
        Command::new("wrk")
            .args([
                "-t1",
                &format!("-c{connections}"),
                &format!("-d{}s", length.as_secs()),
                "--timeout",
                ANSWER_TIME_MAX,
            ])
            .arg("-s")
            .arg(&script)
            .arg(&post.url),
    )?;
    parse_wrk(&said)
}

#[derive(Deserialize)]
struct Done {
    requests: f64,
    seconds: f64,
    errors: u64,
    p50_us: f64,
    p99_us: f64,
}

fn parse_wrk(said: &str) -> Result<Burst> {
    let line = said
        .lines()
        .find(|line| line.starts_with('{'))
        .with_context(|| format!("wrk said: {said}"))?;
    let done: Done = serde_json::from_str(line).context("in what wrk said")?;
    ensure!(done.errors == 0, "{} of wrk's requests failed", done.errors);
    ensure!(done.requests > 0.0, "wrk got no answer");
    Ok(Burst {
        requests: done.requests,
        seconds: done.seconds,
        latency: [("p50_us", done.p50_us), ("p99_us", done.p99_us)],
    })
}

/// wrk's own words are for people; this says the same as one line of JSON.
fn lua(post: &Post<'_>, body: &Path) -> String {
    let headers = post.headers.iter();
    let headers: String = headers
        .map(|(name, value)| format!("wrk.headers['{name}'] = '{value}'\n"))
        .collect();
    format!(
        "wrk.method = 'POST'
{headers}local file = assert(io.open([==[{}]==], 'rb'))
wrk.body = file:read('*a')
file:close()
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '{{\"requests\":%d,\"seconds\":%f,\"errors\":%d,\"p50_us\":%d,\"p99_us\":%d}}\\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
",
        body.display()
    )
}

/// One connection per client, each with one call at a time. A call that does not end well fails the burst.
pub(super) fn h2load(
    scratch: &Path,
    post: &Post<'_>,
    clients: u32,
    length: Duration,
) -> Result<Burst> {
    let body = scratch.join("h2load.body");
    std::fs::write(&body, post.body)?;
    let length = format!("-D{}", length.as_secs());
    let command = || {
        let mut command = Command::new("h2load");
        command
            .args(["-t1", "-m1", &format!("-c{clients}"), "-d"])
            .arg(&body)
            .args(["-H", "te: trailers"]);
        for (name, value) in &post.headers {
            command.args(["-H", &format!("{name}: {value}")]);
        }
        command
    };
    // h2load only counts HTTP statuses, and a gRPC call may fail with 200: such an answer has no message.
    let said = output(command().arg("-n1").args(["-c1", &post.url]))?;
    let one = data_bytes(&said)?;
    ensure!(
        one > GRPC_PREFIX_BYTES,
        "the gRPC call answered no message: {said}"
    );
    let said = output(command().args([&length, &post.url]))?;
    let burst = parse_h2load(&said)?;
    let per_call = data_bytes(&said)? / burst.requests;
    // Calls cut off at the end of the time have brought a part of their answer.
    ensure!(
        (per_call / one - 1.0).abs() < 0.05,
        "an answer of {one} bytes became {per_call:.1} bytes on average"
    );
    Ok(burst)
}

/// A flag and a length before each message.
const GRPC_PREFIX_BYTES: f64 = 5.0;

/// Bytes of bodies, from `traffic: 462B (462) total, 255B (255) headers (space savings 28.97%), 104B (104) data`.
fn data_bytes(said: &str) -> Result<f64> {
    said.lines()
        .find_map(|line| line.strip_prefix("traffic:")?.strip_suffix(") data"))
        .and_then(|line| line.rsplit_once('(')?.1.parse().ok())
        .with_context(|| format!("no traffic in what h2load said: {said}"))
}

fn parse_h2load(said: &str) -> Result<Burst> {
    let line = |start: &str| {
        let mut lines = said.lines().map(str::trim);
        let found = lines.find_map(|line| line.strip_prefix(start));
        found.with_context(|| format!("no `{start}` in what h2load said: {said}"))
    };
    let requests = line("requests:")?;
    let count = |what: &str| {
        let part = requests
            .split(',')
            .find_map(|part| part.trim().strip_suffix(what));
        part.and_then(|number| number.trim().parse::<f64>().ok())
            .with_context(|| format!("no `{what}` in `{requests}`"))
    };
    let lost = count("failed")? + count("errored")? + count("timeout")?;
    ensure!(lost == 0.0, "{lost} of h2load's requests failed");
    let finished = line("finished in")?;
    let seconds = finished
        .split(',')
        .next()
        .and_then(micros)
        .context("no time in h2load's summary")?;
    // min, max, mean, …
    let times: Vec<_> = line("time for request:")?
        .split_whitespace()
        .filter_map(micros)
        .collect();
    let [_, max, mean, ..] = times.as_slice() else {
        anyhow::bail!("no request times in what h2load said: {said}");
    };
    Ok(Burst {
        requests: count("succeeded")?,
        seconds: seconds / 1e6,
        latency: [("mean_us", *mean), ("max_us", *max)],
    })
}

/// `46us`, `3.18ms`, `2.00s`.
fn micros(text: &str) -> Option<f64> {
    let text = text.trim();
    for (unit, factor) in [("us", 1.0), ("ms", 1e3), ("s", 1e6)] {
        if let Some(number) = text
            .strip_suffix(unit)
            .and_then(|number| number.parse::<f64>().ok())
        {
            return Some(number * factor);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_wrk_with_errors_is_no_result() {
        let good = "Running 1s test\n{\"requests\":10,\"seconds\":1.5,\"errors\":0,\"p50_us\":46,\"p99_us\":318}\n";
        let burst = parse_wrk(good).unwrap();
        assert_eq!(
            (burst.requests, burst.seconds, burst.latency[1]),
            (10.0, 1.5, ("p99_us", 318.0))
        );
        assert!(parse_wrk(&good.replace("\"errors\":0", "\"errors\":2")).is_err());
        assert!(parse_wrk(&good.replace("\"requests\":10", "\"requests\":0")).is_err());
        assert!(parse_wrk("").is_err());
    }

    #[test]
    fn a_burst_of_h2load_is_read() {
        let said = "finished in 2.00s, 100.00 req/s, 1KB/s\n\
            requests: 200 total, 200 started, 200 done, 200 succeeded, 0 failed, 0 errored, 0 timeout\n\
            time for request:       39us      3.18ms       101us        20us    90.00%\n";
        let burst = parse_h2load(said).unwrap();
        assert_eq!((burst.requests, burst.seconds), (200.0, 2.0));
        let traffic =
            "traffic: 462B (462) total, 255B (255) headers (space savings 28.97%), 104B (104) data";
        assert_eq!(data_bytes(traffic).unwrap(), 104.0);
        assert_eq!(burst.latency, [("mean_us", 101.0), ("max_us", 3180.0)]);
        assert!(parse_h2load(&said.replace("0 errored", "1 errored")).is_err());
        assert!(parse_h2load("").is_err());
    }
}
