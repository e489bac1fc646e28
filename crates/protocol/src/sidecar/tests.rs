use super::*;

fn check(text: &str, expected: &str) {
    let found = match Sidecar::parse(text, "kapok.toml") {
        Ok(_) => String::new(),
        Err(errors) => {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            errors.join("\n")
        }
    };
    assert_eq!(found, expected, "{text}");
}

#[test]
fn an_empty_file_means_the_defaults() {
    assert_eq!(Sidecar::parse("", "kapok.toml"), Ok(Sidecar::default()));
    assert_eq!(Sidecar::default().threads, None);
    assert_eq!(Sidecar::default().text, None);
}

#[test]
fn every_field_is_read() {
    let text = r#"
engine = "onnxruntime"
lanes = 2
threads = 3
precision = "bf16"
[agree]
atol = 0.5
rtol = 0
min_cosine = -1.0
[text]
tokenizer = "sub/tok.json"
pooling = "cls"
output = "pooled"
normalize = false
max_tokens = 512
[warmup]
shapes = { images = [1, 3, 640, 640], mask = [] }
"#;
    let sidecar = Sidecar::parse(text, "kapok.toml").expect("legal");
    assert_eq!(sidecar.engine.name(), Some("onnxruntime"));
    assert_eq!(
        (sidecar.lanes, sidecar.threads),
        (Some(2), Some(Threads::Fixed(3)))
    );
    assert_eq!(sidecar.precision, PrecisionChoice::Bf16);
    assert_eq!(sidecar.agree.rtol.to_bits(), 0.0_f64.to_bits());
    let read = sidecar.text.expect("present");
    assert_eq!((read.pooling, read.max_tokens), (Pooling::Cls, 512));
    assert_eq!(sidecar.warmup.shapes["images"], [1, 3, 640, 640]);
}

#[test]
fn threads_are_a_number_or_measured() {
    let auto = Sidecar::parse("threads = \"auto\"\n", "kapok.toml").expect("legal");
    assert_eq!(auto.threads, Some(Threads::Auto));
    check(
        "threads = 0\n",
        "kapok.toml:1:11: `threads`: at least 1 thread",
    );
    check("threads = -1\n", "kapok.toml:1:11: at least 1 thread");
    check(
        "threads = \"all\"\n",
        "kapok.toml:1:11: invalid value: string \"all\", expected a number of threads or `auto`",
    );
}

#[test]
fn a_text_section_alone_is_enough_for_an_embedding_model() {
    let sidecar = Sidecar::parse("[text]\n", "kapok.toml").expect("legal");
    assert_eq!(sidecar.text, Some(Text::default()));
}

#[test]
fn mistakes_are_named_with_line_column_and_a_guess() {
    check(
        "engin = \"auto\"\n",
        "kapok.toml:1:1: unknown field `engin`; did you mean `engine`?",
    );
    check(
        "\n[text]\n  poling = \"mean\"\n",
        "kapok.toml:3:3: unknown field `poling`; did you mean `pooling`?",
    );
    check(
        "engine = \"tensorrt\"\n",
        "kapok.toml:1:10: unknown variant `tensorrt`; known: `auto`, `rten`, `onnxruntime`, `openvino`, `node`, `builtin`",
    );
    check(
        "threads = \"two\"\n",
        "kapok.toml:1:11: invalid value: string \"two\", expected a number of threads or `auto`",
    );
    check(
        "threads = 0\n",
        "kapok.toml:1:11: `threads`: at least 1 thread",
    );
    check(
        "[text]\ntokenizer = \"../../etc/passwd\"\nmax_tokens = 0\n",
        "kapok.toml:2:13: `text.tokenizer`: a path inside the model's folder\n\
         kapok.toml:3:14: `text.max_tokens`: at least 1 token",
    );
    check(
        "[agree]\natol = nan\nmin_cosine = 2\n",
        "kapok.toml:2:8: `agree.atol`: a number from 0 up\n\
         kapok.toml:3:14: `agree.min_cosine`: a cosine lies between -1 and 1",
    );
    check(
        "[warmup]\nshapes = { x = [1, 0] }\n",
        "kapok.toml:2:16: `warmup.shapes.x`: every dimension is at least 1, and their product can be addressed",
    );
    check("lanes = 1\nlanes = 2\n", "kapok.toml:2:1: duplicate key");
}

#[test]
fn a_step_per_item_has_defaults_and_bounds() {
    let text = "[[pipeline.fan_out]]\nstep = \"read\"\nover = [\"crops\"]\n";
    let sidecar = Sidecar::parse(text, "kapok.toml").expect("legal");
    let [fan_out] = &sidecar.pipeline.fan_out[..] else {
        panic!("{sidecar:?}");
    };
    assert_eq!((fan_out.max_items, fan_out.in_flight), (256, 64));
    assert_eq!(fan_out.chunk, None);
    check(
        "[[pipeline.fan_out]]\nstep = \"read\"\nover = []\nin_flight = 0\n",
        "kapok.toml:1:1: `pipeline.fan_out`: `over` names at least one tensor\n\
         kapok.toml:1:1: `pipeline.fan_out`: `in_flight` is at least 1",
    );
}
