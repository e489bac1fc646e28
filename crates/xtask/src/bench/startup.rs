//! Ready time and idle memory with no models, and the size of the binary.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::results::Outcome;
use super::samples::Sample;
use super::{Bench, empty_dir, free_port, usage};
use crate::process::{self, Running};
use crate::workspace::{now, poll, poll_every};

/// One start takes a tenth of a second: enough of them to see the spread, whatever `--rounds` says.
const STARTS: u32 = 20;

/// How often readiness is asked for; the resolution of the result.
const PAUSE: Duration = Duration::from_micros(200);

const START_TIME_MAX: Duration = Duration::from_secs(20);

/// Long enough for allocations of the start to settle.
const SETTLE: Duration = Duration::from_secs(1);

pub(super) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let scratch = empty_dir(&bench.scratch, "startup")?;
    let mut samples = sizes(&bench.binary, &scratch)?;
    for round in 0..STARTS {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut command = Command::new(&bench.binary);
        command
            .args([
                "up",
                "--listen",
                &address.to_string(),
                "--admin",
                "127.0.0.1:0",
            ])
            .current_dir(&scratch)
            .env("KAPOK_CACHE", &scratch)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let started = now();
        let mut running = Running::start("kapok", &mut command)?;
        poll_every(PAUSE, START_TIME_MAX, || ready(address)).context("kapok is not ready")?;
        let took = now().duration_since(started);
        running.check()?;
        let mut figures = BTreeMap::from([("ready_ms", took.as_secs_f64() * 1e3)]);
        // Memory is the same every time; three looks suffice.
        if round < 3 {
            poll(SETTLE, || None::<()>);
            figures.insert("idle_rss_mb", usage::resident_mb(running.id())?);
        }
        samples.push(Sample {
            case: "no models".to_owned(),
            target: "kapok".to_owned(),
            round,
            figures,
        });
    }
    Ok(Outcome {
        name: "startup",
        method: format!(
            "{STARTS} starts without models, from the spawn of the process to the first 200 of /health/ready, asked for every \
             {} µs; resident memory after one idle second; sizes of the binary as cargo leaves it, of what a user installs \
             (`strip`) and of the symbols that cargo packs beside it",
            PAUSE.as_micros()
        ),
        samples,
        compare: None,
        reference: "goals: ready in 100 ms, 25 MB resident, 40 MB installed",
    })
}

/// Megabytes (10⁶) of the files that a build leaves.
fn sizes(binary: &Path, scratch: &Path) -> Result<Vec<Sample>> {
    let stripped = scratch.join("kapok.stripped");
    process::run(Command::new("strip").arg("-o").arg(&stripped).arg(binary))
        .context("`strip` comes with binutils")?;
    let files = [
        ("as built", binary.to_path_buf()),
        ("stripped", stripped),
        ("packed symbols", binary.with_extension("dwp")),
    ];
    let mut samples = Vec::new();
    for (target, path) in files {
        // Only dist packs its symbols.
        let Ok(file) = std::fs::metadata(&path) else {
            continue;
        };
        samples.push(Sample {
            case: "size of the binary".to_owned(),
            target: target.to_owned(),
            round: 0,
            figures: [("mb", file.len() as f64 / 1e6)].into(),
        });
    }
    Ok(samples)
}

/// One question on one connection.
fn ready(address: SocketAddr) -> Option<()> {
    let mut connection = TcpStream::connect(address).ok()?;
    connection.set_read_timeout(Some(START_TIME_MAX)).ok()?;
    let request = "GET /health/ready HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).ok()?;
    answer.starts_with(b"HTTP/1.1 200").then_some(())
}
