//! What tests and benchmarks need besides cargo: Debian packages and Python environments.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::catalogue::Entry;
use crate::fetch::{hex, sha256_of, write_text};
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

/// A file of a Debian package: brought and unpacked without being root, for a package that only one program of ours needs.
pub(crate) struct DebianFile {
    pub(crate) package: &'static str,
    /// Inside the package.
    pub(crate) member: &'static str,
    pub(crate) sha256: &'static str,
}

impl DebianFile {
    /// Puts it at `to`, unless it is there.
    pub(crate) fn place(&self, to: &Path) -> Result<()> {
        if to.exists() && sha256_of(to)? == self.sha256 {
            return Ok(());
        }
        let scratch = to.with_extension("debian");
        fs::create_dir_all(&scratch)?;
        let apt = |args: &[&str]| {
            run(Command::new("apt-get")
                .arg("-qq")
                .args(args)
                .current_dir(&scratch))
        };
        // A container often starts without the list of packages.
        if apt(&["download", self.package]).is_err() {
            apt(&["update"])?;
            apt(&["download", self.package])?;
        }
        let package = fs::read_dir(&scratch)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|end| end == "deb"))
            .with_context(|| format!("apt-get brought no package `{}`", self.package))?;
        let unpacked = scratch.join("unpacked");
        run(Command::new("dpkg-deb")
            .arg("-x")
            .arg(&package)
            .arg(&unpacked))?;
        let member = unpacked.join(self.member);
        let found = sha256_of(&member)?;
        if found != self.sha256 {
            bail!(
                "`{}` of {} has SHA-256 {found}, not {}",
                self.member,
                package.display(),
                self.sha256
            );
        }
        fs::rename(&member, to)?;
        fs::remove_dir_all(&scratch)?;
        Ok(())
    }
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
    /// One package from the catalogue: pip refuses what has another checksum. Writes the requirements to `file`.
    pub(crate) fn verified(entry: &Entry, file: &Path) -> Result<Self> {
        let requirement = entry.pip.as_ref();
        let requirement = requirement.with_context(|| format!("`{}` has no `pip`", entry.name))?;
        let hashes = entry.wheels.iter();
        let hashes = hashes.map(|wheel| format!(" --hash=sha256:{}", wheel.sha256));
        let text = format!("{requirement}{}\n", hashes.collect::<String>());
        write_text(file, &text)?;
        Self::file(file, &["--require-hashes", "--no-deps"])
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;

    #[test]
    fn the_language_models_server_is_installed_by_checksum_only() {
        let catalogue = Catalogue::read(&crate::workspace::root()).unwrap();
        let entry = catalogue.entry("xllamacpp").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("xllamacpp.txt");
        let install = Install::verified(entry, &file).unwrap();
        assert!(install.args.iter().any(|arg| arg == "--require-hashes"));
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("xllamacpp=="), "{text}");
        assert_eq!(text.matches("--hash=sha256:").count(), entry.wheels.len());
        assert!(
            install.pins.contains(&text),
            "a new checksum makes a new environment"
        );
    }
}
