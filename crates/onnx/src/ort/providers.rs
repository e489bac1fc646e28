//! Which of ONNX Runtime's providers a configuration asks for, and whether the library has them.
//!
//! A graphics processor is asked for with `KIND_GPU` in `instance_group`, TensorRT on it and OpenVINO on the CPU with
//! `optimization.execution_accelerators`, all as Triton has it; without `KIND_GPU` accelerators of a GPU mean nothing.

use std::collections::BTreeMap;

use ort::ep::{
    ArbitrarilyConfigurableExecutionProvider as _, CUDA, ExecutionProvider as _,
    ExecutionProviderDispatch, OpenVINO, TensorRT,
};
use protocol::oip::proto::ModelConfig;
use protocol::oip::proto::model_instance_group::Kind;
use protocol::oip::proto::model_optimization_policy::execution_accelerators::Accelerator;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    TensorRt,
    Cuda,
    OpenVino,
}

/// A provider with its options, in ONNX Runtime's own names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Provider {
    pub(super) kind: Name,
    pub(super) options: BTreeMap<String, String>,
}

/// What a library was built with; a fake in tests.
pub(super) trait Offers {
    fn has(&self, kind: Name) -> bool;
}

/// The library that this process has loaded.
#[derive(Debug)]
pub(super) struct Loaded;

impl Offers for Loaded {
    fn has(&self, kind: Name) -> bool {
        let answer = match kind {
            Name::TensorRt => TensorRT::is_available(),
            Name::Cuda => CUDA::is_available(),
            Name::OpenVino => OpenVINO::is_available(),
        };
        answer.unwrap_or(false)
    }
}

impl Name {
    pub(super) const ALL: [Self; 3] = [Self::TensorRt, Self::Cuda, Self::OpenVino];

    /// ONNX Runtime's own name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TensorRt => "TensorrtExecutionProvider",
            Self::Cuda => "CUDAExecutionProvider",
            Self::OpenVino => "OpenVINOExecutionProvider",
        }
    }

    fn missing(self) -> String {
        let remedy = match self {
            Self::TensorRt | Self::Cuda => {
                "point ORT_DYLIB_PATH at a build of ONNX Runtime for GPUs, with the provider's library beside it"
            }
            Self::OpenVino => {
                "use `engine = \"openvino\"` in kapok.toml, or such a build of ONNX Runtime"
            }
        };
        format!(
            "this library of ONNX Runtime has no {}: {remedy}",
            self.name()
        )
    }
}

impl Provider {
    pub(super) fn dispatch(&self) -> ExecutionProviderDispatch {
        macro_rules! with_options {
            ($provider:expr) => {
                self.options
                    .iter()
                    .fold($provider, |provider, (key, value)| {
                        provider.with_arbitrary_config(key, value)
                    })
                    .build()
            };
        }
        let dispatch = match self.kind {
            Name::TensorRt => with_options!(TensorRT::default()),
            Name::Cuda => with_options!(CUDA::default()),
            Name::OpenVino => with_options!(OpenVINO::default()),
        };
        dispatch.error_on_failure()
    }
}

/// The providers to register, first choice first; none is the CPU's own. The error names what is missing.
pub(super) fn wanted(config: &ModelConfig, offers: &impl Offers) -> Result<Vec<Provider>, String> {
    let accelerators = config
        .optimization
        .as_ref()
        .and_then(|all| all.execution_accelerators.as_ref());
    let gpu = config
        .instance_group
        .iter()
        .find(|group| group.kind() == Kind::Gpu);
    let mut wanted = Vec::new();
    if let Some(group) = gpu {
        let named = accelerators.map_or(&[][..], |all| &all.gpu_execution_accelerator);
        let mut cuda = BTreeMap::new();
        if let Some(device) = group.gpus.first() {
            cuda.insert("device_id".to_owned(), device.to_string());
        }
        for accelerator in named {
            match accelerator.name.as_str() {
                "tensorrt" => wanted.push(tensorrt(accelerator, &cuda)?),
                "cuda" => cuda.extend(accelerator.parameters.clone()),
                other => return Err(unknown(other, "gpu")),
            }
        }
        wanted.push(Provider {
            kind: Name::Cuda,
            options: cuda,
        });
    } else {
        let named = accelerators.map_or(&[][..], |all| &all.cpu_execution_accelerator);
        for accelerator in named {
            if accelerator.name != "openvino" {
                return Err(unknown(&accelerator.name, "cpu"));
            }
            let options = accelerator.parameters.clone().into_iter().collect();
            wanted.push(Provider {
                kind: Name::OpenVino,
                options,
            });
        }
    }
    match wanted.iter().find(|provider| !offers.has(provider.kind)) {
        Some(provider) => Err(provider.kind.missing()),
        None => Ok(wanted),
    }
}

