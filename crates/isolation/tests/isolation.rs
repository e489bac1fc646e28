//! Parent and child as two real processes; the child's engine is `examples/fake_child.rs`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::Clock;
use isolation::Isolation;
use protocol::sidecar::Sidecar;
use protocol::{DataType, Tensor, TensorSpec};
use runtime::engine::{
    Engine, EngineError, Lane, LoadOptions, Loaded, Run, Source, Stop, absent, is_absent,
};

/// Long enough for a loaded machine, short enough for a person.
const PATIENCE: Duration = Duration::from_secs(30);

/// The engine whose name and answers the child has.
#[derive(Debug)]
struct Named;

impl Engine for Named {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn version(&self) -> String {
        "1".to_owned()
    }

    fn accepts(&self, _: &Source) -> bool {
        true
    }

    fn load(&self, _: &Source, _: LoadOptions) -> Result<Arc<dyn Loaded>, EngineError> {
        Err(EngineError::unsupported("fake", "loaded in this process"))
    }
}

fn load(path: &Path) -> Result<Arc<dyn Loaded>, EngineError> {
    let test = std::env::current_exe().expect("this program");
    let target = test
        .ancestors()
        .nth(2)
        .expect("target/<profile>/deps/<test>");
    let child = target.join("examples/fake_child");
    assert!(
        child.is_file(),
        "built beside the tests: {}",
        child.display()
    );
    let isolation = Isolation::new([child.into_os_string()]);
    let engine = isolation.around(Arc::new(Named));
    let sidecar = Sidecar {
        isolation: protocol::sidecar::Isolation::Process,
        ..Sidecar::default()
    };
    let source = Source {
        model: "m".to_owned(),
        path: path.to_owned(),
        sidecar: Arc::new(sidecar),
        ..Source::default()
    };
    engine.load(&source, LoadOptions::default())
}

fn floats(values: Vec<f32>) -> [Tensor; 1] {
    [Tensor::from_elements("x", DataType::Fp32, vec![values.len()], values).expect("fits")]
}

fn double(lane: &mut dyn Lane, values: &[f32]) -> Result<Vec<f32>, EngineError> {
    let outputs = lane.once(&floats(values.to_vec()), &[0])?;
    Ok(outputs[0].elements::<f32>().unwrap_or_default().to_vec())
}

fn started() -> (Clock, std::time::Instant) {
    let clock = Clock::real();
    let now = clock.now();
    (clock, now)
}

/// Until the child is back.
fn eventually<T>(mut attempt: impl FnMut() -> Result<T, EngineError>) -> T {
    let (clock, started) = started();
    loop {
        match attempt() {
            Ok(found) => return found,
            Err(error @ EngineError::Gone { .. }) => {
                assert!(clock.now() - started < PATIENCE, "{error}");
                std::thread::yield_now();
            }
            Err(error) => unreachable!("{error}"),
        }
    }
}

/// Processes of this test's child program that run now.
fn children() -> usize {
    let me = std::process::id().to_string();
    let folders = std::fs::read_dir("/proc").expect("Linux").flatten();
    let stats =
        folders.filter_map(|folder| std::fs::read_to_string(folder.path().join("stat")).ok());
    stats
        .filter(|stat| {
            let after_name = stat.rsplit(')').next().unwrap_or_default();
            let mut fields = after_name.split_whitespace();
            fields.next() != Some("Z") && fields.next() == Some(me.as_str())
        })
        .count()
}

#[test]
fn tensors_small_empty_and_large_go_there_and_back() {
    let loaded = load(Path::new("/nowhere")).expect("loads");
    assert_eq!(
        loaded.inputs(),
        [TensorSpec::new("x", DataType::Fp32, vec![-1])]
    );
    assert_eq!(loaded.memory_bytes(), 123);
    let mut lanes: Vec<_> = (0..3).map(|_| loaded.lane().expect("a lane")).collect();
    for values in [vec![1.5, 2.0], vec![], vec![3.0; 3 << 20]] {
        let expected: Vec<f32> = values.iter().map(|x| x * 2.0).collect();
        for lane in &mut lanes {
            assert!(double(lane.as_mut(), &values).expect("runs") == expected);
        }
    }
    // What stands for an input that a request left out does so on the other side too.
    assert!(loaded.takes_absent());
    let outputs = lanes[0].once(&[absent()], &[0]).expect("runs");
    assert!(is_absent(&outputs[0]), "{outputs:?}");
    let refused = double(lanes[0].as_mut(), &[-2.0]);
    assert!(matches!(&refused, Err(EngineError::Input(said)) if said == "x is negative"));
}

#[test]
fn lanes_run_at_the_same_time_and_a_stopped_call_ends() {
    let loaded = load(Path::new("/nowhere")).expect("loads");
    let stop = Stop::default();
    let mut waiting = loaded.lane().expect("a lane");
    let mut other = loaded.lane().expect("another");
    std::thread::scope(|scope| {
        let held = stop.clone();
        let call = scope.spawn(move || {
            waiting
                .run(&Run {
                    inputs: &floats(vec![-3.0]),
                    wanted: &[0],
                    stop: &held,
                })
                .map(|_| ())
        });
        assert_eq!(
            double(other.as_mut(), &[4.0]).expect("not behind the other"),
            [8.0]
        );
        stop.set();
        let outcome = call.join().expect("no panic");
        assert!(matches!(outcome, Err(EngineError::Stopped)), "{outcome:?}");
    });
}

#[test]
fn a_crash_costs_the_calls_in_flight_and_the_model_comes_back() {
    let loaded = load(Path::new("/nowhere")).expect("loads");
    let mut waiting = loaded.lane().expect("a lane");
    let mut crashing = loaded.lane().expect("another");
    let lost = std::thread::scope(|scope| {
        let call = scope.spawn(|| double(waiting.as_mut(), &[-3.0]));
        let crashed = double(crashing.as_mut(), &[-1.0]);
        let error = crashed.expect_err("the process is gone").to_string();
        assert!(error.contains("ended by signal 6 (SIGABRT)"), "{error}");
        call.join().expect("no panic")
    });
    assert!(matches!(lost, Err(EngineError::Gone { .. })), "{lost:?}");
    // The same lanes, in the next process.
    for lane in [&mut waiting, &mut crashing] {
        assert_eq!(eventually(|| double(lane.as_mut(), &[1.0])), [2.0]);
    }
}

#[test]
fn a_model_that_does_not_load_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    for (content, expected) in [
        ("refuses", "an unknown operator"),
        (
            "crashes",
            "ended by signal 6 (SIGABRT) while it loaded the model",
        ),
    ] {
        std::fs::write(&path, content).expect("writes");
        let error = load(&path).expect_err("does not load").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn unloading_ends_the_process() {
    let before = children();
    let loaded = load(Path::new("/nowhere")).expect("loads");
    let lane = loaded.lane().expect("a lane");
    assert_eq!(children(), before + 1);
    drop(loaded);
    assert_eq!(children(), before + 1, "a lane still needs it");
    drop(lane);
    let (clock, started) = started();
    while children() > before {
        assert!(clock.now() - started < PATIENCE, "the process lives on");
        std::thread::yield_now();
    }
}

#[test]
fn only_models_that_want_a_process_get_one() {
    let isolation = Isolation::new(["/nowhere".into()]);
    let engine = isolation.around(Arc::new(Named));
    let error = engine
        .load(&Source::default(), LoadOptions::default())
        .expect_err("the engine's own words");
    assert!(
        error.to_string().ends_with("loaded in this process"),
        "{error}"
    );
}
