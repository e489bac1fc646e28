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

/// A node in a region, with models that it loads when a job wants them.
fn node() -> (Repository, Running) {
    let strings = Builtin {
        dtype: "BYTES",
        ..Builtin::default()
    };
    let repository = Repository::new()
        .builtin("identity", &Builtin::default())
        .builtin("strings", &strings)
        .link("resnet50-v2", &repository::fetched("resnet50-light"));
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