/// Triton's names for some options are not ONNX Runtime's.
fn tensorrt(
    accelerator: &Accelerator,
    device: &BTreeMap<String, String>,
) -> Result<Provider, String> {
    let mut options = device.clone();
    for (key, value) in &accelerator.parameters {
        let (key, value) = match (key.as_str(), value.as_str()) {
            ("precision_mode", "FP32") => continue,
            ("precision_mode", "FP16") => ("trt_fp16_enable", "1"),
            ("precision_mode", "INT8") => ("trt_int8_enable", "1"),
            ("precision_mode", other) => {
                return Err(format!(
                    "accelerator `tensorrt`: `precision_mode` is `{other}`, expected FP32, FP16 or INT8"
                ));
            }
            ("max_workspace_size_bytes", value) => ("trt_max_workspace_size", value),
            ("int8_calibration_table_name", value) => ("trt_int8_calibration_table_name", value),
            ("int8_use_native_calibration_table", value) => {
                ("trt_int8_use_native_calibration_table", value)
            }
            (key, value) => (key, value),
        };
        options.insert(key.to_owned(), value.to_owned());
    }
    Ok(Provider {
        kind: Name::TensorRt,
        options,
    })
}

fn unknown(name: &str, device: &str) -> String {
    format!(
        "`optimization.execution_accelerators.{device}_execution_accelerator`: unknown Execution Accelerator '{name}' is \
         requested"
    )
}

#[cfg(test)]
mod tests {
    use protocol::oip::proto::model_optimization_policy::ExecutionAccelerators;
    use protocol::oip::proto::{ModelInstanceGroup, ModelOptimizationPolicy};

    use super::*;

    struct Fake(&'static [Name]);

    impl Offers for Fake {
        fn has(&self, kind: Name) -> bool {
            self.0.contains(&kind)
        }
    }

    fn accelerator(name: &str, parameters: &[(&str, &str)]) -> Accelerator {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Accelerator {
            name: name.to_owned(),
            parameters: parameters.iter().map(owned).collect(),
        }
    }

    fn config(kind: Kind, gpu: Vec<Accelerator>, cpu: Vec<Accelerator>) -> ModelConfig {
        ModelConfig {
            instance_group: vec![ModelInstanceGroup {
                kind: kind.into(),
                gpus: vec![1],
                ..ModelInstanceGroup::default()
            }],
            optimization: Some(ModelOptimizationPolicy {
                execution_accelerators: Some(ExecutionAccelerators {
                    gpu_execution_accelerator: gpu,
                    cpu_execution_accelerator: cpu,
                }),
                ..ModelOptimizationPolicy::default()
            }),
            ..ModelConfig::default()
        }
    }

    #[test]
    fn tensorrt_comes_before_cuda_with_its_options_in_the_librarys_names() {
        let parameters = [
            ("precision_mode", "FP16"),
            ("max_workspace_size_bytes", "1024"),
        ];
        let asked = config(
            Kind::Gpu,
            vec![
                accelerator("tensorrt", &parameters),
                accelerator("cuda", &[("x", "y")]),
            ],
            Vec::new(),
        );
        let found = wanted(&asked, &Fake(&[Name::Cuda, Name::TensorRt])).expect("offered");
        let kinds: Vec<_> = found.iter().map(|provider| provider.kind).collect();
        assert_eq!(kinds, [Name::TensorRt, Name::Cuda]);
        let options = &found[0].options;
        assert_eq!(options["trt_fp16_enable"], "1");
        assert_eq!(options["trt_max_workspace_size"], "1024");
        assert_eq!(found[1].options["device_id"], "1");
        assert_eq!(found[1].options["x"], "y");
    }

    #[test]
    fn what_the_library_lacks_is_named() {
        let check = |config: &ModelConfig, offered, name: &str| {
            let error = wanted(config, &Fake(offered)).expect_err("not offered");
            assert!(error.contains(name), "{error}");
        };
        check(
            &config(Kind::Gpu, vec![], vec![]),
            &[],
            "CUDAExecutionProvider",
        );
        let rt = || vec![accelerator("tensorrt", &[])];
        check(
            &config(Kind::Gpu, rt(), vec![]),
            &[Name::Cuda],
            "TensorrtExecutionProvider",
        );
        let ov = || vec![accelerator("openvino", &[])];
        check(
            &config(Kind::Cpu, vec![], ov()),
            &[],
            "OpenVINOExecutionProvider",
        );
        check(
            &config(Kind::Gpu, vec![accelerator("magic", &[])], vec![]),
            &[Name::Cuda],
            "'magic'",
        );
    }

    #[test]
    fn without_a_gpu_its_accelerators_mean_nothing() {
        let rt = vec![accelerator("tensorrt", &[])];
        assert_eq!(
            wanted(&config(Kind::Cpu, rt, vec![]), &Fake(&[])),
            Ok(Vec::new())
        );
        assert_eq!(wanted(&ModelConfig::default(), &Fake(&[])), Ok(Vec::new()));
    }
}
