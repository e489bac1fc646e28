use protocol::DataType;

use super::*;

fn port(index: usize, name: &str, shape: &[i64]) -> Port {
    let spec = TensorSpec::new(name, DataType::Fp32, shape.to_vec());
    Port {
        engine: spec.clone(),
        spec,
        index,
        reshape: None,
        optional: false,
    }
}

/// Inputs `a` [-1,2] and `b` [-1], outputs `p` and `q` in another order than the engine's.
fn interface() -> Interface {
    Interface {
        model: "m".to_owned(),
        takes_absent: false,
        inputs: vec![port(0, "a", &[-1, 2]), port(1, "b", &[-1])],
        outputs: vec![port(1, "p", &[-1]), port(0, "q", &[-1])],
        batch_max: Some(4),
    }
}

fn tensor(name: &str, shape: &[usize]) -> Tensor {
    let count = shape.iter().product();
    Tensor::from_elements(name, DataType::Fp32, shape.to_vec(), vec![0.0_f32; count])
        .expect("as many elements")
}

fn request(inputs: Vec<Tensor>, outputs: &[&str]) -> InferRequest {
    let output = |name: &&str| RequestedOutput {
        name: (*name).to_owned(),
        ..RequestedOutput::default()
    };
    InferRequest {
        inputs,
        outputs: outputs.iter().map(output).collect(),
        ..InferRequest::default()
    }
}

#[test]
fn a_fitting_request_is_put_in_the_engine_s_order() {
    let inputs = vec![tensor("b", &[3]), tensor("a", &[3, 2])];
    let fitted = interface().fit(request(inputs, &[])).expect("fits");
    let names: Vec<_> = fitted
        .call
        .inputs
        .iter()
        .map(|input| input.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!((fitted.call.wanted, fitted.batch), (vec![1, 0], 3));
    let inputs = vec![tensor("b", &[1]), tensor("a", &[1, 2])];
    let fitted = interface().fit(request(inputs, &["q"])).expect("fits");
    assert_eq!(
        (fitted.call.wanted, &fitted.outputs[..]),
        (vec![0], &[1][..])
    );
}

#[test]
fn what_does_not_fit_is_named() {
    let (a, b) = (|| tensor("a", &[1, 2]), || tensor("b", &[1]));
    let wrong_type = Tensor {
        dtype: DataType::Int32,
        ..a()
    };
    for (request, expected) in [
        (
            request(vec![a(), b(), tensor("c", &[1])], &[]),
            "expected 2 inputs but got 3 inputs for model 'm'. Got input(s) ['a','b','c'], but missing required input(s) []. Please provide all required input(s).",
        ),
        (
            request(vec![a(), tensor("c", &[1])], &[]),
            "unexpected inference input 'c' for model 'm'",
        ),
        (
            request(vec![a()], &[]),
            "expected 2 inputs but got 1 inputs for model 'm'. Got input(s) ['a'], but missing required input(s) ['b']. Please provide all required input(s).",
        ),
        (
            request(vec![], &[]),
            "expected 2 inputs but got 0 inputs for model 'm'. Got input(s) [], but missing required input(s) ['a','b']. Please provide all required input(s).",
        ),
        (request(vec![a(), a()], &[]), "input `a` is given twice"),
        (
            request(vec![wrong_type, b()], &[]),
            "inference input 'a' data-type is 'INT32', but model 'm' expects 'FP32'",
        ),
        (
            request(vec![tensor("a", &[1, 3]), b()], &[]),
            "unexpected shape for input 'a' for model 'm'. Expected [-1,2], got [1,3]. NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be prepended to each input shape. If you want to specify the full shape including the batch dim in your input dims config, try setting max_batch_size to zero. See the model configuration docs for more info on max_batch_size.",
        ),
        (
            request(vec![tensor("a", &[]), b()], &[]),
            "input 'a' has no shape but model requires batch dimension for 'm'",
        ),
        (
            request(vec![tensor("a", &[5, 2]), tensor("b", &[5])], &[]),
            "inference request batch-size must be <= 4 for 'm'",
        ),
        (
            request(vec![tensor("a", &[0, 2]), tensor("b", &[0])], &[]),
            "input `a`: batch of 0, the model takes 1 to 4",
        ),
        (
            request(vec![tensor("a", &[2, 2]), b()], &[]),
            "input 'b' batch size does not match other inputs for 'm'",
        ),
        (
            request(vec![a(), b()], &["r"]),
            "unexpected inference output 'r' for model 'm'",
        ),
        (
            request(vec![a(), b()], &["p", "p"]),
            "output `p` is asked for twice",
        ),
    ] {
        let error = interface().fit(request).expect_err(expected);
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.kind(), base::ErrorKind::Invalid);
    }
}

#[test]
fn a_reshape_is_seen_by_the_engine_and_never_by_the_client() {
    let reshaped = |index, name: &str, from: &[i64], to: &[i64]| Port {
        engine: TensorSpec::new(name, DataType::Fp32, vec![-1, 4, 1]),
        reshape: Some(Reshape {
            from: from.to_vec(),
            to: to.to_vec(),
        }),
        ..port(index, name, &[-1, 2, 2])
    };
    let interface = Interface {
        model: "m".to_owned(),
        takes_absent: false,
        inputs: vec![reshaped(0, "x", &[2, 2], &[4, 1])],
        outputs: vec![reshaped(0, "y", &[4, 1], &[2, 2])],
        batch_max: Some(8),
    };
    let fitted = interface
        .fit(request(vec![tensor("x", &[3, 2, 2])], &[]))
        .expect("fits");
    assert_eq!(fitted.call.inputs[0].shape, [3, 4, 1]);
    let outputs = interface.answer(vec![tensor("engine's name", &[3, 4, 1])], &[0]);
    assert_eq!(
        (outputs[0].name.as_str(), &outputs[0].shape[..]),
        ("y", &[3, 2, 2][..])
    );
}

#[test]
fn an_optional_input_may_be_left_out_where_the_engine_can_do_without() {
    let mut optional = Interface {
        takes_absent: true,
        ..interface()
    };
    optional.inputs[1].optional = true;
    let whole = vec![tensor("a", &[1, 2]), tensor("b", &[1])];
    let whole = optional.fit(request(whole, &[])).expect("fits");
    let without = vec![tensor("a", &[1, 2])];
    let without = optional.fit(request(without, &[])).expect("fits");
    assert!(is_absent(&without.call.inputs[1]));
    assert_ne!(whole.call.class, without.call.class);
    let outputs = vec![tensor("p", &[1]), absent()];
    assert_eq!(optional.answer(outputs, &[0, 1]).len(), 1);
    for (inputs, expected) in [
        (
            vec![],
            "expected number of inputs between 1 and 2 but got 0 inputs for model 'm'. Got input(s) [], but missing required input(s) ['a']. Please provide all required input(s).",
        ),
        (
            vec![tensor("b", &[1])],
            "expected number of inputs between 1 and 2 but got 1 inputs for model 'm'. Got input(s) ['b'], but missing required input(s) ['a']. Please provide all required input(s).",
        ),
    ] {
        let error = optional.fit(request(inputs, &[])).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    }
    optional.takes_absent = false;
    let without = vec![tensor("a", &[1, 2])];
    let error = optional.fit(request(without, &[])).expect_err("needs it");
    assert!(error.to_string().contains("`b` is optional"), "{error}");
}
