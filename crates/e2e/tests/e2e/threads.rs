//! One core budget, whatever is loaded.

use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::repository::{self, Builtin};
use e2e::{Kapok, Repository, Running, wait};
use serde_json::json;

use crate::doors::infer_body;

fn compute(threads: &[String]) -> usize {
    let of_ours = |name: &&String| name.starts_with("compute");
    threads.iter().filter(of_ours).count()
}

fn show(what: &str, kapok: &Running) -> Vec<String> {
    // Loaders end by themselves when nothing is left to load.
    let mut threads = wait::until("the loaders to end", || {
        let threads = kapok.threads();
        let loading = threads.iter().any(|name| name.starts_with("loader"));
        (!loading).then_some(threads)
    });
    threads.sort();
    println!(
        "{what}: {} KiB resident, {} threads: {threads:?}",
        kapok.rss_kib(),
        threads.len()
    );
    threads
}

#[test]
fn compute_threads_follow_the_cores_and_not_the_models() {
    let cores = base::core_budget().get();
    let mut counts = Vec::new();
    for models in [1, 12] {
        let repository = (0..models).fold(Repository::new(), |repository, n| {
            repository.builtin(&format!("identity{n}"), &Builtin::default())
        });
        let kapok = Kapok::new().model_repo(repository.path()).start();
        for n in 0..models {
            let path = format!("/v2/models/identity{n}/infer");
            assert_eq!(
                kapok
                    .http()
                    .post(&path, infer_body(&[1], &json!([1])))
                    .status,
                200
            );
        }
        let threads = show(&format!("{models} built-in models"), &kapok);
        assert_eq!(compute(&threads), cores, "{threads:?}");
        counts.push(threads.len());
    }
    assert_eq!(counts[0], counts[1], "threads grew with the models");
}

/// What an engine's library makes once, whatever it loads: rten's pool, ONNX Runtime's pool, a timer.
const ENGINE_THREADS_MAX: usize = 4;

#[test]
fn twenty_onnx_models_bring_no_threads_of_their_own() {
    let magika = repository::fetched("magika");
    let model = std::fs::read(magika.join("1/model.onnx")).expect("it was fetched");
    let cores = base::core_budget().get();
    let empty = show("no models", &Kapok::new().start()).len();
    for engine in ["rten", "onnxruntime"] {
        let repository = (0..20).fold(Repository::new(), |repository, n| {
            let name = format!("magika{n}");
            let sidecar = format!("engine = \"{engine}\"\n[warmup.shapes]\nbytes = [1, 2048]\n");
            repository
                .file(&format!("{name}/1/model.onnx"), &model)
                .file(&format!("{name}/kapok.toml"), sidecar)
        });
        let kapok = Kapok::new().model_repo(repository.path()).start();
        for n in 0..20 {
            let input = json!({"name": "bytes", "datatype": "INT32", "shape": [1, 2048], "data": vec![256; 2048]});
            let body = json!({"inputs": [input]}).to_string();
            let path = format!("/v2/models/magika{n}/infer");
            let answer = kapok.http().post(&path, body);
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        let threads = show(&format!("20 magika on {engine}"), &kapok);
        println!("cores + {}", threads.len() - cores);
        assert_eq!(compute(&threads), cores, "{threads:?}");
        let allowed = empty + cores + ENGINE_THREADS_MAX;
        assert!(threads.len() <= allowed, "more than {allowed}: {threads:?}");
    }
}

/// As many calls as keep the threads they came on at a time, whatever the cores, and as many threads that stood in for such
/// ones before and have not come to rest.
const STAND_INS_MAX: usize = 2 * 4;

#[test]
fn callers_whose_calls_keep_their_threads_bring_a_constant_of_them() {
    let magika = repository::fetched("magika");
    let model = std::fs::read(magika.join("1/model.onnx")).expect("it was fetched");
    let cores = base::core_budget().get();
    let models = 20;
    let repository = (0..models).fold(Repository::new(), |repository, n| {
        let name = format!("magika{n}");
        let sidecar = "engine = \"onnxruntime\"\n[warmup.shapes]\nbytes = [1, 2048]\n";
        repository
            .file(&format!("{name}/1/model.onnx"), &model)
            .file(&format!("{name}/kapok.toml"), sidecar)
    });
    let kapok = Kapok::new().model_repo(repository.path()).start();
    let input =
        json!({"name": "bytes", "datatype": "INT32", "shape": [1, 2048], "data": vec![256; 2048]});
    let body = json!({"inputs": [input]}).to_string();
    let call = |n: usize| {
        let path = format!("/v2/models/magika{}/infer", n % models);
        let answer = kapok.http().post(&path, &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let loaded = show("20 magika, nobody asks", &kapok);
    // What a call takes is known once a lone caller has made a few.
    (0..24 * models).for_each(|n| call(n / 24));
    // One more where its calls keep their threads: on a machine that takes more than 20 ms for each, they do not.
    show("a lone caller", &kapok);
    let callers = 64;
    let left = AtomicUsize::new(callers);
    let most = std::thread::scope(|scope| {
        for caller in 0..callers {
            let (call, left) = (&call, &left);
            scope.spawn(move || {
                (0..10).for_each(|n| call(caller + n));
                left.fetch_sub(1, Ordering::Relaxed);
            });
        }
        let mut most = Vec::new();
        while left.load(Ordering::Relaxed) > 0 {
            let threads = kapok.threads();
            if threads.len() > most.len() {
                most = threads;
            }
        }
        most
    });
    let constant = loaded.len() - cores + STAND_INS_MAX;
    println!(
        "{callers} callers: {} threads, allowed are cores + {constant}: {most:?}",
        most.len()
    );
    assert_eq!(compute(&most), cores, "{most:?}");
    assert!(most.len() <= cores + constant, "{most:?}");
}

#[test]
fn idle_memory_without_models() {
    let kapok = Kapok::new().start();
    let threads = show("no models", &kapok);
    // Network workers, the log's and the signal's, compute: a constant beside the cores.
    let cores = base::core_budget().get();
    assert!(threads.len() <= 2 * cores + 6, "{threads:?}");
}
