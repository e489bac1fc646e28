//! Files that are not what they should be.

use std::fs;

use prost::Message;
use protocol::{DataType, TensorSpec};
use runtime::engine::{EngineError, LoadOptions};

use super::build::{self, model, node, sequence, tensor, unranked};
use super::{addition, engines, load, source};
use crate::graph::{self, Port, PortKind};
use crate::proto::{Nodes, element};

fn describe(model: &build::Model) -> Result<graph::Description, graph::Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.onnx");
    fs::write(&path, model.encode_to_vec()).expect("a file");
    graph::describe(&path)
}

#[test]
fn the_file_says_what_goes_in_and_out() {
    let port = |name: &str, kind, shape: Option<&[i64]>| Port {
        name: name.to_owned(),
        kind,
        shape: shape.map(<[i64]>::to_vec),
    };
    let model = model(
        vec![],
        vec![
            tensor("ids", element::INT64, &[-1, 128]),
            unranked("any", element::BOOL),
            tensor("small", 17, &[]),
        ],
        vec![sequence("seq"), tensor("text", element::STRING, &[0])],
    );
    let description = describe(&model).expect("described");
    assert_eq!(
        description.inputs,
        [
            port("ids", PortKind::Tensor(DataType::Int64), Some(&[-1, 128])),
            port("any", PortKind::Tensor(DataType::Bool), None),
            port("small", PortKind::ForeignElement(17), Some(&[])),
        ]
    );
    assert_eq!(
        description.outputs,
        [
            port("seq", PortKind::Sequence, None),
            port("text", PortKind::Tensor(DataType::Bytes), Some(&[0])),
        ]
    );
}

#[test]
fn a_rank_that_the_file_lacks_comes_from_the_configuration() {
    let model = model(
        vec![node("Relu", &["x"], &["y"])],
        vec![unranked("x", element::FLOAT)],
        vec![unranked("y", element::FLOAT)],
    );
    let description = describe(&model).expect("described");
    let refusal = description.specs(&[]).expect_err("no rank");
    assert!(refusal.contains("rank of input `x`"), "{refusal}");
    let spec = TensorSpec::new("x", DataType::Fp32, vec![-1, 4]);
    let (inputs, outputs) = description
        .specs(std::slice::from_ref(&spec))
        .expect("specs");
    assert_eq!(inputs, [spec]);
    assert_eq!(outputs, [TensorSpec::new("y", DataType::Fp32, vec![-1])]);
}

