//! NVIDIA driver, devices and what lies between them and a model: by their files, then by asking.

mod stack;

use std::fs;
use std::path::{Path, PathBuf};

use device::{Nvml, Probe as _, Reading};

use super::{Check, Verdict};
use crate::config::Environment;

const LIBRARY_FOLDERS: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/nvidia/lib64",
    "/run/nvidia/driver/usr/lib/x86_64-linux-gnu",
];

/// What there is to say, and what the devices said.
pub(super) fn checks(environment: &Environment) -> (Vec<Check>, Option<Reading>) {
    let found = look(Path::new("/"));
    let judged = judge(&found);
    // Half a driver does not answer, and its files say why.
    if judged.verdict != Verdict::Ok {
        return (vec![judged], None);
    }
    match Nvml::find(None).and_then(|nvml| nvml.read()) {
        Ok(reading) => {
            let stack = stack::found(environment, reading.clone());
            (stack::checks(&stack), Some(reading))
        }
        Err(error) => {
            let reason = format!("{}; {}", judged.found, base::chain(&error));
            let check = Check::new("GPU", Verdict::Warn, reason).fix(
                "the driver's files are there and it does not answer: run nvidia-smi, which says more; after an update of \
                 the driver, restart",
            );
            (vec![check], None)
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    driver: Option<String>,
    devices: usize,
    nvml: Option<PathBuf>,
}

fn look(root: &Path) -> Found {
    let under = |path: &str| root.join(path.trim_start_matches('/'));
    Found {
        driver: fs::read_to_string(under("/proc/driver/nvidia/version"))
            .ok()
            .and_then(|text| driver_version(&text)),
        devices: names(&under("/dev"))
            .filter(|name| {
                name.strip_prefix("nvidia").is_some_and(|number| {
                    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
                })
            })
            .count(),
        nvml: LIBRARY_FOLDERS.iter().find_map(|folder| {
            names(&under(folder))
                .find(|name| name.starts_with("libnvidia-ml.so"))
                .map(|name| Path::new(folder).join(name))
        }),
    }
}

fn names(folder: &Path) -> impl Iterator<Item = String> + use<> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// The number in `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 …`.
fn driver_version(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version"))?;
    line.split_whitespace()
        .find(|word| {
            word.contains('.')
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || byte == b'.')
        })
        .map(str::to_owned)
}

fn judge(found: &Found) -> Check {
    match (&found.driver, found.devices, &found.nvml) {
        (Some(driver), devices @ 1.., Some(nvml)) => Check::new(
            "GPU",
            Verdict::Ok,
            format!("{devices} NVIDIA device(s), driver {driver}, {}", nvml.display()),
        ),
        (None, 0, None) => Check::new("GPU", Verdict::Missing, "no NVIDIA device, driver or library")
            .fix("models in this process run on the CPU; send GPU models to an upstream such as vLLM or Triton"),
        (driver, devices, nvml) => {
            let part = |there: bool, name: &str| format!("{name} {}", if there { "yes" } else { "no" });
            let found = [
                part(driver.is_some(), "driver"),
                part(devices > 0, "device"),
                part(nvml.is_some(), "libnvidia-ml.so"),
            ];
            Check::new("GPU", Verdict::Warn, found.join(", ")).fix(
                "in a container, start it with --gpus all (and NVIDIA_DRIVER_CAPABILITIES=compute,utility); on a host, \
                 reinstall the driver",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_told_from_half_a_gpu_and_none() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            fs::write(path, text).expect("a file");
        };
        assert_eq!(judge(&look(root.path())).verdict, Verdict::Missing);
        write(
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\nGCC version:\n",
        );
        write("dev/nvidiactl", "");
        assert_eq!(judge(&look(root.path())).verdict, Verdict::Warn);
        write("dev/nvidia0", "");
        write("usr/lib64/libnvidia-ml.so.1", "");
        let check = judge(&look(root.path()));
        assert_eq!(check.verdict, Verdict::Ok);
        assert_eq!(
            check.found,
            "1 NVIDIA device(s), driver 550.54.15, /usr/lib64/libnvidia-ml.so.1"
        );
    }
}
