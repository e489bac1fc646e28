//! Real libraries: the sample in C compiled on the spot, the sample in Rust, and libraries that break the rules.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use protocol::tensor::encode_bytes_elements;
use protocol::{DataType, Parameter, Tensor};
use runtime::engine::{Engine as _, EngineError, LoadOptions, Loaded, Run, Source, Stop};

use crate::{NodeEngine, abi};

const ROOM: &str = env!("CARGO_MANIFEST_DIR");

fn compile(folder: &Path, source: &Path, flags: &[&str]) -> PathBuf {
    let out = folder.join("model.so");
    let built = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Werror", "-shared", "-fPIC"])
        .arg(format!("-I{ROOM}/include"))
        .args(flags)
        .arg("-o")
        .args([&out, source])
        .status()
        .expect("the C compiler that links Rust programs, too");
    assert!(built.success());
    out
}

fn load(path: &Path, parameters: &[(&str, &str)]) -> Result<Arc<dyn Loaded>, EngineError> {
    let text = |text: &&str| Parameter::Text((*text).to_owned());
    let source = Source {
        path: path.to_owned(),
        backend: "node".to_owned(),
        parameters: parameters
            .iter()
            .map(|(key, value)| ((*key).to_owned(), text(value)))
            .collect(),
        ..Source::default()
    };
    assert!(NodeEngine.accepts(&source));
    NodeEngine.load(&source, LoadOptions::default())
}

fn floats(values: &[f32]) -> Tensor {
    Tensor::from_elements("x", DataType::Fp32, vec![values.len()], values.to_vec()).expect("fits")
}

#[test]
fn the_sample_in_c_scales_takes_parameters_and_says_what_is_wrong_with_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = Path::new(ROOM).join("samples/scale.c");
    let library = compile(folder.path(), &source, &[]);
    let loaded = load(&library, &[("factor", "2.5"), ("other", "")]).expect("loads");
    let mut lane = loaded.lane().expect("a lane");
    let mut other = loaded.lane().expect("another");
    for values in [&[1.0, -2.0][..], &[], &[4.0; 9000]] {
        let expected: Vec<f32> = values.iter().map(|x| x * 2.5).collect();
        for lane in [&mut lane, &mut other] {
            let outputs = lane.once(&[floats(values)], &[0]).expect("runs");
            // No bytes have no alignment either.
            let found = outputs[0].elements::<f32>().unwrap_or_default();
            assert_eq!(found, expected);
            assert_eq!(outputs[0].name, "y");
        }
    }
    let stop = Stop::default();
    stop.set();
    let inputs = [floats(&[1.0])];
    let stopped = lane.run(&Run {
        inputs: &inputs,
        wanted: &[0],
        stop: &stop,
    });
    assert!(matches!(stopped, Err(EngineError::Stopped)), "{stopped:?}");
    assert!(lane.once(&inputs, &[0]).is_ok());
    let refused = load(&library, &[("factor", "much")]).expect_err("not a number");
    assert!(
        refused.to_string().ends_with("factor is not a number"),
        "{refused}"
    );
}

#[test]
fn the_sample_in_rust_shouts() {
    let test = std::env::current_exe().expect("this program");
    let target = test
        .ancestors()
        .nth(2)
        .expect("target/<profile>/deps/<test>");
    let library = target.join("examples/libshout.so");
    let loaded = load(&library, &[]).expect("built beside the tests");
    let words = |words: &[&str]| {
        let data = encode_bytes_elements(words.iter().map(|word| word.as_bytes())).expect("short");
        Tensor::new("words", DataType::Bytes, vec![words.len()], data.into()).expect("fits")
    };
    let mut lane = loaded.lane().expect("a lane");
    let outputs = lane
        .once(&[words(&["kapok", "", "straße"])], &[0])
        .expect("runs");
    assert_eq!(outputs[0].data, words(&["KAPOK", "", "STRASSE"]).data);
    let broken = [1, 0, 0, 0, 0xff].as_slice();
    let broken =
        Tensor::new("words", DataType::Bytes, vec![1], broken.into()).expect("one element");
    let refused = lane.once(&[broken], &[0]).expect_err("not UTF-8");
    assert!(
        matches!(&refused, EngineError::Input(said) if said == "words must be UTF-8"),
        "{refused}"
    );
}

/// The sample, and one rule broken by each `FAULT`.
const FAULTY: &str = r#"
#define kapok_node honest
#include "scale.c"
#undef kapok_node
static void *nothing;
static int32_t no_handle(void *n, void **lane, kapok_error *e) { *lane = nothing; return 0; }
static int32_t silent(void *l, const kapok_tensor *i, kapok_tensor *o, const volatile uint8_t *s, kapok_error *e) { return 2; }
static int32_t wordy(void *l, const kapok_tensor *i, kapok_tensor *o, const volatile uint8_t *s, kapok_error *e) {
  memset(e->text, 'a', e->capacity); return 1; }
