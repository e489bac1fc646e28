use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::sidecar::{EngineChoice, PrecisionChoice};

use super::*;
use crate::testing::{Fake, repository};

struct Bench {
    root: tempfile::TempDir,
    tools: Tools,
    sidecar: Sidecar,
    /// Whether lanes are weighed against threads.
    weighs: bool,
}

impl Bench {
    fn new(model: &str, clock: &Clock) -> Self {
        let root = repository(&[("m/1/model.onnx", model)]);
        let tools = Tools {
            clock: clock.clone(),
            compute: ComputePool::start(2).expect("starts"),
            cache: Some(Cache::new(&root.path().join("cache"))),
            quiet: RwLock::new(()),
        };
        Self {
            root,
            tools,
            sidecar: Sidecar::default(),
            weighs: false,
        }
    }

    fn make(&self, fakes: &[&Fake]) -> Result<Chosen, String> {
        let source = Source {
            model: "m".to_owned(),
            path: self.root.path().join("m/1/model.onnx"),
            backend: "onnxruntime".to_owned(),
            ..Source::default()
        };
        let engines: Vec<_> = fakes.iter().map(|fake| fake.engine()).collect();
        let choice = Choice {
            engines: &engines,
            source: &source,
            sidecar: &self.sidecar,
            options: LoadOptions {
                lanes: 2,
                ..LoadOptions::default()
            },
            alternative: self.weighs.then(|| LoadOptions {
                threads: 2,
                ..LoadOptions::default()
            }),
            tools: &self.tools,
        };
        choice.make()
    }

    fn cache_files(&self) -> Vec<PathBuf> {
        let folder = self.root.path().join("cache/engine-choice");
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries
            .map(|entry| entry.expect("readable").path())
            .collect()
    }
}

/// An engine whose calls take this long on the shared clock.
fn engine(name: &'static str, clock: &Clock, work_ms: u64) -> Fake {
    Fake {
        work: Duration::from_millis(work_ms),
        clock: clock.clone(),
        ..Fake::new(name)
    }
}

fn verdicts(chosen: &Chosen) -> Vec<(&str, &str)> {
    chosen
        .candidates
        .iter()
        .map(|candidate| (candidate.engine.as_str(), candidate.verdict.as_str()))
        .collect()
}

#[test]
fn the_fastest_engine_that_agrees_serves() {
    let clock = Clock::manual();
    let bench = Bench::new("ok", &clock);
    let (slow, fast) = (engine("slow", &clock, 9), engine("fast", &clock, 3));
    let chosen = bench.make(&[&slow, &fast]).expect("loads");
    assert_eq!(chosen.engine, "fast");
    assert_eq!(verdicts(&chosen), [("fast", "fastest"), ("slow", "slower")]);
    let fast = &chosen.candidates[0];
    assert_eq!(
        (fast.median_ms, fast.max_difference),
        (Some(3.0), Some(0.0))
    );
    assert_eq!(chosen.candidates[1].max_difference, None);
}

#[test]
fn an_engine_that_disagrees_is_not_chosen_however_fast() {
    let clock = Clock::manual();
    let bench = Bench::new("ok", &clock);
    let reference = engine("reference", &clock, 9);
    let wrong = Fake {
        offset: -40.0,
        ..engine("wrong", &clock, 1)
    };
    let chosen = bench.make(&[&reference, &wrong]).expect("loads");
    assert_eq!(chosen.engine, "reference");
    assert_eq!(
        verdicts(&chosen),
        [("reference", "fastest"), ("wrong", "disagrees")]
    );
    let difference = chosen.candidates[1].max_difference.expect("compared");
    assert!((difference - 40.0).abs() < 1e-3, "{difference}");
}

#[test]
fn an_engine_that_cannot_load_says_why_and_the_other_serves() {
    let clock = Clock::manual();
    let bench = Bench::new("ok", &clock);
    let mut broken = engine("broken", &clock, 1);
    broken.refuses = true;
    let good = engine("good", &clock, 5);
    let chosen = bench.make(&[&broken, &good]).expect("loads");
    assert_eq!(chosen.engine, "good");
    assert!(verdicts(&chosen)[1].1.contains("the file is broken"));
}

#[test]
fn no_engine_that_loads_is_an_error_with_every_reason() {
    let clock = Clock::manual();
    for content in ["broken", "panics"] {
        let bench = Bench::new(content, &clock);
        let (one, two) = (engine("one", &clock, 1), engine("two", &clock, 1));
        let error = bench.make(&[&one, &two]).expect_err("nobody loads it");
        assert!(
            error.contains("`one`") && error.contains("`two`"),
            "{error}"
        );
        assert!(bench.cache_files().is_empty());
    }
}

