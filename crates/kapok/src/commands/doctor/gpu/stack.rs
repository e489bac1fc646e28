//! GPUs that answer: what they are, and whether driver, CUDA, providers and ONNX Runtime fit.

use std::fs;
use std::path::{Path, PathBuf};

use device::stack::{Stack, misfits};
use device::{Gpu, Memory, Reading};
use onnx::OrtEngine;
use runtime::engine::Engine as _;

use super::super::{Check, Verdict};
use super::{LIBRARY_FOLDERS, names};
use crate::config::Environment;
use crate::up::engine_search;

/// What the providers of ONNX Runtime load.
const PREFIXES: [&str; 3] = ["libcudart.so.", "libcudnn.so.", "libnvinfer.so."];

/// Where CUDA's installer puts libraries.
const CUDA_FOLDERS: [&str; 3] = [
    "/usr/local/cuda/lib64",
    "/usr/local/cuda/targets/x86_64-linux/lib",
    "/usr/local/cuda/targets/sbsa-linux/lib",
];

pub(super) fn found(environment: &Environment, reading: Reading) -> Stack {
    let engine = OrtEngine::find(&engine_search(environment)).ok();
    let mut folders = environment.libraries.clone();
    let beside = engine.as_ref().and_then(|engine| engine.library().parent());
    folders.extend(beside.into_iter().flat_map(beside_the_library));
    folders.extend(
        LIBRARY_FOLDERS
            .iter()
            .chain(&CUDA_FOLDERS)
            .map(PathBuf::from),
    );
    folders.extend(loader_folders(Path::new("/etc/ld.so.conf.d")));
    let providers = engine.iter().flat_map(OrtEngine::providers);
    Stack {
        reading: Some(reading),
        onnx_runtime: engine.as_ref().map(|engine| engine.version()),
        providers: providers.map(str::to_owned).collect(),
        libraries: libraries(&folders),
    }
}

/// The folder itself, and where Python's packages put NVIDIA's libraries: ONNX Runtime is in
/// `site-packages/onnxruntime/capi`, cuDNN in `site-packages/nvidia/cudnn/lib`.
fn beside_the_library(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    if let Some(packages) = folder.ancestors().nth(2) {
        let nvidia = packages.join("nvidia");
        folders.extend(names(&nvidia).map(|package| nvidia.join(package).join("lib")));
        folders.push(packages.join("tensorrt_libs"));
    }
    folders
}

/// The folders that the loader's configuration names, one a line.
fn loader_folders(configuration: &Path) -> Vec<PathBuf> {
    names(configuration)
        .filter_map(|name| fs::read_to_string(configuration.join(name)).ok())
        .flat_map(|text| {
            let folders = text.lines().map(str::trim);
            let folders = folders.filter(|line| line.starts_with('/'));
            folders.map(PathBuf::from).collect::<Vec<_>>()
        })
        .collect()
}

