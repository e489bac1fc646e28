//! Requests to a server on this machine, and how long they took as the client sees it.

use std::io::Read as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use ureq::Agent;
use ureq::http::{HeaderMap, Request};

use crate::workspace::now;

/// Nothing the demo asks for takes longer, even on a busy machine.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(120);

#[derive(Debug, Clone)]
pub(crate) struct Http {
    agent: Agent,
    base: String,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) took: Duration,
}

/// Stage and milliseconds, in the server's order, without the total.
pub(crate) type Stages = Vec<(String, f64)>;

impl Http {
    pub(crate) fn new(address: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(REQUEST_TIME_MAX));
        Self {
            agent: config.build().new_agent(),
            base: format!("http://{address}"),
        }
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn get(&self, path: &str) -> Result<Reply> {
        let request = Request::get(format!("{}{path}", self.base)).body(())?;
        let started = now();
        let (mut reply, mut body) =
            start(self.agent.run(request), started).with_context(|| format!("GET {path}"))?;
        body.read_to_end(&mut reply.body)?;
        reply.took = now().duration_since(started);
        Ok(reply)
    }

    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Reply> {
        self.stream(path, headers, body, |_, _| {})
    }

    /// Hands each part of the answer over as it arrives, with the time since the request was sent.
    pub(crate) fn stream(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        mut part: impl FnMut(&[u8], Duration),
    ) -> Result<Reply> {
        let mut request = Request::post(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body)?;
        let started = now();
        let (mut reply, mut from) =
            start(self.agent.run(request), started).with_context(|| format!("POST {path}"))?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = from
                .read(&mut buffer)
                .with_context(|| format!("POST {path}"))?;
            let bytes = buffer.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            part(bytes, now().duration_since(started));
            reply.body.extend_from_slice(bytes);
        }
        reply.took = now().duration_since(started);
        Ok(reply)
    }

    pub(crate) fn post_json(&self, path: &str, body: &Value) -> Result<Reply> {
        let headers = [("content-type", "application/json")];
        self.post(path, &headers, &serde_json::to_vec(body)?)
    }
}

type Answer = std::result::Result<ureq::http::Response<ureq::Body>, ureq::Error>;

fn start(answer: Answer, started: Instant) -> Result<(Reply, ureq::BodyReader<'static>)> {
    let (head, body) = answer?.into_parts();
    let reply = Reply {
        status: head.status.as_u16(),
        headers: head.headers,
        body: Vec::new(),
        took: now().duration_since(started),
    };
    Ok((reply, body.into_reader()))
}

impl Reply {
    /// The body of a good answer.
    pub(crate) fn json(&self) -> Result<Value> {
        ensure!(
            self.status == 200,
            "status {}: {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        serde_json::from_slice(&self.body).context("the answer is not JSON")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Where the server says its time went. Fails when the stages do not sum to the total within 1 %.
    pub(crate) fn stages(&self) -> Result<Stages> {
        let value = self
            .header("server-timing")
            .context("the answer has no Server-Timing")?;
        stages(value)
    }
}

fn stages(value: &str) -> Result<Stages> {
    let mut stages = Vec::new();
    let mut total = None;
    for entry in value.split(',') {
        let (name, millis) = entry
            .trim()
            .split_once(";dur=")
            .and_then(|(name, millis)| Some((name, millis.parse::<f64>().ok()?)))
            .with_context(|| format!("`{entry}` in Server-Timing"))?;
        if name == "total" {
            total = Some(millis);
        } else {
            stages.push((name.to_owned(), millis));
        }
    }
    let total = total.context("Server-Timing has no total")?;
    let sum: f64 = stages.iter().map(|(_, millis)| millis).sum();
    // Each figure is rounded to a microsecond.
    let rounding = 0.0005 * (stages.len() + 1) as f64;
    ensure!(
        (sum - total).abs() <= total * 0.01 + rounding,
        "the stages sum to {sum:.3} ms, the total is {total:.3} ms"
    );
    Ok(stages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_read_and_must_balance() {
        let read = stages("read;dur=0.500, infer;dur=9.500, total;dur=10.000").unwrap();
        assert_eq!(read, [("read".to_owned(), 0.5), ("infer".to_owned(), 9.5)]);
        for wrong in [
            "",
            "read;dur=0.5",
            "read;dur=x, total;dur=1",
            "read;dur=0.500, infer;dur=9.000, total;dur=10.000",
        ] {
            assert!(stages(wrong).is_err(), "{wrong}");
        }
    }
}