#[test]
fn a_named_engine_is_the_only_one_tried() {
    let clock = Clock::manual();
    let mut bench = Bench::new("ok", &clock);
    bench.sidecar.engine = EngineChoice::Rten;
    let (ort, rten) = (engine("onnxruntime", &clock, 1), engine("rten", &clock, 5));
    let chosen = bench.make(&[&ort, &rten]).expect("loads");
    assert_eq!(chosen.engine, "rten");
    assert_eq!(ort.loads.load(Ordering::SeqCst), 0);
    let error = bench.make(&[&ort]).expect_err("not there");
    assert!(error.contains("`rten`"), "{error}");
}

#[test]
fn the_next_start_loads_only_the_engine_chosen_before() {
    let clock = Clock::manual();
    let bench = Bench::new("ok", &clock);
    let (slow, fast) = (engine("slow", &clock, 9), engine("fast", &clock, 3));
    let first = bench.make(&[&slow, &fast]).expect("loads");
    let again = bench.make(&[&slow, &fast]).expect("loads");
    assert_eq!(again.engine, "fast");
    assert_eq!(again.candidates, first.candidates);
    assert!(again.lane.is_some(), "has run once");
    let loads = [&slow, &fast].map(|fake| fake.loads.load(Ordering::SeqCst));
    assert_eq!(loads, [1, 2]);
}

#[test]
fn a_broken_or_outdated_choice_is_made_again() {
    let clock = Clock::manual();
    let bench = Bench::new("ok", &clock);
    let (slow, fast) = (engine("slow", &clock, 9), engine("fast", &clock, 3));
    bench.make(&[&slow, &fast]).expect("loads");
    let [file] = &bench.cache_files()[..] else {
        panic!("one choice, one file");
    };
    for content in [
        "",
        "{\"engine\": \"fa",
        "{\"engine\": \"gone\", \"candidates\": []}",
    ] {
        std::fs::write(file, content).expect("writes");
        let before = slow.loads.load(Ordering::SeqCst);
        let chosen = bench.make(&[&slow, &fast]).expect("loads");
        assert_eq!(chosen.engine, "fast", "{content}");
        assert_eq!(slow.loads.load(Ordering::SeqCst), before + 1, "{content}");
    }
    // Another sidecar is another question.
    let mut bench = bench;
    bench.sidecar.agree.atol = 0.5;
    let before = slow.loads.load(Ordering::SeqCst);
    bench.make(&[&slow, &fast]).expect("loads");
    assert_eq!(slow.loads.load(Ordering::SeqCst), before + 1);
}

#[test]
fn an_engine_chosen_earlier_that_fails_now_is_not_used() {
    let clock = Clock::manual();
    let bench = Bench::new("ok", &clock);
    let (slow, fast) = (engine("slow", &clock, 9), engine("fast", &clock, 3));
    assert_eq!(bench.make(&[&slow, &fast]).expect("loads").engine, "fast");
    fast.failing.store(true, Ordering::SeqCst);
    let chosen = bench.make(&[&slow, &fast]).expect("loads");
    assert_eq!(chosen.engine, "slow");
    assert!(verdicts(&chosen)[1].1.contains("no such kernel"));
}

#[test]
fn weights_beside_the_model_are_part_of_the_choice() {
    let clock = Clock::manual();
    let bench = Bench::new("ok", &clock);
    let (slow, fast) = (engine("slow", &clock, 9), engine("fast", &clock, 3));
    let weights = bench.root.path().join("m/1/weights.bin");
    for (bytes, loads) in [("w", 1), ("w", 1), ("ww", 2)] {
        if std::fs::read_to_string(&weights).ok().as_deref() != Some(bytes) {
            std::fs::write(&weights, bytes).expect("writes");
        }
        bench.make(&[&slow, &fast]).expect("loads");
        assert_eq!(slow.loads.load(Ordering::SeqCst), loads, "{bytes}");
    }
    let partial = |path: &PathBuf| path.extension().is_some_and(|it| it != "json");
    assert!(!bench.cache_files().iter().any(partial));
}

