//! Calls that need much memory, little, or more than there is.

use runtime::engine::{EngineError, LoadOptions};

use super::build::{model, node, tensor};
use super::{addition, engines, floats, lane, load_with, longs};
use crate::proto::element;

#[test]
fn a_model_under_a_budget_goes_on_serving_whatever_the_shapes() {
    for engine in engines() {
        for frugal in [true, false] {
            let options = LoadOptions {
                frugal,
                ..LoadOptions::default()
            };
            let held = load_with(&*engine, &addition(), options).expect("loads");
            let mut lane = held.loaded.lane().expect("a lane");
            for call in 0..200 {
                let rows = 1 + call % 7;
                let outputs = lane.once(&[floats("x", &[rows, 3], &vec![1.0; rows * 3])], &[0]);
                let outputs = outputs.unwrap_or_else(|error| {
                    panic!("{}, frugal {frugal}, call {call}: {error}", engine.name())
                });
                let sums = outputs[0].elements::<f32>().expect("aligned");
                assert_eq!(*sums, [11.0, 21.0, 31.0].repeat(rows));
            }
        }
    }
}

/// As many elements as the request says.
#[test]
fn what_no_memory_holds_is_an_error_and_the_next_call_is_served() {
    let expand = model(
        vec![node("Expand", &["x", "shape"], &["y"])],
        vec![
            tensor("x", element::FLOAT, &[1]),
            tensor("shape", element::INT64, &[1]),
        ],
        vec![tensor("y", element::FLOAT, &[-1])],
    );
    let onnxruntime = engines()
        .into_iter()
        .find(|engine| engine.name() == "onnxruntime");
    let Some(engine) = onnxruntime else { return };
    let mut lane = lane(&*engine, &expand);
    for _ in 0..3 {
        let mut ask = |elements| {
            let inputs = [floats("x", &[1], &[2.0]), longs("shape", &[1], &[elements])];
            lane.once(&inputs, &[0])
        };
        // Of address space, there is less.
        let refused = ask(1 << 50);
        assert!(
            matches!(
                refused,
                Err(EngineError::Failed { .. } | EngineError::Input(_))
            ),
            "{refused:?}"
        );
        let outputs = ask(3).expect("runs");
        assert_eq!(*outputs[0].elements::<f32>().expect("aligned"), [2.0; 3]);
    }
}
