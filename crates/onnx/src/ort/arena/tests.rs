use ort::session::{RunOptions, SessionInputValue};
use ort::value::{DynValue, TensorRef};

use super::super::{Callable, OrtEngine};
use super::*;
use crate::tests::ort_engine;

fn environment() -> Option<Environment> {
    let OrtEngine { library } = ort_engine()?;
    assert!(library.arenas, "this release takes an allocator");
    Some(library.environment.clone())
}

/// A session that asks for the process's allocator.
fn session(environment: &Environment) -> Callable {
    let builder = Session::builder(environment).expect("options");
    let mut builder = builder.with_env_allocators().expect("an entry");
    let session = builder.commit_from_memory(SMALLEST).expect("a graph");
    Callable::new(session).expect("names")
}

fn call(session: &Callable, lane: &mut LaneArena, floats: usize) -> DynValue {
    let values = vec![1.5_f32; floats];
    let input = TensorRef::from_array_view(([floats], values.as_slice())).expect("a tensor");
    let input = [SessionInputValue::from(input)];
    let options = RunOptions::new().expect("options");
    let _memory = lane.enter();
    let mut outputs = session.call(&input, &[0], &options).expect("runs");
    outputs.pop().expect("an output")
}

#[test]
fn each_lanes_calls_have_memory_of_their_own() {
    let Some(environment) = environment() else {
        return;
    };
    let session = session(&environment);
    let mut lanes = [(); 2].map(|()| LaneArena::new(&environment).expect("an arena"));
    let held = |lanes: &[LaneArena; 2]| lanes.each_ref().map(|lane| lane.arena.live.load(Relaxed));
    let outputs = lanes.each_mut().map(|lane| call(&session, lane, 1_000));
    assert_eq!(held(&lanes), [4_000; 2]);
    let [first, second] = outputs;
    drop(first);
    assert_eq!(held(&lanes), [0, 4_000]);
    // On another thread, as answers are sent.
    std::thread::spawn(move || drop(second))
        .join()
        .expect("ends");
    assert_eq!(held(&lanes), [0, 0]);
    assert!(CURRENT.get().is_null());
}

#[test]
fn a_lane_whose_calls_have_become_small_gives_its_memory_back() {
    let Some(environment) = environment() else {
        return;
    };
    let session = session(&environment);
    let mut lane = LaneArena::new(&environment).expect("an arena");
    let kept = call(&session, &mut lane, 10);
    drop(call(&session, &mut lane, SPARE_BYTES_MAX));
    let large = Arc::downgrade(&lane.arena);
    for _ in 0..3 * CALLS_BETWEEN_LOOKS {
        drop(call(&session, &mut lane, 10));
    }
    assert!(large.upgrade().is_some(), "an output lies in it");
    let (_, values) = kept.try_extract_tensor::<f32>().expect("floats");
    assert!(values.iter().all(|value| *value == 1.5));
    drop(kept);
    assert!(large.upgrade().is_none());
    let small = Arc::as_ptr(&lane.arena);
    for _ in 0..3 * CALLS_BETWEEN_LOOKS {
        drop(call(&session, &mut lane, 10));
    }
    assert_eq!(Arc::as_ptr(&lane.arena), small);
}
