use protocol::tensor::encode_bytes_elements;
use protocol::{BufferPool, TensorSpec};

use super::super::items::{Items, Part, conform, gather};
use super::*;

fn texts(shape: &[usize], texts: &[&str]) -> Tensor {
    let data = encode_bytes_elements(texts).expect("short");
    Tensor::new("t", DataType::Bytes, shape.to_vec(), data.into()).expect("as many")
}

fn ints(shape: &[usize], values: &[i32]) -> Tensor {
    Tensor::from_elements("t", DataType::Int32, shape.to_vec(), values.to_vec()).expect("as many")
}

fn parts(tensors: impl IntoIterator<Item = Tensor>) -> Vec<Part> {
    let part = |(first, tensor)| Part { first, tensor };
    tensors.into_iter().enumerate().map(part).collect()
}

#[test]
fn what_is_cut_and_joined_is_the_same() {
    let whole = texts(&[3, 2], &["a", "", "bc", "d", "efg", "h"]);
    let items = Items::of(whole.clone()).expect("three items");
    assert_eq!(items.count(), 3);
    assert_eq!(items.cut("t", &(1..2), false), texts(&[2], &["bc", "d"]));
    assert_eq!(
        items.cut("t", &(1..3), true),
        texts(&[2, 2], &["bc", "d", "efg", "h"])
    );
    let spec = TensorSpec::new("t", DataType::Bytes, vec![2]);
    let cut = (0..3).map(|item| items.cut("t", &(item..item + 1), false));
    let joined = gather("t", &spec, parts(cut), (false, &BufferPool::default()));
    assert_eq!(joined.expect("one shape"), whole);
    assert!(
        Items::of(ints(&[], &[1])).is_none(),
        "a scalar has no items"
    );
}

#[test]
fn ragged_items_are_filled_up_or_named() {
    let pool = BufferPool::default();
    let spec = TensorSpec::new("t", DataType::Bytes, vec![-1]);
    let ragged = [
        texts(&[2], &["a", "b"]),
        texts(&[0], &[]),
        texts(&[1], &["c"]),
    ];
    let joined = gather("t", &spec, parts(ragged), (false, &pool)).expect("texts");
    assert_eq!(joined, texts(&[3, 2], &["a", "b", "", "", "c", ""]));
    let spec = TensorSpec::new("t", DataType::Int32, vec![-1]);
    let ragged = [ints(&[2], &[1, 2]), ints(&[2], &[3, 4]), ints(&[1], &[5])];
    let error = gather("t", &spec, parts(ragged), (false, &pool)).expect_err("ragged");
    assert_eq!(error.item, 2);
    let none = gather("t", &spec, Vec::new(), (false, &pool)).expect("empty");
    assert_eq!(none.shape, [0, 0]);
}

#[test]
fn only_a_batch_of_one_comes_and_goes() {
    for (shape, spec, expected) in [
        (&[1, 3][..], &[3][..], &[3][..]),
        (&[3], &[-1, 3], &[1, 3]),
        (&[2, 3], &[-1, 3], &[2, 3]),
        (&[2, 3], &[3], &[2, 3]),
        (&[1, 1], &[-1, 1], &[1, 1]),
    ] {
        let values = vec![0; shape.iter().product()];
        let spec = TensorSpec::new("t", DataType::Int32, spec.to_vec());
        assert_eq!(
            conform(ints(shape, &values), &spec).shape,
            expected,
            "{shape:?} to {spec:?}"
        );
    }
}
