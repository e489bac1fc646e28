//! What a gRPC server does under ten thousand calls: its tail, its memory, its start. kapok answers for a model; the others
//! are the smallest servers of their languages, which hand a message back unread.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::results::Outcome;
use super::samples::{Compare, Sample};
use super::usage::{self, Cpu};
use super::{Bench, empty_dir, free_port};
use crate::process::{self, Running, output};
use crate::protobuf::Message;
use crate::setup::{self, Install};
use crate::workspace::{now, poll_every, root};

const CONNECTIONS: u32 = 100;
const CALLS: u32 = 10_000;
const RATE: u32 = 5_000;
/// Of a call that is held.
const HELD: Duration = Duration::from_secs(1);
/// FP32 values in 1 KiB.
const VALUES: usize = 256;

const GRPCIO: &str = "grpcio==1.85.1";

/// Resolution of the time to listen.
const PAUSE: Duration = Duration::from_micros(200);
const START_TIME_MAX: Duration = Duration::from_secs(30);

const TONIC: &str = "tonic";

/// How a server is started; the port and what it waits before it answers are the caller's.
struct Target {
    name: &'static str,
    command: Box<dyn Fn(u16, Duration) -> Command>,
}

#[derive(Deserialize)]
struct Said {
    answered: f64,
    failed: u64,
    p50_us: f64,
    p99_us: f64,
}

/// The load program and what it sends.
struct Load {
    program: PathBuf,
    message: PathBuf,
}

pub(super) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let scratch = empty_dir(&bench.scratch, "grpc")?;
    let built = build(&bench.scratch)?;
    let load = Load {
        program: built.join("grpc-load"),
        message: scratch.join("message"),
    };
    fs::write(&load.message, request())?;
    let mut targets = vec![kapok(bench, &scratch)?, tonic(&built)];
    for (name, found) in [("Go", go(&scratch)), ("Python", python(bench))] {
        match found {
            Ok(target) => targets.push(target),
            Err(error) => eprintln!("without {name}: {error:#}"),
        }
    }
    let indices: Vec<_> = (0..targets.len()).collect();
    let mut samples = Vec::new();
    for (round, index) in bench.rounds(&indices) {
        let target = targets.get(index).context("an index of the list")?;
        samples.extend(measure(bench, &load, target, round).with_context(|| target.name)?);
    }
    Ok(Outcome {
        name: "grpc",
        method: format!(
            "unary calls of 1 KiB over {CONNECTIONS} connections by a tonic client on one thread; each round a server is \
             started anew: open loop of {RATE} a second for {} s (latency from the moment a call was due), then {CALLS} calls \
             at one moment; started again with an answer after 1 s: {CALLS} held; {} rounds, interleaved, the order reversed \
             each round. kapok: `identity` of FP32[{VALUES}], parsed and answered as a model's; the others echo bytes",
            bench.options.seconds, bench.options.rounds
        ),
        samples,
        compare: Some(Compare {
            figure: "p99_ms",
            baseline: TONIC,
        }),
        reference: "goals: p99 within 10 % of tonic's, memory at most 1.5 × its",
    })
}

fn measure(bench: &Bench<'_>, load: &Load, target: &Target, round: u32) -> Result<Vec<Sample>> {
    let sample = |case: String, figures: &[(&'static str, f64)]| Sample {
        case,
        target: target.name.to_owned(),
        round,
        figures: figures.iter().copied().collect(),
    };
    let calls = CALLS.to_string();
    let (server, port, listening) = start(target, Duration::ZERO)?;
    let before = Cpu::at_rest(server.id())?;
    let rate = [&RATE.to_string(), &bench.options.seconds.to_string()];
    let open = load.drive(port, &["open", rate[0], rate[1]])?;
    let after = Cpu::now(server.id())?;
    let burst = load.drive(port, &["burst", &calls])?;
    let burst_mb = usage::peak_mb(server.id())?;
    drop(server);
    let (server, port, _) = start(target, HELD)?;
    let held = load.drive(port, &["burst", &calls])?;
    let held_mb = usage::peak_mb(server.id())?;
    let cpu = (after.tree - before.tree) * 1e6 / open.answered;
    Ok(vec![
        sample(
            "start".to_owned(),
            &[("listening_ms", listening.as_secs_f64() * 1e3)],
        ),
        sample(
            format!("open loop, {RATE}/s"),
            &[
                ("p50_ms", open.p50_us / 1e3),
                ("p99_ms", open.p99_us / 1e3),
                ("cpu_ms_per_1k", cpu),
            ],
        ),
        sample(
            format!("burst of {CALLS}"),
            &[("p99_ms", burst.p99_us / 1e3), ("peak_mb", burst_mb)],
        ),
        sample(
            format!("{CALLS} held for 1 s"),
            &[
                ("p99_ms", held.p99_us / 1e3 - HELD.as_secs_f64() * 1e3),
                ("peak_mb", held_mb),
            ],
        ),
    ])
}

impl Load {
    fn drive(&self, port: u16, how: &[&str]) -> Result<Said> {
        let said = output(
            Command::new(&self.program)
                .arg(port.to_string())
                .arg(&self.message)
                .arg(CONNECTIONS.to_string())
                .args(how),
        )?;
        let said: Said = serde_json::from_str(&said).context("in what grpc-load said")?;
        ensure!(
            said.failed == 0 && said.answered > 0.0,
            "{} calls of `{}` failed",
            said.failed,
            how.join(" ")
        );
        Ok(said)
    }
}

/// The server, its port, and how long it took to listen.
fn start(target: &Target, held: Duration) -> Result<(Running, u16, Duration)> {
    let port = free_port()?;
    let mut command = (target.command)(port, held);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let started = now();
    let mut running = Running::start(target.name, &mut command)?;
    poll_every(PAUSE, START_TIME_MAX, || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    })
    .with_context(|| format!("`{}` does not listen", target.name))?;
    let took = now().duration_since(started);
    running.check()?;
    Ok((running, port, took))
}

