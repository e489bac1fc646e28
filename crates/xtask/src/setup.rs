//! What tests and benchmarks need besides cargo: Debian packages and Python environments.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use sha2::{Digest as _, Sha256};

use crate::fetch::hex;
use crate::process::{output, run};
use crate::workspace::env;

/// A program and the Debian package that has it.
pub(crate) type Program = (&'static str, &'static str);

/// Installs what is missing when we are root on Debian; otherwise says what to install.
pub(crate) fn debian(programs: &[Program]) -> Result<()> {
    let missing: Vec<_> = programs
        .iter()
        .filter(|(program, _)| on_path(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install {}", missing.join(" "));
    if on_path("apt-get").is_none() || output(Command::new("id").arg("-u"))?.trim() != "0" {
        bail!("missing programs; on Debian: {install}");
    }
    eprintln!("{install}");
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        apt
    };
    run(apt().arg("update"))?;
    run(apt()
        .args(["install", "-y", "--no-install-recommends"])
        .args(&missing))
}

fn on_path(program: &str) -> Option<PathBuf> {
    // Debian keeps some servers where only root's path looks.
    let path = format!("{}:/usr/sbin:/sbin", env("PATH").unwrap_or_default());
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

/// One call of pip.
#[derive(Debug)]
pub(crate) struct Install {
    pub(crate) args: Vec<String>,
    /// What makes the installation what it is: the pins.
    pub(crate) pins: String,
}

impl Install {
    pub(crate) fn package(requirement: &str) -> Self {
        Self {
            args: vec!["--no-deps".to_owned(), requirement.to_owned()],
            pins: requirement.to_owned(),
        }
    }

    pub(crate) fn packages(requirements: &[&str]) -> Self {
        Self {
            args: requirements.iter().map(|&r| r.to_owned()).collect(),
            pins: requirements.join("\n"),
        }
    }

    /// A requirements file, with further flags of pip.
    pub(crate) fn file(path: &Path, flags: &[&str]) -> Result<Self> {
        let mut args: Vec<_> = flags.iter().map(|&flag| flag.to_owned()).collect();
        args.extend(["-r".to_owned(), path.display().to_string()]);
        Ok(Self {
            args,
            pins: format!("{flags:?}\n{}", fs::read_to_string(path)?),
        })
    }
}

/// A virtual environment with exactly these installations, made anew when the pins or the interpreter change. Answers its
/// interpreter.
pub(crate) fn venv(dir: &Path, installs: &[Install]) -> Result<PathBuf> {
    let python = dir.join("bin/python");
    let version = output(Command::new("python3").arg("--version"))?;
    let mut hasher = Sha256::new();
    hasher.update(&version);
    for install in installs {
        hasher.update(&install.pins);
    }
    let stamp = hex(&hasher.finalize());
    let stamp_path = dir.join("kapok.stamp");
    if python.exists() && fs::read_to_string(&stamp_path).is_ok_and(|seen| seen == stamp) {
        return Ok(python);
    }
    eprintln!("making the Python environment {}", dir.display());
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(dir))?;
    for install in installs {
        // Wheels only: nothing is compiled behind the user's back.
        let pip = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary=:all:",
        ];
        run(Command::new(&python).args(pip).args(&install.args))?;
    }
    fs::write(stamp_path, stamp)?;
    Ok(python)
}
