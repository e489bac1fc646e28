//! Both engines on tiny models made here: rten always, ONNX Runtime where its library is found.

mod build;
mod concurrent;
mod files;
mod memory;
mod operators;
mod stop;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use half::{bf16, f16};
use prost::Message;
use protocol::tensor::encode_bytes_elements;
use protocol::{BufferPool, DataType, Tensor, TensorSpec};
use runtime::engine::{Engine, EngineError, Lane, LoadOptions, Loaded, Source};

use self::build::{Model, model, node, tensor};
use crate::proto::element;
use crate::{OpenVinoEngine, OrtEngine, Processor, RtenEngine, Search};

fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Where `cargo xtask fetch` puts libraries and models.
fn cache() -> Option<PathBuf> {
    let usual = || {
        let caches = variable("XDG_CACHE_HOME").map(PathBuf::from);
        let caches = caches.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")));
        Some(caches?.join("kapok"))
    };
    variable("KAPOK_TEST_CACHE")
        .map(PathBuf::from)
        .or_else(usual)
}

/// What is not there is a failure if the variable is 1 (continuous integration), and passed over otherwise.
fn missing(required: &str, what: impl std::fmt::Display) {
    assert!(
        variable(required).is_none_or(|value| value != "1"),
        "{what}"
    );
    println!("skipped: {what}");
}

fn search() -> Search {
    Search {
        explicit: variable("ORT_DYLIB_PATH").map(PathBuf::from),
        cache: cache(),
        threads: 2,
        ..Search::default()
    }
}

pub(crate) fn ort_engine() -> Option<OrtEngine> {
    let found = OrtEngine::find(&search());
    found
        .inspect_err(|error| missing("KAPOK_REQUIRE_ORT", error))
        .ok()
}

/// The engines of this machine.
fn engines() -> Vec<Arc<dyn Engine>> {
    let mut engines: Vec<Arc<dyn Engine>> = vec![Arc::new(RtenEngine::default())];
    engines.extend(ort_engine().map(|engine| Arc::new(engine) as Arc<dyn Engine>));
    let search = Search {
        explicit: variable("OPENVINO_DYLIB_PATH").map(PathBuf::from),
        ..search()
    };
    match OpenVinoEngine::find(&search, &Processor::here()) {
        Ok(engine) => engines.push(Arc::new(engine)),
        Err(error) => missing("KAPOK_REQUIRE_OPENVINO", error),
    }
    for engine in &engines {
        println!("ran: {} {}", engine.name(), engine.version());
    }
    engines
}

fn source(path: &Path) -> Source {
    Source {
        model: "test".to_owned(),
        path: path.to_owned(),
        backend: "onnxruntime".to_owned(),
        ..Source::default()
    }
}

/// A loaded model and the folder of its file: further lanes read the file again.
struct Held {
    loaded: Arc<dyn Loaded>,
    _folder: tempfile::TempDir,
}

fn load_with(
    engine: &dyn Engine,
    model: &Model,
    options: LoadOptions,
) -> Result<Held, EngineError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, model.encode_to_vec()).expect("a file");
    let source = source(&path);
    assert!(engine.accepts(&source));
    Ok(Held {
        loaded: engine.load(&source, options)?,
        _folder: folder,
    })
}

fn load(engine: &dyn Engine, model: &Model) -> Result<Arc<dyn Loaded>, EngineError> {
    load_with(engine, model, LoadOptions::default()).map(|held| held.loaded)
}

fn lane(engine: &dyn Engine, model: &Model) -> Box<dyn Lane> {
    load(engine, model)
        .and_then(|loaded| loaded.lane())
        .unwrap_or_else(|error| panic!("{}: {error}", engine.name()))
}

fn given(name: &str, dtype: DataType, shape: &[usize], bytes: Vec<u8>) -> Tensor {
    Tensor::new(name, dtype, shape.to_vec(), Bytes::from(bytes))
        .expect("bytes match type and shape")
        .aligned(&BufferPool::default())
}

fn floats(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
    let bytes = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    given(name, DataType::Fp32, shape, bytes)
}

fn longs(name: &str, shape: &[usize], values: &[i64]) -> Tensor {
    let bytes = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    given(name, DataType::Int64, shape, bytes)
}

