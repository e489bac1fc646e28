use std::sync::Arc;

use protocol::oip::proto::ModelTransactionPolicy;

use super::*;
use crate::engine::{Response, Run, Stop};

fn parameters(pairs: &[(&str, &str)]) -> Parameters {
    let parameter =
        |(key, value): &(&str, &str)| ((*key).to_owned(), Parameter::Text((*value).to_owned()));
    pairs.iter().map(parameter).collect()
}

fn identity(pairs: &[(&str, &str)]) -> Source {
    Source {
        model: "m".to_owned(),
        path: "m/1".into(),
        backend: "identity".to_owned(),
        parameters: parameters(pairs),
        inputs: vec![TensorSpec::new("in", DataType::Int32, vec![-1])],
        outputs: vec![TensorSpec::new("out", DataType::Int32, vec![-1])],
        ..Source::default()
    }
}

fn decoupled(backend: &str, pairs: &[(&str, &str)]) -> Source {
    let int = |name: &str, dim| TensorSpec::new(name, DataType::Int32, vec![dim]);
    let uint = |name: &str, dim| TensorSpec::new(name, DataType::Uint32, vec![dim]);
    let config = ModelConfig {
        model_transaction_policy: Some(ModelTransactionPolicy { decoupled: true }),
        ..ModelConfig::default()
    };
    let (inputs, outputs) = if backend == "repeat" {
        (
            vec![int("IN", -1), uint("DELAY", -1), uint("WAIT", 1)],
            vec![int("OUT", 1), uint("IDX", 1)],
        )
    } else {
        (vec![int("IN", 1)], vec![int("OUT", 1)])
    };
    Source {
        backend: backend.to_owned(),
        inputs,
        outputs,
        config: Arc::new(config),
        ..identity(pairs)
    }
}

fn load(source: &Source) -> Result<Arc<dyn Loaded>, EngineError> {
    Builtin.load(source, LoadOptions::default())
}

fn ints(values: &[i32]) -> Tensor {
    Tensor::from_elements("in", DataType::Int32, vec![values.len()], values.to_vec())
        .expect("as many elements")
}

fn uints(values: &[u32]) -> Tensor {
    Tensor::from_elements("in", DataType::Uint32, vec![values.len()], values.to_vec())
        .expect("as many elements")
}

fn answers(source: &Source, inputs: &[Tensor]) -> Result<Vec<Response>, EngineError> {
    let loaded = load(source)?;
    let wanted: Vec<usize> = (0..loaded.outputs().len()).collect();
    let mut answers = loaded.lane()?.respond(&Run {
        inputs,
        wanted: &wanted,
        stop: &Stop::default(),
    })?;
    std::iter::from_fn(|| answers.next().transpose()).collect()
}

#[test]
fn identity_passes_the_same_bytes_on() {
    let input = ints(&[1, -2]);
    let address = input.data.as_ptr();
    let mut lane = load(&identity(&[])).and_then(|loaded| loaded.lane());
    let outputs = lane.as_mut().expect("loads").once(&[input], &[0]);
    let output = &outputs.expect("runs")[0];
    assert_eq!((output.name.as_str(), &output.shape[..]), ("out", &[2][..]));
    assert_eq!(output.data.as_ptr(), address);
}

#[test]
fn repeat_answers_once_for_each_element_after_its_delay() {
    let inputs = [ints(&[5, -6]), uints(&[0, 30]), uints(&[0])];
    let answered = answers(&decoupled("repeat", &[]), &inputs).expect("answers");
    let seen: Vec<_> = answered
        .iter()
        .map(|response| {
            let out = response.outputs[0].elements::<i32>().expect("aligned")[0];
            let index = response.outputs[1].elements::<u32>().expect("aligned")[0];
            (response.after.as_millis(), out, index)
        })
        .collect();
    assert_eq!(seen, [(0, 5, 0), (30, -6, 1)]);
    let none = answers(
        &decoupled("repeat", &[]),
        &[ints(&[]), uints(&[]), uints(&[0])],
    );
    assert_eq!(none.expect("answers"), []);
    let uneven = [ints(&[5, 6]), uints(&[0]), uints(&[0])];
    let error = answers(&decoupled("repeat", &[]), &uneven).expect_err("uneven");
    assert_eq!(
        error.to_string(),
        "expected IN and DELAY shape to match, got [2] and [1]"
    );
}

#[test]
fn square_answers_as_often_as_its_number_says() {
    let square = |value: i32, pairs: &[(&str, &str)]| {
        let answered = answers(&decoupled("square", pairs), &[ints(&[value])])?;
        let first = |response: &Response| response.outputs[0].elements::<i32>().map(<[_]>::to_vec);
        Ok::<_, EngineError>(
            answered
                .iter()
                .filter_map(first)
                .flatten()
                .collect::<Vec<_>>(),
        )
    };
    for (value, expected) in [(3, vec![3, 3, 3]), (1, vec![1]), (0, vec![]), (-2, vec![])] {
        assert_eq!(square(value, &[]).expect("answers"), expected);
    }
    let empty = square(3, &[("CUSTOM_EMPTY_COUNT", "2")]);
    assert_eq!(empty.expect("answers"), [3]);
    let failing = square(3, &[("CUSTOM_FAIL_COUNT", "1")]);
    assert!(
        failing
            .expect_err("fails")
            .to_string()
            .contains("simulated")
    );
}

/// Triton completes `NAME.identity` without a file to one without tensors, and serves it.
#[test]
fn an_identity_without_tensors_loads() {
    let mut bare = identity(&[]);
    bare.inputs.clear();
    bare.outputs.clear();
    let loaded = load(&bare).expect("nothing contradicts");
    assert!(loaded.inputs().is_empty() && loaded.outputs().is_empty());
}

#[test]
fn what_a_backend_cannot_do_does_not_load() {
    let mut uneven = identity(&[]);
    uneven.outputs.clear();
    let mut other_type = identity(&[]);
    other_type.outputs[0].dtype = DataType::Fp32;
    let mut coupled = decoupled("square", &[]);
    coupled.config = Arc::default();
    let mut renamed = decoupled("repeat", &[]);
    renamed.inputs[1].name = "PAUSE".to_owned();
    let mut wide = decoupled("square", &[]);
    wide.inputs[0].shape = vec![2];
    for (source, named) in [
        (uneven, "0 outputs"),
        (other_type, "got TYPE_INT32 and TYPE_FP32"),
        (coupled, "decoupled: true"),
        (renamed, "`DELAY`"),
        (wide, "`IN`"),
        (identity(&[("execute_delay_ms", "1s")]), "execute_delay_ms"),
        (
            identity(&[("creation_delay_sec", "-1")]),
            "creation_delay_sec",
        ),
    ] {
        let error = load(&source).expect_err(named).to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn the_delay_is_told_and_not_slept() {
    let source = identity(&[
        ("execute_delay_ms", "100"),
        ("instance_wise_delay_multiplier", "3"),
    ]);
    let loaded = load(&source).expect("loads");
    assert_eq!(loaded.delay(), Duration::from_millis(100));
    let delays: Vec<_> = (0..3)
        .map(|_| {
            loaded
                .lane()
                .expect("a lane")
                .delay()
                .map(|delay| delay.as_millis())
        })
        .collect();
    assert_eq!(delays, [Some(100), Some(300), Some(600)]);
}
