//! A fake engine and repositories for this room's tests.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base::{Clock, Deadline, Tasks};
use parking_lot::{Condvar, Mutex};
use protocol::{ApiError, BufferPool, DataType, InferRequest, Tensor, TensorSpec};
use telemetry::metrics::Registry;

use crate::engine::{Engine, EngineError, Lane, LoadOptions, Loaded, Precision, Run, Source};
use crate::{Config, Engines, Parts, Runtime};

/// `x` FP32 [-1,2] to `y`: twice `x`, plus `offset`, after `work`. A model file holding `broken` does not load.
#[derive(Debug, Clone)]
pub(crate) struct Fake {
    pub(crate) name: &'static str,
    pub(crate) offset: f32,
    pub(crate) work: Duration,
    pub(crate) clock: Clock,
    pub(crate) gate: Arc<Gate>,
    /// Where a load waits whose model file holds `waits`.
    pub(crate) door: Arc<Gate>,
    pub(crate) loads: Arc<AtomicUsize>,
    /// Calls of one size take one time.
    pub(crate) steady: bool,
    /// Calls fail inside the engine while this is set.
    pub(crate) failing: Arc<AtomicBool>,
    /// Does not load anything.
    pub(crate) refuses: bool,
    /// In bfloat16, if it computes in that: what is added to the offset, and how long a call takes.
    pub(crate) half: Option<(f32, Duration)>,
    /// How long a call of several threads takes; as long as one of one if absent.
    pub(crate) shared_work: Option<Duration>,
    /// Fails on this first number, which a model file holding `fails on 7` sets.
    pub(crate) fails_on: Option<f32>,
}

/// Lets a test hold calls inside the engine, and counts them.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    closed: Mutex<bool>,
    moved: Condvar,
    pub(crate) runs: AtomicUsize,
    pub(crate) lanes: AtomicUsize,
    /// Runs elsewhere than on the pool's threads.
    pub(crate) outside: AtomicUsize,
}

impl Gate {
    pub(crate) fn close(&self) {
        *self.closed.lock() = true;
    }

    pub(crate) fn open(&self) {
        *self.closed.lock() = false;
        self.moved.notify_all();
    }

    pub(crate) fn pass(&self) {
        self.runs.fetch_add(1, Ordering::SeqCst);
        let pooled = std::thread::current()
            .name()
            .is_some_and(|name| name.starts_with("compute-"));
        self.outside
            .fetch_add(usize::from(!pooled), Ordering::SeqCst);
        let mut closed = self.closed.lock();
        while *closed {
            self.moved.wait(&mut closed);
        }
    }

    pub(crate) fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

impl Fake {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            offset: 0.0,
            work: Duration::ZERO,
            clock: Clock::manual(),
            gate: Arc::default(),
            door: Arc::default(),
            loads: Arc::default(),
            steady: false,
            failing: Arc::default(),
            refuses: false,
            half: None,
            shared_work: None,
            fails_on: None,
        }
    }

    /// `plus 3` and `fails on 7` in a model's file.
    fn told(&self, content: &str) -> Self {
        let number = |prefix: &str| content.strip_prefix(prefix)?.trim().parse::<f32>().ok();
        Self {
            offset: number("plus ").unwrap_or(self.offset),
            fails_on: number("fails on "),
            ..self.clone()
        }
    }

    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        Arc::new(self.clone())
    }
}

impl Engine for Fake {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> String {
        "1".to_owned()
    }

    fn accepts(&self, source: &Source) -> bool {
        source.backend == "onnxruntime"
    }

    fn precisions(&self) -> &[Precision] {
        match self.half {
            Some(_) => &[Precision::Fp32, Precision::Bf16],
            None => &[Precision::Fp32],
        }
    }

    fn load(&self, source: &Source, options: LoadOptions) -> Result<Arc<dyn Loaded>, EngineError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let mut fake = self.clone();
        if let (Some((offset, work)), Precision::Bf16) = (self.half, options.precision) {
            fake.offset += offset;
            fake.work = work;
        }
        if options.threads > 1 {
            fake.work = self.shared_work.unwrap_or(fake.work);
        }
        match fs::read_to_string(&source.path).expect("readable").as_str() {
            content if self.refuses || content == "broken" => Err(EngineError::Unsupported {
                engine: self.name,
                reason: "the file is broken".to_owned(),
            }),
            "panics" => panic!("while loading"),
            content => {
                if content == "waits" {
                    self.door.pass();
                }
                Ok(Arc::new(FakeModel {
                    fake: fake.told(content),
                    panics: content == "panics later",
                    inputs: vec![TensorSpec::new("x", DataType::Fp32, vec![-1, 2])],
                    outputs: vec![TensorSpec::new("y", DataType::Fp32, vec![-1, 2])],
                }))
            }
        }
    }
}

#[derive(Debug)]
struct FakeModel {
    fake: Fake,
    /// When asked for a lane.
    panics: bool,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

impl Loaded for FakeModel {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        assert!(!self.panics, "no lane");
        self.fake.gate.lanes.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(FakeLane(self.fake.clone())))
    }

    fn steady(&self) -> bool {
        self.fake.steady
    }
}

#[derive(Debug)]
struct FakeLane(Fake);

