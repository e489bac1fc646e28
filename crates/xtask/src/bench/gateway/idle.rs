//! Ten thousand streams at a time that have begun and say nothing: what each keeps.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::peers;
use crate::bench::results::Outcome;
use crate::bench::samples::Sample;
use crate::bench::swap::settled_mb;
use crate::bench::{Bench, empty_dir};
use crate::kapok::Kapok;
use crate::process::{interrupted, output};

const STREAMS: usize = 10_000;

/// Descriptors of a process that are not streams: libraries, logs, listeners.
const SPARE_FILES: usize = 500;

/// What there is once, whoever comes: threads' stacks, allocators' arenas, connections to the upstream.
const FIRST: usize = 200;

const OPENERS: usize = 4;

const PATIENCE: Duration = Duration::from_secs(30);

pub(in crate::bench) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    allow_files(STREAMS + SPARE_FILES)?;
    let scratch = empty_dir(&bench.scratch, "idle")?;
    // The second takes the streams of the first over few connections: with HTTP/1.1 on both sides the first would need two
    // descriptors for each stream, more than many machines allow one process.
    let (_upstream, behind) = peers::kapok_alone(bench, &scratch)?;
    let mut kapok = before(bench, &empty_dir(&scratch, "measured")?, behind.http.base())?;
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: kapok\r\ncontent-type: application/json\r\n",
        behind.path
    );
    let body = behind
        .body
        .replacen('{', r#"{"stream":true,"hold":true,"#, 1);
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    let address = kapok.public().base().trim_start_matches("http://");
    let empty = settled_mb(kapok.id())?;
    let mut held = open(address, &request, FIRST)?;
    let first = settled_mb(kapok.id())?;
    held.extend(open(address, &request, STREAMS - FIRST)?);
    let all = settled_mb(kapok.id())?;
    kapok.check()?;
    eprintln!("  {} streams: {empty:.1} to {all:.1} MB", held.len());
    let figures = [
        ("empty_mb", empty),
        ("resident_mb", all),
        ("kb_each", (all - first) * 1000.0 / (STREAMS - FIRST) as f64),
    ];
    let sample = Sample {
        case: format!("{STREAMS} idle streams"),
        target: peers::KAPOK.to_owned(),
        round: 0,
        figures: figures.into(),
    };
    Ok(Outcome {
        name: "idle",
        method: format!(
            "{STREAMS} chat streams, each over a connection of its own to kapok and over shared HTTP/2 connections to an upstream \
             (another kapok before the mock), after their first event; memory is the median VmRSS of a second, kb_each that of \
             all but the first {FIRST}"
        ),
        samples: vec![sample],
        compare: None,
        reference: "goal: resident_mb under 200",
    })
}

/// The one that is measured, before an upstream that speaks HTTP/2.
fn before(bench: &Bench<'_>, scratch: &Path, upstream: &str) -> Result<Kapok> {
    fs::write(
        scratch.join("kapok.yaml"),
        format!(
            "apiVersion: kapok.dev/v1alpha1\nkind: Upstream\nmetadata: {{name: behind}}\nspec: {{url: '{upstream}', http2: true}}\n"
        ),
    )?;
    let mut command = Kapok::up(&bench.binary, scratch);
    command.args(["--config", "kapok.yaml"]);
    Kapok::start(&mut command, scratch)
}

/// Has this process and those that it starts open so many files.
fn allow_files(files: usize) -> Result<()> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let hard = line.and_then(|line| line.split_whitespace().nth(4));
    let hard: usize = hard
        .and_then(|hard| hard.parse().ok())
        .context("no limit")?;
    ensure!(
        hard >= files,
        "{files} open files are needed, `ulimit -Hn` allows {hard}"
    );
    let pid = std::process::id().to_string();
    output(
        Command::new("prlimit")
            .args(["--pid", &pid])
            .arg(format!("--nofile={hard}:{hard}")),
    )?;
    Ok(())
}

/// Streams that have said their first event.
fn open(address: &str, request: &str, streams: usize) -> Result<Vec<TcpStream>> {
    std::thread::scope(|scope| {
        let share = |opener| (streams + opener) / OPENERS;
        let openers: Vec<_> = (0..OPENERS)
            .map(|opener| {
                scope.spawn(move || {
                    let streams = (0..share(opener)).map(|_| begin(address, request));
                    streams.collect::<Result<Vec<_>>>()
                })
            })
            .collect();
        let mut held = Vec::with_capacity(streams);
        for opener in openers {
            let opened = opener.join().ok().context("an opener panicked")?;
            held.extend(opened?);
        }
        Ok(held)
    })
}

fn begin(address: &str, request: &str) -> Result<TcpStream> {
    ensure!(!interrupted(), "interrupted");
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut part = [0; 2048];
    while !answer.ends_with(b"\n\n\r\n") {
        let got = stream.read(&mut part).context("no first event")?;
        ensure!(got > 0, "closed: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&part[..got]);
    }
    ensure!(
        answer.starts_with(b"HTTP/1.1 200 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    Ok(stream)
}