/// `sum = x + w` with a dynamic batch; `w` is an initializer that old files also list as an input.
fn addition() -> Model {
    let mut model = model(
        vec![node("Add", &["x", "w"], &["sum"])],
        vec![
            tensor("x", element::FLOAT, &[-1, 3]),
            tensor("w", element::FLOAT, &[3]),
        ],
        vec![tensor("sum", element::FLOAT, &[-1, 3])],
    )
    .with_floats("w", &[3], &[10.0, 20.0, 30.0]);
    model.ir_version = 3;
    model
}

fn identity(element: i32, dims: &[i64]) -> Model {
    model(
        vec![node("Identity", &["x"], &["y"])],
        vec![tensor("x", element, dims)],
        vec![tensor("y", element, dims)],
    )
}

#[test]
fn an_initializer_listed_as_input_is_not_asked_for() {
    for engine in engines() {
        let loaded = load(&*engine, &addition()).expect("loads");
        assert_eq!(
            loaded.inputs(),
            [TensorSpec::new("x", DataType::Fp32, vec![-1, 3])]
        );
        assert_eq!(
            loaded.outputs(),
            [TensorSpec::new("sum", DataType::Fp32, vec![-1, 3])]
        );
    }
}

#[test]
fn a_dynamic_batch_is_what_the_request_says() {
    for engine in engines() {
        let mut lane = lane(&*engine, &addition());
        for batch in [1, 4, 0] {
            let values: Vec<f32> = (0..batch * 3).map(|value| value as f32).collect();
            let sums: Vec<f32> = values
                .iter()
                .zip([10.0, 20.0, 30.0].iter().cycle())
                .map(|(value, weight)| value + weight)
                .collect();
            let outputs = lane
                .once(&[floats("x", &[batch, 3], &values)], &[0])
                .expect("runs");
            assert_eq!(outputs, [floats("sum", &[batch, 3], &sums)]);
        }
    }
}

#[test]
fn matrix_products_and_gathers_agree() {
    let product = model(
        vec![
            node("MatMul", &["x", "w"], &["product"]),
            node("Gather", &["product", "rows"], &["picked"]),
        ],
        vec![
            tensor("x", element::FLOAT, &[-1, 2]),
            tensor("rows", element::INT64, &[-1]),
        ],
        vec![
            tensor("product", element::FLOAT, &[-1, 2]),
            tensor("picked", element::FLOAT, &[-1, 2]),
        ],
    )
    .with_floats("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    for engine in engines() {
        let mut lane = lane(&*engine, &product);
        let inputs = [
            floats("x", &[2, 2], &[1.0, 1.0, 2.0, 0.0]),
            longs("rows", &[3], &[1, 0, 1]),
        ];
        let picked = floats("picked", &[3, 2], &[2.0, 4.0, 4.0, 6.0, 2.0, 4.0]);
        let product = floats("product", &[2, 2], &[4.0, 6.0, 2.0, 4.0]);
        // The caller chooses outputs and their order, call by call.
        for _ in 0..2 {
            let outputs = lane.once(&inputs, &[1, 0]).expect("runs");
            assert_eq!(outputs, [picked.clone(), product.clone()]);
            assert_eq!(
                lane.once(&inputs, &[1]).expect("runs"),
                std::slice::from_ref(&picked)
            );
        }
    }
}

/// Every protocol type with its ONNX number and two elements that are not zero.
fn samples() -> Vec<(i32, DataType, Vec<u8>)> {
    let halves = [f16::from_f32(1.5), f16::from_f32(-65504.0)];
    let brains = [bf16::from_f32(1.5), bf16::from_f32(-3e38)];
    vec![
        (element::BOOL, DataType::Bool, vec![1, 0]),
        (element::UINT8, DataType::Uint8, vec![1, 255]),
        (element::INT8, DataType::Int8, vec![1, 0x80]),
        (element::UINT16, DataType::Uint16, vec![1, 2, 255, 255]),
        (element::INT16, DataType::Int16, vec![1, 2, 0, 0x80]),
        (
            element::UINT32,
            DataType::Uint32,
            vec![1, 2, 3, 4, 255, 255, 255, 255],
        ),
        (
            element::INT32,
            DataType::Int32,
            vec![1, 2, 3, 4, 0, 0, 0, 0x80],
        ),
        (element::UINT64, DataType::Uint64, vec![255; 16]),
        (
            element::INT64,
            DataType::Int64,
            [-1_i64, i64::from(i32::MIN)].map(i64::to_le_bytes).concat(),
        ),
        (
            element::FLOAT16,
            DataType::Fp16,
            halves.map(f16::to_le_bytes).concat(),
        ),
        (
            element::BFLOAT16,
            DataType::Bf16,
            brains.map(bf16::to_le_bytes).concat(),
        ),
        (
            element::FLOAT,
            DataType::Fp32,
            [0.1_f32, f32::NAN].map(f32::to_le_bytes).concat(),
        ),
        (
            element::DOUBLE,
            DataType::Fp64,
            [0.1_f64, 1e300].map(f64::to_le_bytes).concat(),
        ),
        (
            element::STRING,
            DataType::Bytes,
            encode_bytes_elements(["木棉", ""]).expect("short"),
        ),
    ]
}