impl Lane for FakeLane {
    fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        let inputs = call.inputs;
        self.0.gate.pass();
        if self.0.failing.load(Ordering::SeqCst) {
            return Err(EngineError::Failed {
                engine: self.0.name,
                reason: "no such kernel".to_owned(),
            });
        }
        self.0.clock.advance(self.0.work);
        let x: &[f32] = inputs[0].elements().expect("aligned");
        if let (Some(first), Some(number)) = (x.first(), self.0.fails_on)
            && (first - number).abs() < 0.5
        {
            return Err(EngineError::failed(self.0.name, "it does not like 7"));
        }
        // A number no test sends by chance.
        assert!(x.first() != Some(&PANIC), "asked to panic");
        let y: Vec<f32> = x.iter().map(|x| x * 2.0 + self.0.offset).collect();
        let shape = inputs[0].shape.clone();
        let output = Tensor::from_elements("y", DataType::Fp32, shape, y);
        Ok(vec![output.expect("as large as the input")])
    }
}

/// The input that makes the fake engine panic.
pub(crate) const PANIC: f32 = -666.0;

/// Files under a temporary folder.
pub(crate) fn repository(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a temporary folder");
    for (path, content) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("creates");
        fs::write(path, content).expect("writes");
    }
    root
}

/// `config.pbtxt` of a built-in backend on INT32 [-1].
pub(crate) fn builtin(backend: &str, more: &str) -> String {
    format!(
        r#"backend: "{backend}"
        input {{ name: "in" data_type: TYPE_INT32 dims: -1 }}
        output {{ name: "out" data_type: TYPE_INT32 dims: -1 }}
        {more}"#
    )
}

/// A configuration with two cores and short queues.
pub(crate) fn config(repositories: &[&Path]) -> Config {
    Config {
        repositories: repositories.iter().map(|path| path.to_path_buf()).collect(),
        queue_max: 2,
        response_cache_bytes: 1 << 20,
        cores: 2,
        settle: Duration::from_millis(20),
        ..Config::default()
    }
}

/// Starts a runtime with the built-ins and these engines, and waits until all is loaded.
pub(crate) async fn start(
    config: Config,
    engines: impl IntoIterator<Item = Arc<dyn Engine>>,
) -> (Runtime, Registry) {
    let (runtime, registry) = begin(config, engines);
    runtime.loaded().await;
    (runtime, registry)
}

/// As [`start`], while it loads.
pub(crate) fn begin(
    config: Config,
    engines: impl IntoIterator<Item = Arc<dyn Engine>>,
) -> (Runtime, Registry) {
    let registry = Registry::new();
    let engines: Vec<_> = engines.into_iter().collect();
    let parts = Parts {
        config,
        engines: Engines::new(move || engines),
        clock: Clock::real(),
        tasks: Tasks::new(),
        registry: registry.clone(),
        buffers: BufferPool::default(),
        give_back: || {},
    };
    let runtime = Runtime::start(parts).expect("starts");
    (runtime, registry)
}

/// A deadline that no test reaches.
pub(crate) fn far() -> Deadline {
    Deadline::after(Clock::real().now(), Duration::from_secs(60))
}

/// A request with one FP32 row.
pub(crate) fn floats(model: &str, row: [f32; 2]) -> InferRequest {
    let x = Tensor::from_elements("x", DataType::Fp32, vec![1, 2], row.to_vec());
    InferRequest {
        model: model.to_owned(),
        inputs: vec![x.expect("two elements")],
        ..InferRequest::default()
    }
}

/// A request for a built-in model.
pub(crate) fn ints(model: &str, values: &[i32]) -> InferRequest {
    let data = values.to_vec();
    let input = Tensor::from_elements("in", DataType::Int32, vec![data.len()], data);
    InferRequest {
        model: model.to_owned(),
        inputs: vec![input.expect("as many elements")],
        ..InferRequest::default()
    }
}

/// Waits for something that another thread or task brings about.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = far();
    while !condition() {
        assert!(!deadline.passed(Clock::real().now()), "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A model that answers as often as it is asked to.
pub(crate) const REPEAT: &str = r#"backend: "repeat"
    model_transaction_policy { decoupled: true }
    input [{ name: "IN" data_type: TYPE_INT32 dims: -1 }, { name: "DELAY" data_type: TYPE_UINT32 dims: -1 },
        { name: "WAIT" data_type: TYPE_UINT32 dims: 1 }]
    output [{ name: "OUT" data_type: TYPE_INT32 dims: 1 }, { name: "IDX" data_type: TYPE_UINT32 dims: 1 }]
    instance_group { count: 1 kind: KIND_CPU }"#;

/// Asks `REPEAT`, or what takes the same, for these answers.
pub(crate) fn repeat(model: &str, values: &[i32], delays_ms: &[u32]) -> InferRequest {
    let uints = |name, values: &[u32]| {
        Tensor::from_elements(name, DataType::Uint32, vec![values.len()], values.to_vec())
            .expect("as many elements")
    };
    let values = Tensor::from_elements("IN", DataType::Int32, vec![values.len()], values.to_vec());
    InferRequest {
        model: model.to_owned(),
        inputs: vec![
            values.expect("as many elements"),
            uints("DELAY", delays_ms),
            uints("WAIT", &[0]),
        ],
        ..InferRequest::default()
    }
}

/// OUT of every answer, until the end or the error.
pub(crate) async fn outs(runtime: &Runtime, request: InferRequest) -> (Vec<i32>, Option<ApiError>) {
    let (mut outs, id) = (Vec::new(), request.id.clone());
    let mut stream = match runtime.stream(request, far()).await {
        Ok(stream) => stream,
        Err(error) => return (outs, Some(error)),
    };
    loop {
        match stream.next().await {
            Ok(Some(answer)) => {
                assert!(!answer.last && answer.response.id == id);
                let mut outputs = answer.response.outputs.iter();
                let out = outputs.find(|output| output.name == "OUT");
                let out = out.expect("asked for").elements::<i32>();
                outs.extend_from_slice(out.expect("INT32"));
            }
            Ok(None) => return (outs, None),
            Err(error) => return (outs, Some(error)),
        }
    }
}
