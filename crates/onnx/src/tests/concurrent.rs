//! Lanes at the same time on a real model.

use protocol::{DataType, Tensor};
use runtime::engine::{EngineError, Lane, LoadOptions, Run, Stop};

use super::{cache, engines, given, missing, source};

const LENGTH: usize = 2048;

/// So many different requests, of one and of several rows.
fn requests() -> Vec<Tensor> {
    let request = |seed: usize| {
        let rows = 1 + seed % 3;
        let values = (0..rows * LENGTH).map(|place| (place * (seed + 7) + place / 13) % 257);
        let bytes = values.flat_map(|value| u32::try_from(value).expect("small").to_le_bytes());
        given("bytes", DataType::Int32, &[rows, LENGTH], bytes.collect())
    };
    (0..6).map(request).collect()
}

fn answer(lane: &mut dyn Lane, request: &Tensor) -> Vec<f32> {
    let outputs = lane.once(std::slice::from_ref(request), &[0]);
    let outputs = outputs.expect("runs");
    outputs[0].elements::<f32>().expect("aligned").to_vec()
}

fn close(found: &[f32], expected: &[f32]) -> bool {
    let near = |(found, expected): (&f32, &f32)| (found - expected).abs() <= 1e-5;
    found.len() == expected.len() && found.iter().zip(expected).all(near)
}

#[test]
fn lanes_of_a_real_model_answer_as_one_after_the_other() {
    let magika = cache().map(|cache| cache.join("models/magika/1/model.onnx"));
    let Some(magika) = magika.filter(|path| path.is_file()) else {
        return missing("KAPOK_REQUIRE_ORT", "magika is not fetched");
    };
    let requests = requests();
    for engine in engines() {
        // ONNX Runtime's lanes share a session; the others' share weights at most, and rten is slow in a test's build.
        let calls = if engine.name() == "onnxruntime" {
            150
        } else {
            12
        };
        for threads in [1, 2] {
            let options = LoadOptions {
                threads,
                lanes: 2,
                ..LoadOptions::default()
            };
            let loaded = engine.load(&source(&magika), options).expect("loads");
            let mut first = loaded.lane().expect("a lane");
            let expected: Vec<_> = requests
                .iter()
                .map(|request| answer(&mut *first, request))
                .collect();
            let run = |lane: &mut dyn Lane, shift: usize| {
                for call in 0..calls {
                    let which = (call * shift) % requests.len();
                    let found = answer(lane, &requests[which]);
                    assert!(
                        close(&found, &expected[which]),
                        "{}, {threads} threads, call {call}",
                        engine.name()
                    );
                }
            };
            std::thread::scope(|scope| {
                let mut second = loaded.lane().expect("a lane");
                let mut third = loaded.lane().expect("a lane");
                let (run, first) = (&run, &mut first);
                let lanes = [
                    scope.spawn(move || run(&mut **first, 1)),
                    scope.spawn(move || run(&mut *second, 5)),
                ];
                // Ending one lane's calls ends no other's.
                let stop = Stop::default();
                stop.set();
                let call = Run {
                    inputs: &requests[..1],
                    wanted: &[0],
                    stop: &stop,
                };
                while lanes.iter().any(|lane| !lane.is_finished()) {
                    let stopped = third.run(&call);
                    // rten cannot end a call.
                    assert!(
                        matches!(stopped, Err(EngineError::Stopped)) || stopped.is_ok(),
                        "{stopped:?}"
                    );
                    std::thread::yield_now();
                }
            });
        }
    }
}