#[test]
fn every_type_comes_back_bit_for_bit_or_is_refused_by_name() {
    let refused = [
        DataType::Uint16,
        DataType::Int16,
        DataType::Uint32,
        DataType::Uint64,
        DataType::Bf16,
        DataType::Fp64,
        DataType::Bytes,
    ];
    for engine in engines() {
        for (element, dtype, data) in samples() {
            let loaded = load(&*engine, &identity(element, &[2]));
            if engine.name() != "onnxruntime" && refused.contains(&dtype) {
                let error = loaded.expect_err("refused").to_string();
                assert!(error.contains(&format!("input `x` is {dtype}")), "{error}");
                continue;
            }
            let mut lane = loaded.and_then(|loaded| loaded.lane()).expect("loads");
            let outputs = lane
                .once(&[given("x", dtype, &[2], data.clone())], &[0])
                .expect("runs");
            assert_eq!(
                outputs,
                [given("y", dtype, &[2], data)],
                "{}",
                engine.name()
            );
        }
    }
}

#[test]
fn scalars_and_empty_tensors_keep_their_shapes() {
    for engine in engines() {
        let kinds = samples().into_iter().filter(|(_, dtype, _)| {
            engine.name() == "onnxruntime" || matches!(dtype, DataType::Fp32 | DataType::Int64)
        });
        for (element, dtype, data) in kinds {
            let one = match dtype.size() {
                Some(size) => data[..size].to_vec(),
                None => encode_bytes_elements(["one"]).expect("short"),
            };
            for (dims, shape, data) in [(&[][..], &[][..], one), (&[-1, 3], &[0, 3], Vec::new())] {
                let mut lane = lane(&*engine, &identity(element, dims));
                let outputs = lane
                    .once(&[given("x", dtype, shape, data.clone())], &[0])
                    .expect("runs");
                assert_eq!(outputs, [given("y", dtype, shape, data)]);
            }
        }
    }
}

#[test]
fn a_cast_gives_the_declared_half_precision() {
    let cast = model(
        vec![node("Cast", &["x"], &["y"]).with_int("to", i64::from(element::FLOAT16))],
        vec![tensor("x", element::FLOAT, &[2])],
        vec![tensor("y", element::FLOAT16, &[2])],
    );
    let halves = [f16::from_f32(0.1), f16::from_f32(2.0)];
    for engine in engines() {
        let outputs = lane(&*engine, &cast)
            .once(&[floats("x", &[2], &[0.1, 2.0])], &[0])
            .expect("runs");
        let expected = halves.map(f16::to_le_bytes).concat();
        assert_eq!(outputs, [given("y", DataType::Fp16, &[2], expected)]);
    }
}

#[test]
fn outputs_outlive_the_call_its_inputs_and_the_model() {
    // One output is an input handed through, one is an initializer, one is computed.
    let model = model(
        vec![node("Add", &["x", "w"], &["sum"])],
        vec![tensor("x", element::FLOAT, &[3])],
        vec![
            tensor("x", element::FLOAT, &[3]),
            tensor("w", element::FLOAT, &[3]),
            tensor("sum", element::FLOAT, &[3]),
        ],
    )
    .with_floats("w", &[3], &[10.0, 20.0, 30.0]);
    for engine in engines() {
        let outputs = {
            let mut lane = lane(&*engine, &model);
            let input = floats("x", &[3], &[1.0, 2.0, 3.0]);
            let first = lane.once(&[input], &[0, 1, 2]).expect("runs");
            // The memory of the first call's input is free to be used again.
            lane.once(&[floats("x", &[3], &[9.0, 9.0, 9.0])], &[2])
                .expect("runs");
            first
        };
        assert_eq!(
            outputs,
            [
                floats("x", &[3], &[1.0, 2.0, 3.0]),
                floats("w", &[3], &[10.0, 20.0, 30.0]),
                floats("sum", &[3], &[11.0, 22.0, 33.0]),
            ],
            "{}",
            engine.name()
        );
    }
}

