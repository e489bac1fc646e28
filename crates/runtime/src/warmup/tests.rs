use super::*;

fn shapes(specs: &[(&str, DataType, &[i64])], warmup: &Warmup) -> Vec<Vec<Vec<usize>>> {
    let specs: Vec<_> = specs
        .iter()
        .map(|(name, dtype, shape)| TensorSpec::new(*name, *dtype, shape.to_vec()))
        .collect();
    guesses(&specs, warmup)
        .map(|inputs| inputs.into_iter().map(|input| input.shape).collect())
        .collect()
}

#[test]
fn open_dimensions_climb_a_ladder_and_the_batch_stays_one() {
    let none = Warmup::default();
    let text = shapes(
        &[
            ("input_ids", DataType::Int64, &[-1, -1]),
            ("attention_mask", DataType::Int64, &[-1, -1]),
        ],
        &none,
    );
    assert_eq!(text[0], [[1, 32], [1, 32]]);
    assert_eq!(text.len(), SIZES.len());
    let image = shapes(&[("image", DataType::Fp32, &[-1, 3, -1, -1])], &none);
    assert_eq!(image[..2], [[[1, 3, 32, 32]], [[1, 3, 64, 64]]]);
    let fixed = shapes(&[("bytes", DataType::Int32, &[-1, 2048])], &none);
    assert_eq!(fixed, [[[1, 2048]]]);
}

#[test]
fn the_sidecar_s_shapes_come_first_and_huge_guesses_never() {
    let warmup = Warmup {
        shapes: [("image".to_owned(), vec![2, 3, 48, 320])].into(),
    };
    let specs = [("image", DataType::Fp32, &[-1, 3, 48, -1][..])];
    assert_eq!(shapes(&specs, &warmup), [[[2, 3, 48, 320]]]);
    let huge = shapes(
        &[("x", DataType::Fp32, &[-1, -1, -1, -1])],
        &Warmup::default(),
    );
    assert!(huge.iter().all(|shapes| shapes[0][1] <= 224));
}

#[test]
fn the_data_is_valid_and_always_the_same() {
    for dtype in DataType::ALL {
        let spec = [TensorSpec::new("x", dtype, vec![-1, 7])];
        let make = || guesses(&spec, &Warmup::default()).next().expect("one");
        assert_eq!(make(), make(), "{dtype}");
        assert_eq!(make()[0].element_count(), 7);
    }
    let text = [
        TensorSpec::new("attention_mask", DataType::Int64, vec![-1, 8]),
        TensorSpec::new("token_type_ids", DataType::Int64, vec![-1, 8]),
        TensorSpec::new("input_ids", DataType::Int64, vec![-1, 64]),
    ];
    let inputs = guesses(&text, &Warmup::default()).next().expect("one");
    let values = |index: usize| inputs[index].elements::<i64>().expect("aligned").to_vec();
    assert_eq!(values(0), [1; 8]);
    assert_eq!(values(1), [0; 8]);
    assert!(values(2).contains(&0) && values(2).contains(&1));
    assert!(values(2).iter().all(|id| (0..2).contains(id)));
}