fn libraries(folders: &[PathBuf]) -> Vec<String> {
    let mut found: Vec<_> = folders
        .iter()
        .flat_map(|folder| names(folder))
        .filter(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// A line for each device, one for the driver, one for the rest or for each thing that does not fit.
pub(super) fn checks(stack: &Stack) -> Vec<Check> {
    let Some(reading) = &stack.reading else {
        return Vec::new();
    };
    let cuda = reading.cuda.map_or_else(
        || "CUDA unknown".to_owned(),
        |(major, minor)| format!("CUDA up to {major}.{minor}"),
    );
    let driver = format!("{}, {cuda}", reading.driver);
    let mut checks: Vec<_> = reading
        .gpus
        .iter()
        .map(|gpu| Check::new("GPU", Verdict::Ok, described(gpu)))
        .collect();
    checks.push(Check::new("GPU driver", Verdict::Ok, driver));
    if reading.gpus.is_empty() {
        checks.push(
            Check::new("GPU", Verdict::Warn, "the driver has no device")
                .fix("in a container, start it with --gpus all; on a host, see nvidia-smi"),
        );
        return checks;
    }
    let wrong = misfits(stack);
    if wrong.is_empty() {
        checks.push(Check::new("GPU libraries", Verdict::Ok, offered(stack)));
        return checks;
    }
    checks.extend(wrong.into_iter().map(|misfit| {
        let found = format!("{} ({})", misfit.problem, offered(stack));
        Check::new("GPU libraries", Verdict::Warn, found).fix(misfit.fix)
    }));
    checks
}

fn offered(stack: &Stack) -> String {
    let listed = |names: &[String]| match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    };
    format!(
        "ONNX Runtime {}; providers: {}; libraries: {}",
        stack.onnx_runtime.as_deref().unwrap_or("none"),
        listed(&stack.providers),
        listed(&stack.libraries)
    )
}

fn described(gpu: &Gpu) -> String {
    let mut text = format!("{}: {}, {}", gpu.index, gpu.name, free(gpu.memory));
    if let Some((major, minor)) = gpu.compute_capability {
        text.push_str(&format!(", compute capability {major}.{minor}"));
        if major < 6 {
            text.push_str(", too old for models");
        }
    }
    match gpu.partitions.as_deref() {
        None => {}
        Some([]) => text.push_str(", MIG without partitions"),
        Some(partitions) => {
            let parts = partitions.iter();
            let parts: Vec<_> = parts
                .map(|part| format!("{} ({})", part.name, free(part.memory)))
                .collect();
            text.push_str(&format!(", MIG: {}", parts.join(", ")));
        }
    }
    text
}

fn free(memory: Memory) -> String {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    format!(
        "{:.1} of {:.1} GiB free",
        gib(memory.free),
        gib(memory.total)
    )
}

#[cfg(test)]
mod tests {
    use device::{Probe as _, Recording};

    use super::*;

    fn reading() -> Reading {
        let recorded = include_str!("../../../../../device/recordings/a100-mig.json");
        let recording = Recording::from_json(recorded).expect("legal");
        recording.read().expect("one reading")
    }

    #[test]
    fn devices_driver_and_each_misfit_have_a_line() {
        let mut stack = Stack {
            reading: Some(reading()),
            onnx_runtime: Some("1.31.1".to_owned()),
            providers: vec!["CUDAExecutionProvider".to_owned()],
            libraries: vec!["libcudart.so.12".to_owned()],
        };
        let lines = |stack: &Stack| {
            let checks = checks(stack).into_iter();
            let line =
                |check: Check| format!("{:?} {}: {}", check.verdict, check.what, check.found);
            checks.map(line).collect::<Vec<_>>()
        };
        let devices = [
            "Ok GPU: 0: NVIDIA A100-SXM4-40GB, 38.0 of 40.0 GiB free, compute capability 8.0, MIG: NVIDIA A100-SXM4-40GB \
             MIG 1g.5gb (4.8 of 4.8 GiB free), NVIDIA A100-SXM4-40GB MIG 2g.10gb (8.8 of 9.8 GiB free)",
            "Ok GPU: 1: NVIDIA L4, 21.6 of 22.5 GiB free, compute capability 8.9",
            "Ok GPU driver: 550.54.15, CUDA up to 12.4",
        ];
        let short = lines(&stack);
        assert_eq!(short[..3], devices);
        assert_eq!(
            short[3..],
            [
                "Warn GPU libraries: libcudnn is not found (ONNX Runtime 1.31.1; providers: CUDAExecutionProvider; libraries: \
              libcudart.so.12)"
            ]
        );
        stack.libraries.push("libcudnn.so.9".to_owned());
        assert_eq!(
            lines(&stack)[3..],
            [
                "Ok GPU libraries: ONNX Runtime 1.31.1; providers: CUDAExecutionProvider; libraries: libcudart.so.12, \
              libcudnn.so.9"
            ]
        );
        for check in checks(&stack) {
            assert_eq!(check.fix.is_empty(), check.verdict == Verdict::Ok);
        }
    }

    #[test]
    fn libraries_are_found_where_packages_and_the_loader_put_them() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            fs::write(path, text).expect("a file");
        };
        write("packages/onnxruntime/capi/libonnxruntime.so.1.31.1", "");
        write("packages/nvidia/cudnn/lib/libcudnn.so.9", "");
        write("cuda/libcudart.so.12", "");
        let cuda = root.path().join("cuda");
        write("conf/cuda.conf", &format!("# CUDA\n{}\n", cuda.display()));
        let mut folders = beside_the_library(&root.path().join("packages/onnxruntime/capi"));
        folders.extend(loader_folders(&root.path().join("conf")));
        assert_eq!(libraries(&folders), ["libcudart.so.12", "libcudnn.so.9"]);
    }
}