/// A `ModelInferRequest` for the built-in `identity`
/// (field numbers: <https://github.com/kserve/open-inference-protocol>).
fn request() -> Vec<u8> {
    let raw: Vec<u8> = (0..VALUES).flat_map(|n| (n as f32).to_le_bytes()).collect();
    let shape = i64::try_from(VALUES).unwrap_or_default();
    let input = Message::new()
        .text(1, "INPUT0")
        .text(2, "FP32")
        .int(3, shape);
    Message::new()
        .text(1, "identity")
        .message(5, input)
        .bytes(7, &raw)
        .into_bytes()
}

/// The programs of `bench/grpc`, a workspace of its own.
fn build(scratch: &Path) -> Result<PathBuf> {
    let target = scratch.join("grpc-target");
    process::run(
        process::cargo()
            .args(["build", "--release", "--locked", "--manifest-path"])
            .arg(root().join("bench/grpc/Cargo.toml"))
            .env("CARGO_TARGET_DIR", &target),
    )?;
    Ok(target.join("release"))
}

fn kapok(bench: &Bench<'_>, scratch: &Path) -> Result<Target> {
    for (repository, delay) in [("now", 0), ("held", HELD.as_millis())] {
        let folder = scratch.join(repository).join("identity");
        fs::create_dir_all(folder.join("1"))?;
        let config = format!(
            r#"name: "identity"
backend: "identity"
max_batch_size: 0
input [ {{ name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] }} ]
output [ {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] }} ]
instance_group [ {{ count: {CALLS} kind: KIND_CPU }} ]
parameters {{ key: "execute_delay_ms" value: {{ string_value: "{delay}" }} }}
"#
        );
        fs::write(folder.join("config.pbtxt"), config)?;
    }
    let (binary, scratch) = (bench.binary.clone(), scratch.to_owned());
    let command = move |port: u16, held: Duration| {
        let repository = if held.is_zero() { "now" } else { "held" };
        let mut command = Command::new(&binary);
        command
            .args(["up", "--listen", &format!("127.0.0.1:{port}")])
            .args(["--admin", "127.0.0.1:0"])
            .args(["--set", &format!("node.queueMax={CALLS}")])
            .arg("--model-repo")
            .arg(scratch.join(repository))
            .current_dir(&scratch);
        command
    };
    Ok(Target {
        name: "kapok",
        command: Box::new(command),
    })
}

/// `PROGRAM PORT DELAY-MS`.
fn echo(name: &'static str, program: Vec<PathBuf>) -> Target {
    let command = move |port: u16, held: Duration| {
        let mut words = program.iter();
        let mut command = Command::new(
            words
                .next()
                .map_or_else(|| Path::new(name), PathBuf::as_path),
        );
        command
            .args(words)
            .args([port.to_string(), held.as_millis().to_string()]);
        command
    };
    Target {
        name,
        command: Box::new(command),
    }
}

fn tonic(built: &Path) -> Target {
    echo(TONIC, vec![built.join("tonic-echo")])
}

/// Debian's compiler and packages: older than today's, and there without a module proxy.
fn go(scratch: &Path) -> Result<Target> {
    setup::debian(&[("go", "golang-go")])?;
    if !Path::new("/usr/share/gocode/src/google.golang.org/grpc").exists() {
        setup::debian(&[("/usr/share/gocode", "golang-google-grpc-dev")])?;
    }
    let binary = scratch.join("echo-go");
    process::run(
        Command::new("go")
            .args(["build", "-o"])
            .arg(&binary)
            .arg(root().join("bench/grpc/echo.go"))
            .env("GO111MODULE", "off")
            .env("GOPATH", "/usr/share/gocode"),
    )?;
    Ok(echo("Go", vec![binary]))
}

fn python(bench: &Bench<'_>) -> Result<Target> {
    let dir = bench.store.dir().join("bench-grpcio");
    let python = setup::venv(&dir, &[Install::packages(&[GRPCIO])])?;
    Ok(echo(
        "Python",
        vec![python, root().join("bench/grpc/echo.py")],
    ))
}
