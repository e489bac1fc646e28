//! The other model servers, each with an `identity` of its own, from PyPI. One that does not install here is left out.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::identity::CONFIG;
use super::wire::Doors;
use crate::bench::{Bench, free_port};
use crate::http::Http;
use crate::process::{self, Running};
use crate::setup::{self, Install};
use crate::workspace::root;

/// The server itself; of the backends only Python's is in it, so that `bench/triton_identity.c` is compiled for it.
const TRITON: &str = "nvidia-pytriton==0.7.0";
const MLSERVER: &str = "mlserver==1.7.1";
const KSERVE: &str = "kserve==0.21.0";

/// A Python program imports for seconds.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// A server under load, stopped when this is dropped.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) doors: Doors,
    running: Running,
}

impl Peer {
    pub(super) fn id(&self) -> u32 {
        self.running.id()
    }

    fn start(name: &'static str, command: &mut Command, ports: [u16; 2]) -> Result<Self> {
        let http = |port| Http::new(&format!("127.0.0.1:{port}"));
        let doors = Doors {
            rest: http(ports[0]),
            grpc: http(ports[1]),
        };
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Running::start(name, command)?;
        running.wait_for("ready model", START_TIME_MAX, || {
            let reply = doors.rest.get("/v2/models/identity/ready").ok()?;
            (reply.status == 200).then_some(())
        })?;
        Ok(Self {
            name,
            doors,
            running,
        })
    }
}

/// Those that install and start here.
pub(super) fn all(bench: &Bench<'_>, scratch: &Path) -> Vec<Peer> {
    type Start = fn(&Bench<'_>, &Path) -> Result<Peer>;
    let starts: [(&str, Start); 3] = [
        ("Triton", triton),
        ("MLServer", mlserver),
        ("KServe", kserve),
    ];
    let mut peers = Vec::new();
    for (name, start) in starts {
        match start(bench, scratch) {
            Ok(peer) => peers.push(peer),
            Err(error) => eprintln!("without {name}: {error:#}"),
        }
    }
    peers
}

fn triton(bench: &Bench<'_>, scratch: &Path) -> Result<Peer> {
    let python = setup::venv(
        &bench.store.dir().join("bench-triton"),
        &[Install::packages(&[TRITON])],
    )?;
    let packages = process::output(Command::new(python).args([
        "-c",
        "import sysconfig; print(sysconfig.get_path('platlib'))",
    ]))?;
    let packages = Path::new(packages.trim());
    let backends = scratch.join("triton-backends");
    fs::create_dir_all(backends.join("identity"))?;
    process::run(
        Command::new("cc")
            .args(["-O2", "-shared", "-fPIC", "-o"])
            .arg(backends.join("identity/libtriton_identity.so"))
            .arg(root().join("bench/triton_identity.c")),
    )?;
    let models = scratch.join("triton-models");
    fs::create_dir_all(models.join("identity/1"))?;
    fs::write(models.join("identity/config.pbtxt"), CONFIG)?;
    let ports = [free_port()?, free_port()?];
    let mut command = Command::new(packages.join("pytriton/tritonserver/bin/tritonserver"));
    command
        .env("LD_LIBRARY_PATH", packages.join("nvidia_pytriton.libs"))
        .arg("--model-repository")
        .arg(models)
        .arg("--backend-directory")
        .arg(backends)
        .args(["--http-address=127.0.0.1", "--grpc-address=127.0.0.1"])
        .arg(format!("--http-port={}", ports[0]))
        .arg(format!("--grpc-port={}", ports[1]))
        .arg("--allow-metrics=false");
    Peer::start("Triton", &mut command, ports)
}

fn mlserver(bench: &Bench<'_>, scratch: &Path) -> Result<Peer> {
    let python = setup::venv(
        &bench.store.dir().join("bench-mlserver"),
        &[Install::packages(&[MLSERVER])],
    )?;
    let folder = scratch.join("mlserver");
    fs::create_dir_all(&folder)?;
    let code = "mlserver_identity.py";
    fs::copy(root().join("bench").join(code), folder.join(code))?;
    let ports = [free_port()?, free_port()?];
    let settings = json!({
        "debug": false, "host": "127.0.0.1", "http_port": ports[0], "grpc_port": ports[1], "metrics_port": free_port()?,
        // Its model in the server's own process: the fastest it has for a model that costs nothing.
        "parallel_workers": 0,
    });
    fs::write(folder.join("settings.json"), settings.to_string())?;
    let model = json!({"name": "identity", "implementation": "mlserver_identity.Identity"});
    fs::write(folder.join("model-settings.json"), model.to_string())?;
    let mut command = Command::new(python.with_file_name("mlserver"));
    command.arg("start").arg(&folder).current_dir(&folder);
    Peer::start("MLServer", &mut command, ports)
}

fn kserve(bench: &Bench<'_>, scratch: &Path) -> Result<Peer> {
    let python = setup::venv(
        &bench.store.dir().join("bench-kserve"),
        &[Install::packages(&[KSERVE])],
    )?;
    let ports = [free_port()?, free_port()?];
    let mut command = Command::new(python);
    command
        .arg(root().join("bench/kserve_identity.py"))
        .args(["--http_port", &ports[0].to_string()])
        .args(["--grpc_port", &ports[1].to_string()])
        .current_dir(scratch);
    Peer::start("KServe", &mut command, ports).context("KServe's Python server")
}
