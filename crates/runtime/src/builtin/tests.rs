use super::*;

fn source(backend: &str, parameters: &[(&str, &str)], dtype: DataType) -> Source {
    let parameter =
        |(key, value): &(&str, &str)| ((*key).to_owned(), Parameter::Text((*value).to_owned()));
    Source {
        model: "m".to_owned(),
        path: "m/1".into(),
        backend: backend.to_owned(),
        parameters: parameters.iter().map(parameter).collect(),
        inputs: vec![TensorSpec::new("in", dtype, vec![-1])],
        outputs: vec![TensorSpec::new("out", dtype, vec![-1])],
        ..Source::default()
    }
}

fn load(source: &Source) -> Result<Arc<dyn Loaded>, EngineError> {
    Builtin.load(source, LoadOptions { threads: 1 })
}

fn run(source: &Source, input: Tensor) -> Result<Tensor, EngineError> {
    let mut lane = load(source)?.lane()?;
    let mut outputs = lane.once(&[input], &[0])?;
    assert_eq!(outputs.len(), 1);
    Ok(outputs.remove(0))
}

fn ints(values: &[i32]) -> Tensor {
    Tensor::from_elements("in", DataType::Int32, vec![values.len()], values.to_vec())
        .expect("as many elements")
}

#[test]
fn identity_passes_the_same_bytes_on() {
    let input = ints(&[1, -2]);
    let address = input.data.as_ptr();
    let output = run(&source("identity", &[], DataType::Int32), input).expect("runs");
    assert_eq!((output.name.as_str(), &output.shape[..]), ("out", &[2][..]));
    assert_eq!(output.data.as_ptr(), address);
}

#[test]
fn square_multiplies_each_element_with_itself() {
    let output = run(
        &source("square", &[], DataType::Int32),
        ints(&[3, -4, i32::MAX]),
    );
    let output = output.expect("runs");
    assert_eq!(output.elements::<i32>(), Some(&[9, 16, 1][..]));
    let half = half::f16::from_f32(1.5).to_bits();
    let input = Tensor::from_elements("in", DataType::Fp16, vec![1], vec![half]);
    let output = run(&source("square", &[], DataType::Fp16), input.expect("one"));
    let expected = half::f16::from_f32(2.25).to_bits();
    assert_eq!(
        output.expect("runs").elements::<u16>(),
        Some(&[expected][..])
    );
}

#[test]
fn repeat_repeats_along_the_first_axis_within_bounds() {
    let source = source("repeat", &[("repeat_count", "3")], DataType::Int32);
    let output = run(&source, ints(&[5, 6])).expect("runs");
    assert_eq!(output.shape, [6]);
    assert_eq!(output.elements::<i32>(), Some(&[5, 6, 5, 6, 5, 6][..]));
    let huge = self::source("repeat", &[("repeat_count", "1000000")], DataType::Int32);
    assert!(matches!(
        run(&huge, ints(&[0; 1000])),
        Err(EngineError::Input(_))
    ));
}

#[test]
fn what_a_backend_cannot_do_does_not_load() {
    let mut uneven = source("identity", &[], DataType::Int32);
    uneven.outputs.clear();
    let mut other_type = source("identity", &[], DataType::Int32);
    other_type.outputs[0].dtype = DataType::Fp32;
    for (source, named) in [
        (uneven, "0 outputs"),
        (other_type, "`out` is FP32"),
        (source("square", &[], DataType::Bytes), "BYTES"),
        (
            source("repeat", &[("repeat_count", "-1")], DataType::Int32),
            "repeat_count",
        ),
        (
            source("identity", &[("execute_delay_ms", "1s")], DataType::Int32),
            "execute_delay_ms",
        ),
    ] {
        let error = load(&source).expect_err(named).to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn the_delay_is_told_and_not_slept() {
    let source = source("identity", &[("execute_delay_ms", "100")], DataType::Int32);
    let loaded = load(&source).expect("loads");
    assert_eq!(loaded.delay(), Duration::from_millis(100));
}
