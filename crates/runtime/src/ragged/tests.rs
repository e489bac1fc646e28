use std::future::Future;
use std::task::{Context, Waker};

use protocol::oip::proto::batch_input::Kind;
use protocol::{DataType, InferRequest};
use tempfile::TempDir;

use super::made::Made;
use super::*;
use crate::Runtime;
use crate::engine::{Engine, LoadOptions, Source};
use crate::testing::{Gate, config, far, repository, start, until};

/// `x` FP32 [-1] of all requests end to end and `n` INT32 [-1], the length of each, to `y`: twice `x`, and `sum` [-1,1].
#[derive(Debug, Clone, Default)]
struct Flat(Arc<Gate>);

impl Engine for Flat {
    fn name(&self) -> &'static str {
        "onnxruntime"
    }

    fn version(&self) -> String {
        "1".to_owned()
    }

    fn accepts(&self, source: &Source) -> bool {
        source.backend == "onnxruntime"
    }

    fn load(&self, _: &Source, _: LoadOptions) -> Result<Arc<dyn Loaded>, EngineError> {
        let flat = |name: &str, dtype| TensorSpec::new(name, dtype, vec![-1]);
        Ok(Arc::new(FlatModel {
            gate: Arc::clone(&self.0),
            inputs: [flat("x", DataType::Fp32), flat("n", DataType::Int32)],
            outputs: [
                flat("y", DataType::Fp32),
                TensorSpec::new("sum", DataType::Fp32, vec![-1, 1]),
            ],
        }))
    }
}

#[derive(Debug)]
struct FlatModel {
    gate: Arc<Gate>,
    inputs: [TensorSpec; 2],
    outputs: [TensorSpec; 2],
}

impl Loaded for FlatModel {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        Ok(Box::new(FlatLane(Arc::clone(&self.gate))))
    }
}

#[derive(Debug)]
struct FlatLane(Arc<Gate>);

impl Lane for FlatLane {
    fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        self.0.pass();
        let [x, n] = call.inputs else {
            return Err(EngineError::failed("onnxruntime", "two inputs"));
        };
        assert_eq!((x.name.as_str(), n.name.as_str()), ("x", "n"));
        let mut rest: &[f32] = x.elements().expect("aligned");
        let doubled: Vec<f32> = rest.iter().map(|x| x * 2.0).collect();
        let mut sums = Vec::new();
        for length in n.elements::<i32>().expect("aligned") {
            let length = usize::try_from(*length).expect("a length");
            let Some((part, after)) = rest.split_at_checked(length) else {
                return Err(EngineError::Input("lengths".to_owned()));
            };
            sums.push(part.iter().sum::<f32>());
            rest = after;
        }
        let shapes = [vec![doubled.len()], vec![sums.len(), 1]];
        let [y, sum] = shapes;
        let outputs = [
            Tensor::from_elements("y", DataType::Fp32, y, doubled).expect("fits"),
            Tensor::from_elements("sum", DataType::Fp32, sum, sums).expect("fits"),
        ];
        Ok(call
            .wanted
            .iter()
            .map(|index| outputs[*index].clone())
            .collect())
    }
}

const RAGGED: &str = r#"backend: "onnxruntime" max_batch_size: 8 dynamic_batching { }
    input { name: "x" data_type: TYPE_FP32 dims: -1 allow_ragged_batch: true }
    batch_input { kind: BATCH_ELEMENT_COUNT target_name: "n" data_type: TYPE_INT32 source_input: "x" }
    output { name: "y" data_type: TYPE_FP32 dims: -1 }
    output { name: "sum" data_type: TYPE_FP32 dims: 1 }
    batch_output { target_name: "y" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "x" }"#;

/// The folder is watched: without it the model is gone.
async fn runtime(text: &str) -> (Runtime, Flat, TempDir) {
    let root = repository(&[
        ("m/config.pbtxt", text),
        ("m/1/model.onnx", "ok"),
        ("m/kapok.toml", "lanes = 1"),
    ]);
    let engine = Flat::default();
    let mut config = config(&[root.path()]);
    config.queue_max = 16;
    let (runtime, _) = start(config, [Arc::new(engine.clone()) as Arc<dyn Engine>]).await;
    (runtime, engine, root)
}

