//! Models in shared libraries, in kapok's process and in one of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::repository::Builtin;
use e2e::{Kapok, Repository, wait};
use serde_json::json;

fn native() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../native")
}

/// Compiles a library of one C file, with the samples beside it, into a model's folder.
fn compiled(repository: &Repository, model: &str, source: &Path) {
    let folder = repository.path().join(model).join("1");
    std::fs::create_dir_all(&folder).expect("the folder is ours");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .arg(folder.join("model.so"))
        .arg(source)
        .args(["include", "samples"].map(|name| format!("-I{}", native().join(name).display())))
        .status()
        .expect("the C compiler that links Rust programs, too");
    assert!(built.success());
}

fn numbers(values: &[f32]) -> String {
    let input = json!({"name": "x", "datatype": "FP32", "shape": [values.len()], "data": values});
    json!({ "inputs": [input] }).to_string()
}

#[test]
fn a_shared_library_is_a_model_like_any_other() {
    let repository = Repository::new().file(
        "scale/config.pbtxt",
        "parameters { key: \"factor\" value { string_value: \"2.5\" } }",
    );
    compiled(&repository, "scale", &native().join("samples/scale.c"));
    let kapok = Kapok::new().model_repo(repository.path()).start();
    let metadata = kapok.http().get("/v2/models/scale").json();
    assert_eq!(
        metadata["inputs"],
        json!([{"name": "x", "datatype": "FP32", "shape": [-1]}])
    );
    let answer = kapok
        .http()
        .post("/v2/models/scale/infer", numbers(&[1.0, -2.0]))
        .json();
    assert_eq!(answer["outputs"][0]["data"], json!([2.5, -5.0]));
}

const COUNTUP: &str = r#"
max_batch_size: 4
input { name: "INPUT" data_type: TYPE_INT32 dims: 1 }
output { name: "OUTPUT" data_type: TYPE_INT32 dims: 1 }
model_transaction_policy { decoupled: true }
sequence_batching { iterative_sequence: true
  state { input_name: "n" output_name: "next" data_type: TYPE_INT32 dims: 1 } }
"#;

#[test]
fn a_library_asks_for_its_requests_to_be_run_again() {
    let mut repository = Repository::new();
    for isolation in ["thread", "process"] {
        repository = repository
            .file(&format!("{isolation}/config.pbtxt"), COUNTUP)
            .file(
                &format!("{isolation}/kapok.toml"),
                format!("isolation = \"{isolation}\"\n"),
            );
        compiled(&repository, isolation, &native().join("samples/countup.c"));
    }
    let kapok = Kapok::new().model_repo(repository.path()).start();
    for isolation in ["thread", "process"] {
        for target in [1, 4] {
            let path = format!("/v2/models/{isolation}/generate_stream");
            let answer = kapok
                .http()
                .post(&path, json!({ "INPUT": target }).to_string());
            assert_eq!(answer.status, 200, "{}", answer.text());
            let text = answer.text();
            let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
            let counted: Vec<_> = events
                .map(|event| {
                    let event: serde_json::Value = serde_json::from_str(event).expect("JSON");
                    event["OUTPUT"].as_i64()
                })
                .collect();
            let expected: Vec<_> = (1..=target).map(Some).collect();
            assert_eq!(counted, expected, "{isolation}: {text}");
        }
    }
}

/// The sample, and a null pointer for a negative number.
const FRAGILE: &str = r#"
#define kapok_node honest
#include "scale.c"
#undef kapok_node
static int32_t fragile(void *l, const kapok_tensor *i, kapok_tensor *o, const volatile uint8_t *s, kapok_error *e) {
  if (i[0].bytes && *(const float *)i[0].data < 0) *(volatile int *)0 = 1;
  return run(l, i, o, s, e); }
const kapok_node_api *kapok_node(void) { static kapok_node_api t; t = api; t.run = fragile; return &t; }
"#;

#[test]
fn a_crash_in_a_process_of_its_own_costs_that_model_a_503_and_nothing_else() {
    let repository = Repository::new()
        .file("fragile/kapok.toml", "isolation = \"process\"\n")
        .file("fragile.c", FRAGILE)
        .builtin("other", &Builtin::default());
    compiled(&repository, "fragile", &repository.path().join("fragile.c"));
    let kapok = Kapok::new()
        .model_repo(repository.path())
        .allow_log("its calls in flight failed")
        .start();
    let infer = |values: &[f32]| {
        let body = numbers(values);
        kapok.http().post("/v2/models/fragile/infer", body)
    };
    assert_eq!(infer(&[1.0]).json()["outputs"][0]["data"], json!([1.0]));
    let before = kapok.children();
    assert_eq!(before.len(), 1, "the model's process");
    let crashed = infer(&[-1.0]);
    assert_eq!(crashed.status, 503, "{}", crashed.text());
    assert!(crashed.text().contains("SIGSEGV"), "{}", crashed.text());
    let other =
        json!({"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1], "data": [7]}]});
    let answer = kapok
        .http()
        .post("/v2/models/other/infer", other.to_string());
    assert_eq!(answer.status, 200);
    wait::until("the process", || {
        (infer(&[3.0]).status == 200).then_some(())
    });
    assert!(
        !e2e::alive(before[0]),
        "the crashed process is not left behind"
    );
    let after = kapok.children();
    assert_eq!(kapok.stop(), 0);
    assert!(!e2e::alive(after[0]), "the model's process outlived kapok");
}
