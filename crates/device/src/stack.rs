//! Whether driver, CUDA and ONNX Runtime fit together: data in, a verdict in words out.

use crate::reading::Reading;

/// What was found of everything between a model and a GPU.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stack {
    /// None without a driver that answers.
    pub reading: Option<Reading>,
    /// ONNX Runtime's version, if there is one.
    pub onnx_runtime: Option<String>,
    /// The providers that the library offers, under its names, such as `CUDAExecutionProvider`.
    pub providers: Vec<String>,
    /// Files beside or known to the loader: `libcudart.so.12`, `libcudnn.so.9`, `libnvinfer.so.10`.
    pub libraries: Vec<String>,
}

/// One thing that is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    pub problem: String,
    pub fix: String,
}

const CUDA: &str = "CUDAExecutionProvider";
const TENSORRT: &str = "TensorrtExecutionProvider";

/// The oldest Linux driver for each CUDA major version, from NVIDIA's table of minor version compatibility.
const DRIVERS: [(u32, &str, u32); 3] = [
    (11, "450.80.02", 450),
    (12, "525.60.13", 525),
    (13, "580.65.06", 580),
];

/// Everything that keeps models from the GPUs that are there; empty when nothing does, or when there is no GPU.
pub fn misfits(stack: &Stack) -> Vec<Misfit> {
    let Some(reading) = stack
        .reading
        .as_ref()
        .filter(|reading| !reading.gpus.is_empty())
    else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut misfit = |problem: String, fix: &str| {
        let fix = fix.to_owned();
        found.push(Misfit { problem, fix });
    };
    let Some(version) = &stack.onnx_runtime else {
        misfit(
            "there is no ONNX Runtime, and no other engine here uses a GPU".to_owned(),
            "install a GPU build (PyPI onnxruntime-gpu) and set ORT_DYLIB_PATH to its library",
        );
        return found;
    };
    if !stack.providers.iter().any(|name| name == CUDA) {
        misfit(
            format!("ONNX Runtime {version} is a build without CUDA"),
            "use the library of PyPI onnxruntime-gpu: ORT_DYLIB_PATH",
        );
        return found;
    }
    let runtime = major(&stack.libraries, "libcudart.so.");
    match runtime {
        None => misfit(
            "libcudart is not found".to_owned(),
            "install the CUDA runtime that ONNX Runtime was built for (12 for most builds)",
        ),
        Some(runtime) => {
            if let Some(problem) = driver_too_old(reading, runtime) {
                misfit(
                    problem,
                    "update the driver, or use libraries for an older CUDA",
                );
            }
        }
    }
    if major(&stack.libraries, "libcudnn.so.").is_none() {
        misfit(
            "libcudnn is not found".to_owned(),
            "install cuDNN 9, which the CUDA provider needs",
        );
    }
    let tensorrt = stack.providers.iter().any(|name| name == TENSORRT);
    if tensorrt && major(&stack.libraries, "libnvinfer.so.").is_none() {
        misfit(
            "libnvinfer is not found, so the TensorRT provider cannot load".to_owned(),
            "install TensorRT 10, or leave the provider out",
        );
    }
    found
}

fn driver_too_old(reading: &Reading, runtime: u32) -> Option<String> {
    let (_, needed, branch) = DRIVERS.iter().find(|(cuda, ..)| *cuda == runtime)?;
    let has: u32 = reading.driver.split('.').next()?.parse().ok()?;
    (has < *branch).then(|| {
        format!(
            "CUDA {runtime} needs driver {needed} or newer, here is {}",
            reading.driver
        )
    })
}

/// The major version behind a library's name, the highest of several.
fn major(libraries: &[String], prefix: &str) -> Option<u32> {
    let versions = libraries.iter().filter_map(|name| {
        let rest = name.strip_prefix(prefix)?;
        rest.split('.').next()?.parse().ok()
    });
    versions.max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Gpu;

    fn stack(driver: &str, providers: &[&str], libraries: &[&str]) -> Stack {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Stack {
            reading: Some(Reading {
                driver: driver.to_owned(),
                cuda: Some((12, 4)),
                gpus: vec![Gpu::default()],
            }),
            onnx_runtime: Some("1.31.1".to_owned()),
            providers: owned(providers),
            libraries: owned(libraries),
        }
    }

    #[test]
    fn each_lack_is_named() {
        let whole = ["libcudart.so.12", "libcudnn.so.9"];
        let both = [TENSORRT, CUDA];
        for (stack, expected) in [
            (stack("550.54.15", &[CUDA], &whole), &[][..]),
            (
                stack("550.54.15", &["CPUExecutionProvider"], &whole),
                &["without CUDA"],
            ),
            (stack("470.1", &[CUDA], &whole), &["needs driver 525.60.13"]),
            (
                stack(
                    "550.54.15",
                    &[CUDA],
                    &["libcudart.so.13.0", "libcudnn.so.9"],
                ),
                &["needs driver 580.65.06"],
            ),
            (stack("550.54.15", &[CUDA], &[]), &["libcudart", "libcudnn"]),
            (stack("550.54.15", &both, &whole), &["libnvinfer"]),
            (
                Stack {
                    onnx_runtime: None,
                    ..stack("550", &[], &[])
                },
                &["no ONNX Runtime"],
            ),
            (Stack::default(), &[]),
        ] {
            let found = misfits(&stack);
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (misfit, part) in found.iter().zip(expected) {
                assert!(misfit.problem.contains(part), "{misfit:?}");
                assert!(!misfit.fix.is_empty());
            }
        }
    }
}
