//! `cargo xtask demo`: real models behind one endpoint, real requests through it, and where their time went.
//!
//! Reading order: this file (the order of events), [`server`] (what is started), [`checks`] and [`magika`] (what is asked
//! and what must come back), [`report`] (how it is shown).

mod checks;
mod magika;
mod report;
mod server;

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::catalogue::Catalogue;
use crate::fetch::{self, Store};
use crate::kapok::Kapok;
use crate::process::{self, cargo, output, run};
use crate::setup::{self, Install};
use crate::workspace::{self, cache_dir, poll, target};
use report::{Report, Step};

/// What the demo serves. Each must load.
const MODELS: &[&str] = &[
    "all-minilm-l6-v2",
    "all-minilm-l6-v2-int8",
    "magika",
    "pp-ocrv4-det",
    "pp-ocrv4-rec",
    "plate-det",
    "plate-rec",
];

const CHAT_MODEL: &str = "smollm2-135m-instruct";

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Stop after the requests instead of serving until Ctrl-C; takes free ports
    #[arg(long)]
    once: bool,
    /// One JSON document on stdout instead of a table
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    /// Where to listen [default: 127.0.0.1:8000, a free port with --once]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Another build of kapok than release, for work on the demo itself
    #[arg(long, value_name = "PROFILE", default_value = "release", hide = true)]
    profile: String,
    /// Instead of KAPOK_CACHE or the user's cache folder
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
}

pub(crate) fn run_demo(options: &Options) -> Result<()> {
    process::catch_signals()?;
    let mut report = Report::new(options.output);
    let result = play(options, &mut report);
    if let Err(error) = &result {
        report.fail(&format!("{error:#}"));
    }
    report.finish()?;
    result
}

fn play(options: &Options, report: &mut Report) -> Result<()> {
    let parts = prepare(options)?;
    report.versions(versions(&parts)?);
    let mut server = server::start(&parts, options)?;
    report.endpoint(server.public().base());
    ask(&server, &parts, report);
    server.check()?;
    report.verdict()?;
    if !options.once {
        report.invite(server.public().base());
        serve(&mut server)?;
    }
    Ok(())
}

/// Everything that must be there before the first request.
struct Parts {
    binary: PathBuf,
    python: PathBuf,
    gguf: PathBuf,
    store: Store,
    /// A repository with just the demo's models.
    repository: PathBuf,
    /// Configuration, log and samples of this run.
    scratch: PathBuf,
    /// Held as long as the demo works in `scratch`.
    _lock: File,
    ort: PathBuf,
    xllamacpp: String,
}

fn prepare(options: &Options) -> Result<Parts> {
    let store = Store::new(cache_dir(options.cache.clone())?);
    let catalogue = Catalogue::read(&workspace::root())?;
    let wanted = MODELS
        .iter()
        .chain(&[CHAT_MODEL, "onnxruntime"])
        .map(|name| catalogue.entry(name))
        .collect::<Result<Vec<_>>>()?;
    eprintln!("models and libraries in {}", store.dir().display());
    fetch::bring(&catalogue, &wanted, &store)?;
    eprintln!("kapok, {} build", options.profile);
    let mut build = cargo();
    build.args(["build", "-p", "kapok", "--profile", &options.profile]);
    if options.output == Format::Json {
        build.arg("--quiet");
    }
    run(&mut build)?;
    // cargo names the folder of `dev` after what it was called first.
    let folder = if options.profile == "dev" {
        "debug"
    } else {
        &options.profile
    };
    let xllamacpp = catalogue.entry("xllamacpp")?;
    let requirements = store.dir().join("files/xllamacpp.txt");
    let install = Install::verified(xllamacpp, &requirements)?;
    let python = {
        let _lock = store.lock()?;
        setup::venv(&store.dir().join("venv"), &[install])?
    };
    let chat = catalogue.entry(CHAT_MODEL)?;
    let file = chat.files_here().next().context("no chat model file")?;
    let (scratch, lock) = scratch(&target())?;
    Ok(Parts {
        binary: target().join(folder).join("kapok"),
        python,
        gguf: store.expected(chat, file).path,
        repository: repository(&scratch, &store)?,
        ort: fetch::ort_library(&catalogue, &store)?,
        store,
        scratch,
        _lock: lock,
        xllamacpp: xllamacpp.pip.clone().unwrap_or_default(),
    })
}

/// More demos at once than this are a mistake.
const DEMOS_MAX: u32 = 16;

/// The first of `demo`, `demo-2`, … that no other demo works in, and the lock that keeps it ours.
fn scratch(target: &Path) -> Result<(PathBuf, File)> {
    for number in 1..=DEMOS_MAX {
        let name = match number {
            1 => "demo".to_owned(),
            number => format!("demo-{number}"),
        };
        let dir = target.join(name);
        std::fs::create_dir_all(&dir)?;
        let lock = File::create(dir.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => return Ok((dir, lock)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    bail!(
        "{DEMOS_MAX} demos run from this checkout already (locks in {}): stop one",
        target.join("demo*/lock").display()
    )
}

/// Links to the demo's models: the cache may hold more than is served here.
fn repository(scratch: &Path, store: &Store) -> Result<PathBuf> {
    let dir = scratch.join("models");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    for name in MODELS {
        std::os::unix::fs::symlink(store.models().join(name), dir.join(name))?;
    }
    Ok(dir)
}

fn versions(parts: &Parts) -> Result<Vec<(&'static str, String)>> {
    let first = |text: String| text.lines().next().unwrap_or_default().trim().to_owned();
    let commit = output(
        Command::new("git")
            .args(["describe", "--always", "--dirty"])
            .current_dir(workspace::root()),
    );
    let library = parts.ort.file_name().unwrap_or_default();
    Ok(vec![
        (
            "kapok",
            first(output(Command::new(&parts.binary).arg("--version"))?),
        ),
        // A source archive has no history.
        (
            "commit",
            commit.map_or_else(|_| "unknown".to_owned(), first),
        ),
        (
            "rustc",
            first(output(Command::new("rustc").arg("--version"))?),
        ),
        ("onnxruntime", library.to_string_lossy().into_owned()),
        ("llama.cpp", parts.xllamacpp.clone()),
        (
            "python",
            first(output(Command::new(&parts.python).arg("--version"))?),
        ),
    ])
}

/// Every request of the demo, whether or not the one before went well.
fn ask(server: &Kapok, parts: &Parts, report: &mut Report) {
    report.step("models", || checks::models(server));
    report.step("engines", || checks::engines(server));
    report.step("embeddings", || checks::embeddings(server.public()));
    report.step("file types", || {
        let samples = magika::samples(parts)?;
        magika::classify(server.public(), parts, &samples)
    });
    report.step("chat", || checks::chat(server.public()));
}

fn serve(server: &mut Kapok) -> Result<()> {
    while poll(Duration::from_secs(1), || {
        process::interrupted().then_some(())
    })
    .is_none()
    {
        server.check()?;
    }
    ensure!(process::interrupted(), "kapok ended");
    eprintln!("stopping");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demos_at_once_work_in_folders_of_their_own() {
        let target = tempfile::tempdir().unwrap();
        let (first, lock) = scratch(target.path()).unwrap();
        let (second, _other) = scratch(target.path()).unwrap();
        assert_eq!(first, target.path().join("demo"));
        assert_eq!(second, target.path().join("demo-2"));
        drop(lock);
        let (again, _lock) = scratch(target.path()).unwrap();
        assert_eq!(again, first);
    }
}
