use protocol::TensorSpec;
use protocol::oip::proto::{ModelConfig, ModelInstanceGroup};
use protocol::sidecar::{Memory, Sidecar};
use runtime::engine::Lane;
use telemetry::metrics::Registry;

use super::*;
use crate::probe::Recording;

#[derive(Debug)]
struct Any;

impl Engine for Any {
    fn name(&self) -> &'static str {
        "any"
    }

    fn version(&self) -> String {
        "1".to_owned()
    }

    fn accepts(&self, _: &Source) -> bool {
        true
    }

    fn load(&self, _: &Source, _: LoadOptions) -> Result<Arc<dyn Loaded>, EngineError> {
        Ok(Arc::new(Any))
    }
}

impl Loaded for Any {
    fn inputs(&self) -> &[TensorSpec] {
        &[]
    }

    fn outputs(&self) -> &[TensorSpec] {
        &[]
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        Err(EngineError::Stopped)
    }
}

fn source(kind: Kind, gpus: &[i32], device_mb: Option<u64>) -> Source {
    let group = ModelInstanceGroup {
        kind: kind.into(),
        gpus: gpus.to_vec(),
        ..ModelInstanceGroup::default()
    };
    Source {
        model: "m".to_owned(),
        config: Arc::new(ModelConfig {
            instance_group: vec![group],
            ..ModelConfig::default()
        }),
        sidecar: Arc::new(Sidecar {
            memory: Memory {
                device_mb,
                ..Memory::default()
            },
            ..Sidecar::default()
        }),
        ..Source::default()
    }
}

/// Device 0 is divided, its first partition has 4,864 MiB; device 1 is whole, with 22,080 MiB free.
#[test]
fn memory_is_promised_on_the_devices_asked_for_until_the_model_leaves() {
    let recording = Recording::from_json(include_str!("../../recordings/a100-mig.json"));
    let probe = Box::new(recording.expect("legal"));
    let monitor = Monitor::start(Some(probe), &Registry::new()).expect("starts");
    let budget = Budget::default();
    let engine = Budgeted::new(Arc::new(Any), monitor, budget.clone());
    let load = |source: &Source| engine.load(source, LoadOptions::default());
    let (part, whole) = (
        "MIG-aaaaaaaa-0000-0000-0000-000000000001",
        "GPU-66666666-7777-8888-9999-000000000000",
    );
    let on_cpu = load(&source(Kind::Cpu, &[], Some(1 << 40))).expect("needs no device");
    assert_eq!(budget.promised(part), 0);
    let both = load(&source(Kind::Gpu, &[0, 1], Some(4096))).expect("fits");
    assert_eq!(budget.promised(part), 4096 << 20);
    assert_eq!(budget.promised(whole), 4096 << 20);
    // No group names a device, nothing says how much: the first device, and the least that CUDA takes.
    let small = load(&source(Kind::Gpu, &[], None)).expect("fits");
    assert_eq!(budget.promised(part), (4096 + 512) << 20);
    for (gpus, expected) in [
        (&[0][..], "needs 1024 MiB of device `MIG-aaaaaaaa"),
        (&[7], "there is no device `7`"),
    ] {
        let refused = load(&source(Kind::Gpu, gpus, Some(1024)));
        let refused = refused.expect_err("no room").to_string();
        assert!(refused.contains(expected), "{refused}");
    }
    drop((on_cpu, both, small));
    assert_eq!((budget.promised(part), budget.promised(whole)), (0, 0));
}
