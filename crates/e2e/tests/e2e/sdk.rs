//! Our own Python package: typed, the same with and without `await`, and what its pages print runs.

use e2e::python::Script;
use e2e::repository::{self, Builtin};
use e2e::{Kapok, Repository, Running};

const PYTEST: [&str; 4] = ["-q", "-p", "no:cacheprovider", "-ra"];

fn tests(part: &str) -> Script {
    let mut args = PYTEST.to_vec();
    args.push(part);
    Script::on_sdk("pytest", &args)
}

/// ResNet-50 as it is published leaves the number of pictures to the caller. The light one is fixed to one picture, which it
/// says where it describes its input and its output, and where it lays features flat: an open dimension there, "as it
/// comes" here.
fn with_open_batch(model: &[u8]) -> Vec<u8> {
    let mut model = model.to_vec();
    let flat = |rows: u64| [rows, 2048].map(u64::to_le_bytes).concat();
    let picture = b"\x0a\x02\x08\x03\x0a\x03\x08\xe0\x01\x0a\x03\x08\xe0\x01";
    let scores = b"\x0a\x03\x08\xe8\x07";
    for (from, to) in [
        (
            [b"\x0a\x02\x08\x01", &picture[..]].concat(),
            [b"\x0a\x02\x12\x00", &picture[..]].concat(),
        ),
        (
            [b"\x12\x09\x0a\x02\x08\x01", &scores[..]].concat(),
            [b"\x12\x09\x0a\x02\x12\x00", &scores[..]].concat(),
        ),
        (flat(1), flat(0)),
    ] {
        let at = model.windows(from.len()).position(|bytes| bytes == from);
        let at = at.expect("the file that was fetched says so");
        model[at..at + to.len()].copy_from_slice(&to);
    }
    model
}

/// A node in a region, with models that it loads when a job wants them.
fn node() -> (Repository, Running) {
    let strings = Builtin {
        dtype: "BYTES",
        ..Builtin::default()
    };
    let light = repository::fetched("resnet50-light").join("1/model.onnx");
    let light = std::fs::read(light).expect("`cargo xtask fetch` brought it");
    let repository = Repository::new()
        .builtin("identity", &Builtin::default())
        .builtin("strings", &strings)
        .file("resnet50-v2/1/model.onnx", with_open_batch(&light));
    let config = "apiVersion: kapok.dev/v1alpha1\nkind: Node\nmetadata: {name: node}\n\
                  spec:\n  region: gz-nansha\n  modelControl: explicit\n  loadModels: [identity, strings]\n";
    let kapok = Kapok::new()
        .model_repo(repository.path())
        .config(config)
        .start();
    (repository, kapok)
}

#[test]
fn the_python_sdk_says_the_types_of_everything() {
    let told = Script::on_sdk("mypy", &["--cache-dir=/dev/null"]).run();
    assert!(told.contains("Success"), "{told}");
}

#[test]
fn the_python_sdk_keeps_its_own_promises() {
    println!("{}", tests("tests/unit").run());
}

#[test]
fn the_python_sdk_asks_models() {
    let (_models, kapok) = node();
    println!(
        "{}",
        tests("tests/live/test_models.py").against(&kapok).run()
    );
}

#[test]
fn the_python_sdk_submits_follows_and_cancels_jobs() {
    let (_models, kapok) = node();
    println!("{}", tests("tests/live/test_jobs.py").against(&kapok).run());
}

#[test]
fn what_the_readmes_print_runs() {
    let (_models, kapok) = node();
    println!(
        "{}",
        tests("tests/live/test_readme.py").against(&kapok).run()
    );
}