fn request(values: &[f32]) -> InferRequest {
    let x = Tensor::from_elements("x", DataType::Fp32, vec![1, values.len()], values.to_vec());
    InferRequest {
        model: "m".to_owned(),
        inputs: vec![x.expect("fits")],
        ..InferRequest::default()
    }
}

#[tokio::test]
async fn requests_of_different_lengths_run_as_one_and_get_their_own_parts() {
    let (runtime, engine, _root) = runtime(RAGGED).await;
    assert!(runtime.ready(), "{:?}", runtime.index());
    let before = engine.0.runs();
    engine.0.close();
    let lengths: [&[f32]; 4] = [&[1.0], &[1.0, 2.0, 3.0], &[5.0], &[4.0, 4.0]];
    let mut context = Context::from_waker(Waker::noop());
    let mut waiting = Vec::new();
    for (index, values) in lengths.into_iter().enumerate() {
        let mut answer = Box::pin(runtime.infer(request(values), far()));
        assert!(answer.as_mut().poll(&mut context).is_pending());
        waiting.push(answer);
        if index == 0 {
            until("the first runs alone", || engine.0.runs() == before + 1).await;
        }
    }
    engine.0.open();
    for (values, answer) in lengths.into_iter().zip(waiting) {
        let (response, _) = answer.await.expect("an answer");
        let [y, sum] = response.outputs.as_slice() else {
            panic!("{response:?}");
        };
        let doubled: Vec<f32> = values.iter().map(|x| x * 2.0).collect();
        assert_eq!(y.shape, [1, values.len()]);
        assert_eq!(y.elements::<f32>(), Some(doubled.as_slice()));
        assert_eq!(sum.shape, [1, 1]);
        assert_eq!(
            sum.elements::<f32>(),
            Some([values.iter().sum()].as_slice())
        );
    }
    assert_eq!(engine.0.runs(), before + 2, "three ran together");
}

#[tokio::test]
async fn what_does_not_fit_the_model_refuses_to_load_and_names_the_field() {
    let cases = [
        (
            ("target_name: \"n\"", "target_name: \"z\""),
            "`batch_input[0].target_name`",
        ),
        (("TYPE_INT32", "TYPE_FP32"), "`batch_input[0].data_type`"),
        (
            ("dims: -1 }\n    output", "dims: [ -1, -1 ] }\n    output"),
            "`batch_output[0]`",
        ),
        (
            (
                "dynamic_batching { }",
                "model_transaction_policy { decoupled: true }",
            ),
            "input[0].allow_ragged_batch",
        ),
    ];
    for ((from, to), expected) in cases {
        let text = RAGGED.replace(from, to);
        assert_ne!(text, RAGGED, "{from}");
        let (runtime, _, _root) = runtime(&text).await;
        let said = format!("{:?}", runtime.index());
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[test]
fn each_kind_says_what_triton_says() {
    let (one, two): (&[usize], &[usize]) = (&[1, 2, 3], &[2, 1, 4]);
    for (kind, shape, values) in [
        (Kind::BatchElementCount, vec![2], vec![6, 8]),
        (Kind::BatchAccumulatedElementCount, vec![2], vec![6, 14]),
        (
            Kind::BatchAccumulatedElementCountWithZero,
            vec![3],
            vec![0, 6, 14],
        ),
        (Kind::BatchMaxElementCountAsShape, vec![8], vec![0; 8]),
        (Kind::BatchItemShape, vec![3, 2], vec![2, 3, 1, 4, 1, 4]),
        (Kind::BatchItemShapeFlatten, vec![6], vec![2, 3, 1, 4, 1, 4]),
    ] {
        for dtype in [DataType::Int32, DataType::Fp32] {
            let made = Made {
                kind,
                target: TensorSpec::new("n", dtype, vec![-1]),
                source: 0,
            };
            let tensor = made
                .tensor(&[one, two], &BufferPool::default())
                .expect("small");
            assert_eq!(tensor.shape, shape, "{kind:?}");
            if dtype == DataType::Int32 {
                assert_eq!(tensor.elements::<i32>(), Some(&values[..]), "{kind:?}");
            } else {
                let values: Vec<f32> = values.iter().copied().map(|v: i32| v as f32).collect();
                assert_eq!(tensor.elements::<f32>(), Some(&values[..]), "{kind:?}");
            }
        }
    }
}