#[test]
fn engines_that_fail_on_every_guess_serve_and_say_so() {
    let clock = Clock::manual();
    let bench = Bench::new("ok", &clock);
    let (one, two) = (engine("one", &clock, 1), engine("two", &clock, 1));
    one.failing.store(true, Ordering::SeqCst);
    let said = "cannot run the warm-up data: engine `one` failed: no such kernel";
    let alone = bench.make(&[&one]).expect("loads");
    assert_eq!(verdicts(&alone), [("one", said)]);
    // The other can: the one that cannot is not chosen, and its reason is kept.
    let chosen = bench.make(&[&one, &two]).expect("loads");
    assert_eq!(verdicts(&chosen), [("two", "fastest"), ("one", said)]);
    for file in bench.cache_files() {
        std::fs::remove_file(file).expect("removes");
    }
    two.failing.store(true, Ordering::SeqCst);
    let chosen = bench.make(&[&one, &two]).expect("loads");
    assert_eq!(chosen.engine, "one");
    assert_eq!(chosen.candidates.len(), 2);
    assert_eq!(bench.cache_files().len(), 0, "nothing was proved");
}

/// What a processor with bfloat16 makes of a model: so much added to the answers, in so many milliseconds.
fn halving(name: &'static str, clock: &Clock, offset: f32, work_ms: u64) -> Fake {
    Fake {
        half: Some((offset, Duration::from_millis(work_ms))),
        ..engine(name, clock, 9)
    }
}

#[test]
fn bfloat16_serves_where_it_agrees_and_is_faster() {
    let clock = Clock::manual();
    let whole = |chosen: &Chosen| {
        let candidates = chosen.candidates.iter();
        candidates
            .map(|it| (it.precision, it.verdict.clone()))
            .collect::<Vec<_>>()
    };
    let check = |offset, work_ms, choice, expected: &[(Precision, &str)]| {
        let mut bench = Bench::new("ok", &clock);
        bench.sidecar.precision = choice;
        let fake = halving("openvino", &clock, offset, work_ms);
        let chosen = bench.make(&[&fake]).expect("loads");
        let expected: Vec<_> = expected
            .iter()
            .map(|(precision, verdict)| (*precision, (*verdict).to_owned()))
            .collect();
        assert_eq!(whole(&chosen), expected);
        assert_eq!(chosen.precision, expected[0].0);
        // The next start knows it.
        let again = bench.make(&[&fake]).expect("loads");
        assert_eq!(again.precision, chosen.precision);
    };
    use Precision::{Bf16, Fp32};
    let auto = PrecisionChoice::Auto;
    check(1e-4, 3, auto, &[(Bf16, "fastest"), (Fp32, "slower")]);
    check(1e-4, 20, auto, &[(Fp32, "fastest"), (Bf16, "slower")]);
    check(-40.0, 3, auto, &[(Fp32, "fastest"), (Bf16, "disagrees")]);
    check(1e-4, 3, PrecisionChoice::Fp32, &[(Fp32, "fastest")]);
    check(1e-4, 20, PrecisionChoice::Bf16, &[(Bf16, "fastest")]);
}

#[test]
fn bfloat16_that_no_engine_has_is_refused_with_what_is_missing() {
    let clock = Clock::manual();
    let mut bench = Bench::new("ok", &clock);
    bench.sidecar.precision = PrecisionChoice::Bf16;
    let error = bench
        .make(&[&engine("onnxruntime", &clock, 9)])
        .expect_err("no bf16");
    assert!(error.contains("precision `bf16`"), "{error}");
    assert!(error.contains("avx512_bf16"), "{error}");
}

#[test]
fn lanes_are_weighed_against_threads_by_calls_a_second() {
    let clock = Clock::manual();
    let check = |work_ms, shared_ms, threads, words: &[&str]| {
        let mut bench = Bench::new("ok", &clock);
        bench.weighs = true;
        let fake = Fake {
            shared_work: Some(Duration::from_millis(shared_ms)),
            ..engine("onnxruntime", &clock, work_ms)
        };
        for _ in 0..2 {
            let chosen = bench.make(&[&fake]).expect("loads");
            assert_eq!(chosen.threads, threads);
            let found: Vec<_> = chosen
                .candidates
                .iter()
                .map(|it| it.verdict.as_str())
                .collect();
            assert_eq!(found, words);
            assert!(chosen.lane.is_some());
        }
    };
    check(
        10,
        6,
        2,
        &["fastest", "no more calls a second, each takes longer"],
    );
    check(10, 15, 1, &["fastest", "fewer calls a second"]);
    // Not worth sharing out.
    check(1, 0, 1, &["fastest"]);
}
