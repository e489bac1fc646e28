//! Relayed chat requests: what each gateway adds, and what CPU it costs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::load::{self, Burst, Post};
use super::results::Outcome;
use super::samples::{Compare, Sample};
use super::usage::Cpu;
use super::{Bench, empty_dir, free_port};
use crate::http::Http;
use crate::kapok::Kapok;
use crate::process::{self, Running};
use crate::setup::{self, Install};
use crate::workspace::root;

const CONNECTIONS: [u32; 2] = [1, 64];

const VLLM_ROUTER: &str = "vllm-router==0.1.17";

/// A Python program imports for seconds.
const START_TIME_MAX: Duration = Duration::from_secs(60);

const REQUEST: &str = r#"{"model":"mock-model","messages":[{"role":"system","content":"You are terse."},{"role":"user","content":"When does the kapok tree bloom, and who comes to visit its flowers?"}],"max_tokens":64,"temperature":0.2}"#;

/// A gateway, or the upstream itself.
struct Target {
    name: &'static str,
    http: Http,
    pid: u32,
    /// Stopped when the bench ends.
    _process: Process,
}

enum Process {
    Plain { _running: Running },
    Kapok { _kapok: Box<Kapok> },
}

pub(super) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    load::install()?;
    setup::debian(&[("nginx", "nginx-light")])?;
    let scratch = empty_dir(&bench.scratch, "relay")?;
    let upstream = mock(&scratch)?;
    let targets = [
        nginx(&scratch, upstream.http.base())?,
        vllm_router(bench, upstream.http.base())?,
        kapok(bench, &scratch, upstream.http.base())?,
        upstream,
    ];
    let names: Vec<_> = (0..targets.len()).collect();
    let mut samples = Vec::new();
    for connections in CONNECTIONS {
        for (round, index) in bench.rounds(&names) {
            let target = targets.get(index).context("an index of the list")?;
            samples.push(measure(bench, target, connections, round)?);
        }
    }
    Ok(Outcome {
        name: "relay",
        method: format!(
            "POST /v1/chat/completions ({} bytes) to one upstream that answers at once; wrk -t1, {} s a burst, {} rounds, all \
             gateways interleaved and the order reversed each round; cpu_ms_per_1k is user and kernel time of the gateway's \
             process tree; busy_cores is everything on the machine, load generator and upstream included",
            REQUEST.len(),
            bench.options.seconds,
            bench.options.rounds
        ),
        samples,
        compare: Some(Compare {
            figure: "cpu_ms_per_1k",
            baseline: "nginx",
        }),
        reference: "CPU ms per 1,000 on two shared cores: nginx 16–22, Envoy 70–90, vllm-router 80–96",
    })
}

fn measure(bench: &Bench<'_>, target: &Target, connections: u32, round: u32) -> Result<Sample> {
    let post = Post {
        url: format!("{}/v1/chat/completions", target.http.base()),
        headers: vec![("content-type", "application/json")],
        body: REQUEST.as_bytes(),
    };
    let before = Cpu::now(target.pid)?;
    let burst = load::wrk(&bench.scratch, &post, connections, bench.duration())
        .with_context(|| format!("`{}` with {connections} connections", target.name))?;
    let after = Cpu::now(target.pid)?;
    Ok(sample(
        (target.name, format!("{connections} connections"), round),
        burst,
        (before, after),
    ))
}

/// The figures of one burst against one process.
pub(super) fn sample(
    (target, case, round): (&str, String, u32),
    burst: Burst,
    (before, after): (Cpu, Cpu),
) -> Sample {
    let figures = [
        (
            "cpu_ms_per_1k",
            (after.tree - before.tree) * 1e6 / burst.requests,
        ),
        ("per_second", burst.requests / burst.seconds),
        burst.latency[0],
        burst.latency[1],
        (
            "busy_cores",
            (after.machine - before.machine) / burst.seconds,
        ),
    ];
    Sample {
        case,
        target: target.to_owned(),
        round,
        figures: figures.into(),
    }
}

/// Starts a gateway and asks it once: what cannot relay is not measured.
fn start(name: &'static str, command: &mut Command, port: u16) -> Result<Target> {
    let http = Http::new(&format!("127.0.0.1:{port}"));
    let mut running = Running::start(name, command)?;
    running.wait_for("relayed answer", START_TIME_MAX, || relayed(&http))?;
    Ok(Target {
        name,
        pid: running.id(),
        http,
        _process: Process::Plain { _running: running },
    })
}

fn relayed(http: &Http) -> Option<()> {
    let headers = [("content-type", "application/json")];
    let reply = http
        .post("/v1/chat/completions", &headers, REQUEST.as_bytes())
        .ok()?;
    (reply.status == 200 && reply.body.starts_with(b"{\"id\":\"chatcmpl-mock")).then_some(())
}

fn mock(scratch: &Path) -> Result<Target> {
    let binary = scratch.join("mock-upstream");
    process::run(
        Command::new("rustc")
            .args(["--edition", "2024", "-O", "-o"])
            .arg(&binary)
            .arg(root().join("crates/xtask/src/bin/mock-upstream.rs")),
    )?;
    let port = free_port()?;
    start("direct", Command::new(binary).arg(port.to_string()), port)
}

fn nginx(scratch: &Path, upstream: &str) -> Result<Target> {
    let port = free_port()?;
    let dir = scratch.join("nginx");
    fs::create_dir_all(&dir)?;
    let address = upstream.trim_start_matches("http://");
    let config = format!(
        "daemon off;
worker_processes 2;
pid {dir}/pid;
error_log {dir}/error.log warn;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  tcp_nodelay on;
  keepalive_requests 100000000;
  upstream mock {{ server {address}; keepalive 512; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off;
    }}
  }}
}}
",
        dir = dir.display()
    );
    let path = dir.join("nginx.conf");
    fs::write(&path, config)?;
    // Debian keeps it where only root's search path looks.
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].map(PathBuf::from);
    let program = program.into_iter().find(|path| path.exists());
    let mut command = Command::new(program.unwrap_or_else(|| "nginx".into()));
    command
        .arg("-p")
        .arg(&dir)
        .arg("-c")
        .arg(&path)
        .stderr(Stdio::null());
    start("nginx", &mut command, port)
}

fn vllm_router(bench: &Bench<'_>, upstream: &str) -> Result<Target> {
    let venv = bench.store.dir().join("bench-venv");
    let python = setup::venv(&venv, &[Install::packages(&[VLLM_ROUTER])])?;
    let port = free_port()?;
    let mut command = Command::new(python.with_file_name("vllm-router"));
    command
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        .args(["--worker-urls", upstream, "--policy", "round_robin"])
        .args(["--prometheus-port", &free_port()?.to_string()])
        .args([
            "--max-concurrent-requests",
            "4096",
            "--log-level",
            "warning",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    start("vllm-router", &mut command, port)
}

fn kapok(bench: &Bench<'_>, scratch: &Path, upstream: &str) -> Result<Target> {
    let mut command = Kapok::up(&bench.binary, scratch);
    command.args(["--upstream", &format!("mock={upstream}")]);
    let kapok = Kapok::start(&mut command, scratch)?;
    let http = kapok.public().clone();
    ensure!(
        relayed(&http).is_some(),
        "kapok does not relay to the mock upstream"
    );
    Ok(Target {
        name: "kapok",
        pid: kapok.id(),
        http,
        _process: Process::Kapok {
            _kapok: Box::new(kapok),
        },
    })
}