#[test]
fn lanes_run_at_the_same_time() {
    let cases = [(1, 3), (2, 1), (2, 3)].map(|(threads, lanes)| LoadOptions {
        threads,
        lanes,
        ..LoadOptions::default()
    });
    for (engine, options) in engines()
        .into_iter()
        .flat_map(|engine| cases.map(|options| (Arc::clone(&engine), options)))
    {
        let held = load_with(&*engine, &addition(), options).expect("loads");
        std::thread::scope(|scope| {
            for start in 0..3_u8 {
                let mut lane = held.loaded.lane().expect("a lane");
                scope.spawn(move || {
                    let start = f32::from(start);
                    for _ in 0..50 {
                        let outputs = lane
                            .once(&[floats("x", &[1, 3], &[start; 3])], &[0])
                            .expect("runs");
                        let sums = [start + 10.0, start + 20.0, start + 30.0];
                        assert_eq!(outputs, [floats("sum", &[1, 3], &sums)]);
                    }
                });
            }
        });
    }
}

#[test]
fn wrong_input_is_named_and_the_next_call_served() {
    let gather = model(
        vec![node("Gather", &["w", "rows"], &["picked"])],
        vec![tensor("rows", element::INT64, &[-1])],
        vec![tensor("picked", element::FLOAT, &[-1])],
    )
    .with_floats("w", &[2], &[1.0, 2.0]);
    for engine in engines() {
        let mut lane = lane(&*engine, &gather);
        let too_large = longs("rows", &[1], &[1 << 40]);
        match lane.once(&[too_large], &[0]) {
            Err(EngineError::Input(words)) if engine.name() == "rten" => {
                assert!(words.starts_with("input `rows`: 1099511627776 does not fit"));
            }
            Err(EngineError::Input(_) | EngineError::Failed { .. }) => {}
            other => panic!("{other:?}"),
        }
        let data = longs("rows", &[2], &[0, 1]).data;
        let mut shifted = vec![0];
        shifted.extend_from_slice(&data);
        let shifted = Bytes::from_owner(Aligned(shifted)).slice(1..);
        let unaligned = Tensor::new("rows", DataType::Int64, vec![2], shifted).expect("16 bytes");
        if unaligned.elements::<i64>().is_none() {
            let error = lane.once(&[unaligned], &[0]).expect_err("refused");
            assert!(error.to_string().contains("`rows`"), "{error}");
        }
        assert!(matches!(lane.once(&[], &[0]), Err(EngineError::Input(_))));
        let outputs = lane.once(&[longs("rows", &[1], &[1])], &[0]).expect("runs");
        assert_eq!(outputs, [floats("picked", &[1], &[2.0])]);
    }
}

/// A buffer that starts where its vector starts.
struct Aligned(Vec<u8>);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[test]
fn booleans_and_strings_are_checked() {
    for engine in engines() {
        let mut lane = lane(&*engine, &identity(element::BOOL, &[2]));
        let error = lane
            .once(&[given("x", DataType::Bool, &[2], vec![1, 2])], &[0])
            .expect_err("2 is no BOOL");
        assert!(error.to_string().contains("`x`"), "{error}");
    }
    for engine in engines()
        .into_iter()
        .filter(|engine| engine.name() == "onnxruntime")
    {
        let mut lane = lane(&*engine, &identity(element::STRING, &[1]));
        for bytes in [&b"a\0b"[..], b"\xff"] {
            let data = encode_bytes_elements([bytes]).expect("short");
            let tensor = given("x", DataType::Bytes, &[1], data);
            match lane.once(&[tensor], &[0]) {
                Err(EngineError::Input(words)) => assert!(words.contains("`x`"), "{words}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