#[test]
fn a_sequence_is_refused_by_name() {
    let model = model(
        vec![node("SplitToSequence", &["x"], &["parts"]).with_int("axis", 0)],
        vec![tensor("x", element::FLOAT, &[2, 2])],
        vec![sequence("parts")],
    );
    for engine in engines() {
        let error = load(&*engine, &model).expect_err("refused");
        assert!(
            matches!(error, EngineError::Unsupported { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("`parts`"), "{error}");
    }
}

#[test]
fn an_unknown_operator_is_refused_by_name() {
    let model = model(
        vec![node("NoSuchOperator", &["x"], &["y"])],
        vec![tensor("x", element::FLOAT, &[1])],
        vec![tensor("y", element::FLOAT, &[1])],
    );
    for engine in engines() {
        let error = load(&*engine, &model).expect_err("refused");
        assert!(
            matches!(error, EngineError::Unsupported { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("NoSuchOperator"), "{error}");
    }
}

#[test]
fn what_rten_would_compute_wrongly_is_refused() {
    let softmax = |opset, axis: Option<i64>, dims: Option<&[i64]>| {
        let mut softmax = node("Softmax", &["x"], &["y"]);
        if let Some(axis) = axis {
            softmax = softmax.with_int("axis", axis);
        }
        let y = dims.map_or_else(
            || unranked("y", element::FLOAT),
            |dims| tensor("y", element::FLOAT, dims),
        );
        let x = tensor("x", element::FLOAT, dims.unwrap_or(&[2, 3]));
        let mut model = model(vec![softmax], vec![x], vec![y]);
        model.opsets[0].version = opset;
        model
    };
    let check = |model: &build::Model, expected: Result<(), &str>| {
        let loaded = load(&crate::RtenEngine::default(), model);
        match (loaded, expected) {
            (Ok(_), Ok(())) => {}
            (Err(EngineError::Unsupported { reason, .. }), Err(part)) => {
                assert!(reason.contains(part), "{reason}");
            }
            (other, expected) => panic!("{other:?}, expected {expected:?}"),
        }
    };
    let flatten = Err("before 13");
    check(&softmax(11, None, Some(&[2, 3])), Ok(()));
    check(&softmax(11, None, Some(&[2, 3, 1, 1])), flatten);
    check(&softmax(11, None, None), flatten);
    check(&softmax(11, Some(1), Some(&[2, 3, 4])), flatten);
    check(&softmax(11, Some(2), Some(&[2, 3, 4])), Ok(()));
    check(&softmax(11, Some(-1), None), Ok(()));
    check(&softmax(13, None, Some(&[2, 3, 1, 1])), Ok(()));
    let unary = |node| {
        let ports = |name| vec![tensor(name, element::FLOAT, &[1])];
        model(vec![node], ports("x"), ports("y"))
    };
    check(&unary(node("Sign", &["x"], &["y"])), Err("rten's Sign"));
    let cubic = node("Resize", &["x", "", "x"], &["y"]).with_text("mode", "cubic");
    check(&unary(cubic), Err("cubic"));
    let quantized = |output: &str| {
        let names = ["integers", "scale", "zero"];
        let last = node("Identity", &["scale"], &["y"]);
        let nodes = vec![node("DynamicQuantizeLinear", &["x"], &names), last];
        let kind = if output == "integers" {
            element::UINT8
        } else {
            element::FLOAT
        };
        let x = tensor("x", element::FLOAT, &[1]);
        model(
            nodes,
            vec![x],
            vec![tensor(output, kind, if output == "y" { &[] } else { &[1] })],
        )
    };
    check(&quantized("integers"), Err("their neighbour"));
    check(&quantized("y"), Ok(()));
    let insert = node("SequenceInsert", &["x", "x", "x"], &["y"]);
    check(&unary(insert), Err("negative place"));
    let branch = Nodes {
        nodes: vec![node("Sign", &["x"], &["z"])],
        ..Nodes::default()
    };
    let nested = node("If", &["x"], &["y"]).with_graph("then_branch", branch);
    check(&unary(nested), Err("rten's Sign"));
}

#[test]
fn a_cut_file_is_an_error_that_keeps_the_folder_to_itself() {
    let whole = addition().encode_to_vec();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.onnx");
    for engine in engines() {
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).expect("a file");
            // A cut between two fields may leave a valid, smaller model.
            let loaded = engine.load(&source(&path), LoadOptions::default());
            if let Err(error) = loaded {
                let folder = folder.path().to_string_lossy();
                assert!(!error.to_string().contains(&*folder), "{error}");
            }
        }
        let gone = source(&folder.path().join("gone.onnx"));
        let error = engine.load(&gone, LoadOptions::default());
        let error = error.expect_err("no file").to_string();
        assert!(error.contains("cannot read the model file"), "{error}");
    }
}

#[test]
fn arbitrary_bytes_never_panic() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/onnx_graph");
    let mut replayed = 0;
    for entry in fs::read_dir(corpus).expect("the corpus is there") {
        let path = entry.expect("readable").path();
        graph::fuzz(&fs::read(path).expect("readable"));
        replayed += 1;
    }
    assert!(replayed >= 5, "{replayed} files");
    let whole = addition().encode_to_vec();
    for length in 0..whole.len() {
        graph::fuzz(&whole[..length]);
        for byte in [0, 0x7f, 0xff] {
            let mut changed = whole.clone();
            changed[length] = byte;
            graph::fuzz(&changed);
        }
    }
}

#[test]
fn the_version_shown_is_the_one_built() {
    let lock = include_str!("../../../../Cargo.lock");
    let shown = runtime::engine::Engine::version(&crate::RtenEngine::default());
    assert!(lock.contains(&format!("name = \"rten\"\nversion = \"{shown}\"")));
}