static int32_t lazy(void *l, const kapok_tensor *i, kapok_tensor *o, const volatile uint8_t *s, kapok_error *e) { return 0; }
static int32_t greedy(void *l, const kapok_tensor *i, kapok_tensor *o, const volatile uint8_t *s, kapok_error *e) {
  int32_t code = run(l, i, o, s, e); o[0].bytes = ~0ull; return code; }
static int32_t no_ports(void *n, kapok_ports *p, kapok_error *e) { return 0; }
const kapok_node_api *kapok_node(void) {
  static kapok_node_api t; t = api;
  switch (FAULT) {
    case 0: return 0;
    case 1: t.abi = 7; break;
    case 2: t.size = 16; break;
    case 3: t.release = 0; break;
    case 4: t.ports = no_ports; break;
    case 5: t.lane = no_handle; break;
    case 6: t.run = silent; break;
    case 7: t.run = wordy; break;
    case 8: t.run = lazy; break;
    case 9: t.run = greedy; break;
  }
  return &t;
}
"#;

#[test]
fn a_library_that_breaks_a_rule_is_refused_at_that_rule() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("faulty.c");
    std::fs::write(&source, FAULTY).expect("writes");
    let samples = format!("-I{ROOM}/samples");
    for (fault, expected) in [
        "`kapok_node` gives a pointer that is null or not aligned",
        "it speaks version 7 of the node interface, this kapok 1",
        "its table has 16 bytes, version 1 has 64",
        "its table lacks a function",
        "0 inputs; 1 to 1024 are allowed",
        "`lane` succeeded and gave no lane",
        "it returned 2 and said nothing",
        &"a".repeat(511),
        "no element type has the number 0",
        "output `y` claims 18446744073709551615 bytes, more than memory holds",
    ]
    .into_iter()
    .enumerate()
    {
        let place = folder.path().join(fault.to_string());
        std::fs::create_dir(&place).expect("a folder each: a loaded file must not change");
        let fault = format!("-DFAULT={fault}");
        let flags = ["-Wno-unused-function", samples.as_str(), fault.as_str()];
        let library = compile(&place, &source, &flags);
        let outcome = load(&library, &[])
            .and_then(|loaded| loaded.lane())
            .and_then(|mut lane| lane.once(&[floats(&[1.0])], &[0]));
        let error = outcome.expect_err("refused").to_string();
        assert!(error.ends_with(expected), "{fault}: {error}");
    }
}

#[test]
fn what_is_no_library_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("model.so");
    std::fs::write(&text, "not a library").expect("writes");
    assert!(load(&text, &[]).is_err());
    let source = folder.path().join("empty.c");
    std::fs::write(&source, "int nothing;").expect("writes");
    let library = compile(folder.path(), &source, &[]);
    let error = load(&library, &[]).expect_err("no entry").to_string();
    assert!(error.contains("it has no function `kapok_node`"), "{error}");
}

/// The header is what people compile against, so it must say what Rust reads.
#[test]
fn header_and_rust_agree_on_every_size() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("sizes.c");
    let size = |name: &str, size: usize| {
        format!("_Static_assert(sizeof({name}) == {size}, \"{name}\");\n")
    };
    let at = |name: &str, field: &str, offset: usize| {
        format!("_Static_assert(offsetof({name}, {field}) == {offset}, \"{name}.{field}\");\n")
    };
    let mut program = "#include <stddef.h>\n#include \"kapok_node.h\"\n".to_owned();
    program += &size("kapok_text", size_of::<abi::Text>());
    program += &size("kapok_parameter", size_of::<abi::Parameter>());
    program += &size("kapok_error", size_of::<abi::Error>());
    program += &size("kapok_port", size_of::<abi::Port>());
    program += &size("kapok_ports", size_of::<abi::Ports>());
    program += &size("kapok_tensor", size_of::<abi::Tensor>());
    program += &size("kapok_node_api", size_of::<abi::Api>());
    program += &at(
        "kapok_port",
        "shape",
        std::mem::offset_of!(abi::Port, shape),
    );
    program += &at(
        "kapok_ports",
        "output_count",
        std::mem::offset_of!(abi::Ports, output_count),
    );
    program += &at(
        "kapok_tensor",
        "data",
        std::mem::offset_of!(abi::Tensor, data),
    );
    program += &at(
        "kapok_node_api",
        "release",
        std::mem::offset_of!(abi::Api, release),
    );
    for dtype in DataType::ALL {
        let number = abi::number(dtype);
        program += &format!("_Static_assert(KAPOK_{dtype} == {number}, \"{dtype}\");\n");
        assert_eq!(abi::data_type(number), Some(dtype));
    }
    std::fs::write(&source, program).expect("writes");
    compile(folder.path(), &source, &[]);
}
