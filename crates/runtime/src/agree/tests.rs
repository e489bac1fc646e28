use super::*;

fn floats(values: &[f32]) -> Tensor {
    Tensor::from_elements("y", DataType::Fp32, vec![values.len()], values.to_vec())
        .expect("as many elements")
}

#[test]
fn close_numbers_and_equal_directions_agree() {
    let strict = Agree {
        atol: 1e-3,
        rtol: 1e-2,
        min_cosine: 0.99,
    };
    let nan = f32::NAN;
    for (reference, other, agrees) in [
        (&[1.0, 2.0][..], &[1.0, 2.0][..], true),
        (&[1.0, 2.0], &[1.005, 2.01], true),
        (&[0.0, 0.0], &[0.0005, -0.0005], true),
        // A direction needs more numbers than these.
        (&[1.0, 2.0, 3.0], &[1.1, 2.1, 3.1], false),
        (&[0.9], &[0.1], false),
        // Each element is off, the direction is not: a quantised model.
        (&[1.0; 16], &[1.1; 16], true),
        (&[1.0; 15], &[1.1; 15], false),
        (&[1.0, 2.0], &[2.0, 1.0], false),
        (&[1.0, 2.0], &[-1.0, -2.0], false),
        (&[0.0, 0.0], &[1.0, 1.0], false),
        (&[nan, 1.0], &[nan, 1.0], true),
        (&[1.0, 1.0], &[nan, 1.0], false),
        (&[f32::INFINITY], &[f32::INFINITY], true),
        (&[1.0, 2.0], &[1.0], false),
    ] {
        let found = compare(&[floats(reference)], &[floats(other)], &strict);
        assert_eq!(found.agrees, agrees, "{reference:?} {other:?}: {found:?}");
    }
}

#[test]
fn labels_agree_only_when_they_are_the_same() {
    let labels = |values: Vec<i64>| {
        Tensor::from_elements("y", DataType::Int64, vec![values.len()], values).expect("as many")
    };
    for (reference, other, agrees) in [
        (vec![1], vec![7], false),
        (vec![7], vec![7], true),
        (vec![900; 32], vec![905; 32], false),
    ] {
        let (reference, other) = ([labels(reference)], [labels(other)]);
        let found = compare(&reference, &other, &Agree::default());
        assert_eq!(found.agrees, agrees, "{reference:?} {other:?}");
    }
}

#[test]
fn every_output_must_agree_and_the_largest_difference_is_told() {
    let reference = [floats(&[1.0, 2.0]), floats(&[1.0, 0.0])];
    let other = [floats(&[1.0, 2.5]), floats(&[0.0, 1.0])];
    let found = compare(&reference, &other, &Agree::default());
    assert!(!found.agrees);
    assert!((found.max_difference - 1.0).abs() < 1e-9);
    assert!(!compare(&reference, &other[..1], &Agree::default()).agrees);
}

#[test]
fn every_type_is_read_as_numbers() {
    let two = |dtype, data: Vec<u8>| {
        let tensor = Tensor::new("y", dtype, vec![2], data.into()).expect("two elements");
        numbers(&tensor)
    };
    let le = |one: &[u8], two: &[u8]| [one, two].concat();
    assert_eq!(two(DataType::Bool, vec![0, 1]), [0.0, 1.0]);
    assert_eq!(two(DataType::Int8, vec![255, 2]), [-1.0, 2.0]);
    assert_eq!(
        two(
            DataType::Int64,
            le(&(-3_i64).to_le_bytes(), &4_i64.to_le_bytes())
        ),
        [-3.0, 4.0]
    );
    assert_eq!(two(DataType::Fp16, vec![0, 0x3c, 0, 0x38]), [1.0, 0.5]);
    assert_eq!(two(DataType::Bf16, vec![0x80, 0x3f, 0, 0x3f]), [1.0, 0.5]);
    assert_eq!(
        two(
            DataType::Fp64,
            le(&1.5_f64.to_le_bytes(), &2.5_f64.to_le_bytes())
        ),
        [1.5, 2.5]
    );
}
