//! Calls that nobody waits for any more.

use std::sync::mpsc;

use protocol::{DataType, Tensor};
use runtime::engine::{EngineError, Lane, Run, Stop};

use super::build::{Model, model, node, tensor};
use super::{engines, floats, given, lane};
use crate::proto::{Nodes, element};

/// Adds `x` to itself for as long as `go` was true, which is forever.
fn endless() -> Model {
    let body = Nodes {
        nodes: vec![
            node("Identity", &["go_in"], &["go_out"]),
            node("Add", &["x_in", "x_in"], &["x_out"]),
        ],
        name: "body".to_owned(),
        inputs: vec![
            tensor("count", element::INT64, &[]),
            tensor("go_in", element::BOOL, &[]),
            tensor("x_in", element::FLOAT, &[1]),
        ],
        outputs: vec![
            tensor("go_out", element::BOOL, &[]),
            tensor("x_out", element::FLOAT, &[1]),
        ],
        ..Nodes::default()
    };
    model(
        vec![node("Loop", &["", "go", "x"], &["y"]).with_graph("body", body)],
        vec![
            tensor("go", element::BOOL, &[]),
            tensor("x", element::FLOAT, &[1]),
        ],
        vec![tensor("y", element::FLOAT, &[1])],
    )
}

fn inputs(go: u8) -> [Tensor; 2] {
    [
        given("go", DataType::Bool, &[], vec![go]),
        floats("x", &[1], &[3.0]),
    ]
}

fn stopped(lane: &mut dyn Lane, stop: &Stop) {
    let call = Run {
        inputs: &inputs(1),
        wanted: &[0],
        stop,
    };
    match lane.run(&call) {
        Err(EngineError::Stopped) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_that_would_never_end_ends_when_it_is_stopped() {
    // rten has no way to end a call, and OpenVINO looks between the graph's own nodes only.
    for engine in engines()
        .into_iter()
        .filter(|engine| engine.name() == "onnxruntime")
    {
        let mut lane = lane(&*engine, &endless());
        for _ in 0..3 {
            let stop = Stop::default();
            std::thread::scope(|scope| {
                let (running, runs) = mpsc::channel();
                let (lane, stop) = (&mut lane, &stop);
                scope.spawn(move || {
                    running.send(()).expect("somebody waits");
                    stopped(&mut **lane, stop);
                });
                runs.recv().expect("it runs");
                stop.set();
            });
            // What ended that call does not end the next one.
            let outputs = lane.once(&inputs(0), &[0]).expect("runs");
            assert_eq!(outputs, [floats("y", &[1], &[3.0])]);
        }
    }
}

#[test]
fn a_call_that_was_stopped_before_it_began_does_not_begin() {
    for engine in engines() {
        let stop = Stop::default();
        stop.set();
        let mut lane = lane(&*engine, &endless());
        stopped(&mut *lane, &stop);
        let outputs = lane.once(&inputs(0), &[0]).expect("runs");
        assert_eq!(outputs, [floats("y", &[1], &[3.0])]);
    }
}

/// So many products one after the other that a call can be met in the middle.
fn lengthy() -> Model {
    let last = 400;
    let name = |step: usize| match step {
        0 => "x".to_owned(),
        step if step == last => "y".to_owned(),
        step => format!("x{step}"),
    };
    let nodes = (0..last)
        .map(|step| node("MatMul", &[&name(step), "w"], &[&name(step + 1)]))
        .collect();
    let side = 128;
    let ports = |name| vec![tensor(name, element::FLOAT, &[side, side])];
    let weights = vec![1.0 / side as f32; 128 * 128];
    model(nodes, ports("x"), ports("y")).with_floats("w", &[side, side], &weights)
}

#[test]
fn a_call_that_is_stopped_somewhere_leaves_the_lane_usable() {
    for engine in engines() {
        let mut lane = lane(&*engine, &lengthy());
        let input = [floats("x", &[128, 128], &vec![1.0; 128 * 128])];
        for _ in 0..5 {
            let stop = Stop::default();
            std::thread::scope(|scope| {
                let (running, runs) = mpsc::channel();
                let (lane, stop, input) = (&mut lane, &stop, &input);
                scope.spawn(move || {
                    running.send(()).expect("somebody waits");
                    let call = Run {
                        inputs: input,
                        wanted: &[0],
                        stop,
                    };
                    match lane.run(&call) {
                        Ok(_) | Err(EngineError::Stopped) => {}
                        other => panic!("{other:?}"),
                    }
                });
                runs.recv().expect("it runs");
                stop.set();
            });
            let outputs = lane.once(&input, &[0]).expect("runs");
            let y: &[f32] = outputs[0].elements().expect("aligned");
            assert!(y.iter().all(|y| (y - 1.0).abs() < 1e-2), "{}", y[0]);
        }
    }
}
