//! Models that answer more than once, in ensembles and run after run, and files that agents look at, through tritonclient.

use e2e::python::Script;
use e2e::{Kapok, Repository};

const REPEAT: &str = r#"
backend: "repeat"
max_batch_size: 0
model_transaction_policy { decoupled: true }
input [
  { name: "IN" data_type: TYPE_INT32 dims: [ -1 ] },
  { name: "DELAY" data_type: TYPE_UINT32 dims: [ -1 ] },
  { name: "WAIT" data_type: TYPE_UINT32 dims: [ 1 ] }
]
output [
  { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "IDX" data_type: TYPE_UINT32 dims: [ 1 ] }
]
instance_group [ { kind: KIND_CPU count: 2 } ]
"#;

const SQUARE: &str = r#"
backend: "square"
max_batch_size: 0
model_transaction_policy { decoupled: true }
input { name: "IN" data_type: TYPE_INT32 dims: [ 1 ] }
output { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }
instance_group [ { kind: KIND_CPU count: 2 } ]
"#;

/// Any number of INT32 inputs and as many outputs.
fn identity(tensors: usize) -> String {
    let tensor = |side: &str, prefix: &str, index| {
        format!("{side} {{ name: \"{prefix}{index}\" data_type: TYPE_INT32 dims: [ -1 ] }}\n")
    };
    let both = |index| tensor("input", "INPUT", index) + &tensor("output", "OUTPUT", index);
    let tensors: String = (0..tensors).map(both).collect();
    format!("backend: \"identity\"\nmax_batch_size: 0\n{tensors}")
}

/// One step, its maps as `key=value` pairs.
fn step(model: &str, inputs: &[&str], outputs: &[&str]) -> String {
    let map = |side: &str, pairs: &[&str]| -> String {
        let pairs = pairs.iter().filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(key, value)| format!("{side}_map {{ key: \"{key}\" value: \"{value}\" }} "))
            .collect()
    };
    format!(
        "step {{ model_name: \"{model}\" model_version: -1 {}{} }}\n",
        map("input", inputs),
        map("output", outputs)
    )
}

/// Takes what the repeating model takes.
fn ensemble(steps: &[String]) -> String {
    let inputs = REPEAT.lines().skip(4).take(5).collect::<Vec<_>>();
    format!(
        "platform: \"ensemble\"\nmax_batch_size: 0\n{}\noutput {{ name: \"OUT\" data_type: TYPE_INT32 dims: [ 1 ] }}\nensemble_scheduling {{\n{} }}\n",
        inputs.join("\n"),
        steps.concat()
    )
}

fn ensembles(repository: Repository) -> Repository {
    let first = |model, output: &str| {
        step(
            model,
            &["IN=IN", "DELAY=DELAY", "WAIT=WAIT"],
            &[&format!("OUT={output}")],
        )
    };
    let repeated = || first("repeat_int32", "repeat_out");
    let squared = || step("square_int32", &["IN=repeat_out"], &["OUT=OUT"]);
    let same = |output: &str| {
        step(
            "identity_int32",
            &["INPUT0=repeat_out"],
            &[&format!("OUTPUT0={output}")],
        )
    };
    let pair = step(
        "pair_int32",
        &["INPUT0=repeat_out", "INPUT1=identity_out"],
        &["OUTPUT1=OUT"],
    );
    [
        ("simple_repeat", vec![first("repeat_int32", "OUT")]),
        ("sequence_repeat", vec![repeated(), same("OUT")]),
        ("fan_repeat", vec![repeated(), same("identity_out"), pair]),
        ("repeat_square", vec![repeated(), squared()]),
        (
            "nested_square",
            vec![first("simple_repeat", "repeat_out"), squared()],
        ),
    ]
    .into_iter()
    .fold(repository, |repository, (name, steps)| {
        repository
            .file(&format!("{name}/config.pbtxt"), ensemble(&steps))
            .file(&format!("{name}/1/.keep"), "")
    })
}

/// Of a model that runs a request again.
fn iterative(backend: &str, decoupled: bool, state: &str) -> String {
    format!(
        r#"
backend: "{backend}"
max_batch_size: 4
input [ {{ name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] }} ]
output [ {{ name: "OUTPUT" data_type: TYPE_INT32 dims: [ 1 ] }} ]
model_transaction_policy {{ decoupled: {decoupled} }}
sequence_batching {{ iterative_sequence : true {state} }}
instance_group [{{ kind: KIND_CPU count: 1 }}]
"#
    )
}

const COUNT: &str =
    r#"state { input_name: "n" output_name: "next" data_type: TYPE_INT32 dims: [ 1 ] }"#;

const SUMMED: &str = r#"
model_repository_agents { agents { name: "checksum"
  parameters { key: "MD5:1/weights" value: "900150983cd24fb0d6963f7d28e17f72" } } }
"#;

#[test]
fn tritonclient_with_decoupled_ensembles_iterative_sequences_and_agents() {
    let repository = Repository::new()
        .file("repeat_int32/config.pbtxt", REPEAT)
        .file("repeat_int32/1/.keep", "")
        .file("square_int32/config.pbtxt", SQUARE)
        .file("square_int32/1/.keep", "")
        .file("identity_int32/config.pbtxt", identity(1))
        .file("identity_int32/1/.keep", "")
        .file("pair_int32/config.pbtxt", identity(2))
        .file("pair_int32/1/.keep", "")
        .file(
            "iterative_sequence/config.pbtxt",
            iterative("iterative_sequence", true, ""),
        )
        .file("iterative_sequence/1/.keep", "")
        .file(
            "countup/config.pbtxt",
            iterative("onnxruntime", true, COUNT),
        )
        .file("countup/1/.keep", "")
        .file(
            "countup_once/config.pbtxt",
            iterative("onnxruntime", false, COUNT),
        )
        .file("countup_once/1/.keep", "")
        .file("summed/config.pbtxt", identity(1) + SUMMED)
        .file("summed/1/weights", "abc");
    for model in ["countup", "countup_once"] {
        let path = repository.path().join(model).join("1/model.onnx");
        Script::new("onnx_countup.py")
            .env("MODEL_PATH", path.display())
            .run();
    }
    let repository = ensembles(repository);
    let kapok = Kapok::new()
        .model_repo(repository.path())
        .allow_log("model is unavailable")
        .start();
    println!("{}", Script::new("triton_streams.py").against(&kapok).run());
}
