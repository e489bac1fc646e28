//! Models come, change and go while requests for them keep coming.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::python::Script;
use e2e::repository::{self, Builtin};
use e2e::{Kapok, Repository, Running, wait};
use serde_json::{Value, json};

use crate::doors::infer_body;

/// 585 KB, and loads in a moment.
const REAL: &str = "pp-ocrv4-cls";

const EXPLICIT: &str = "apiVersion: kapok.dev/v1alpha1\nkind: Node\nmetadata: {name: node}\nspec: {modelControl: explicit, loadModels: ['*']}\n";

/// A key whose private half nobody has.
const KEY: &str = "RWRrYXBva3RzdMEDcDky7N5lOKlopH4K4PYQPchhbUfGngoqhHd7JUAp";

fn real_model() -> Vec<u8> {
    fs::read(repository::fetched(REAL).join("1/model.onnx")).expect("it was fetched")
}

/// A copy of the real model, with one engine so that it loads at once.
fn with_real(repository: Repository, sidecar: &str) -> Repository {
    let shapes = fs::read_to_string(repository::fetched(REAL).join("kapok.toml"));
    let shapes = shapes.expect("it was fetched");
    repository.file("real/1/model.onnx", real_model()).file(
        "real/kapok.toml",
        format!("engine = \"onnxruntime\"\nlanes = 1\nthreads = 1\n{shapes}\n{sidecar}"),
    )
}

fn real_body() -> Vec<u8> {
    let data: Vec<f32> = (0..3 * 48 * 192_u16)
        .map(|i| f32::from(i % 97) / 97.0)
        .collect();
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 3, 48, 192], "data": data});
    json!({"inputs": [input]}).to_string().into_bytes()
}

/// Renamed into place, as a careful tool does.
fn replace(path: &Path, content: impl AsRef<[u8]>) {
    let aside = path.with_extension("part");
    fs::write(&aside, content).expect("the folder is ours");
    fs::rename(aside, path).expect("the folder is ours");
}

fn load(kapok: &Running, model: &str, body: &Value) -> (u16, String) {
    let path = format!("/v2/repository/models/{model}/load");
    let answer = kapok.http().post(&path, body.to_string());
    (answer.status, answer.text())
}

/// State and reason in the index; of the highest version.
fn state(kapok: &Running, model: &str) -> Option<(String, String)> {
    let index = kapok.http().post("/v2/repository/index", "").json();
    let entries = index.as_array()?.iter();
    let entry = entries.rev().find(|entry| entry["name"] == model)?.clone();
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    Some((text("state"), text("reason")))
}

/// Posts the same body over one connection until told to stop; how many were answered, and every other answer.
fn ask_on(
    kapok: &Running,
    (model, body): (&str, Vec<u8>),
    stop: &Arc<AtomicBool>,
) -> std::thread::JoinHandle<(u32, Vec<String>)> {
    let client = kapok.http();
    let mut message = client.head("POST", &format!("/v2/models/{model}/infer"), body.len());
    message.extend(body);
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut connection = client.open().expect("it listens");
        let (mut answered, mut failures) = (0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            match connection.exchange(&message) {
                Ok(answer) if answer.status == 200 => answered += 1,
                Ok(answer) => failures.push(answer.text()),
                Err(error) => {
                    failures.push(error.to_string());
                    break;
                }
            }
        }
        (answered, failures)
    })
}

#[test]
fn no_request_fails_while_models_are_replaced() {
    const SWAPS: u32 = 200;
    let repository = with_real(
        Repository::new().builtin("identity", &Builtin::default()),
        "",
    );
    let kapok = Kapok::new()
        .model_repo(repository.path())
        .config(EXPLICIT)
        .start();
    let stop = Arc::new(AtomicBool::new(false));
    let small = infer_body(&[3], &json!([1, 2, 3]));
    let callers = [
        ask_on(&kapok, ("identity", small.clone()), &stop),
        ask_on(&kapok, ("identity", small), &stop),
        ask_on(&kapok, ("real", real_body()), &stop),
    ];
    for swap in 0..SWAPS {
        let model = if swap % 20 == 0 { "real" } else { "identity" };
        assert_eq!(load(&kapok, model, &json!({})), (200, "{}".to_owned()));
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        let (answered, failures) = caller.join().expect("a caller");
        assert_eq!(failures, Vec::<String>::new());
        assert!(answered > 0);
    }
    let metrics = kapok.admin().get("/metrics").text();
    let swapped = format!("kapok_model_swaps_total{{outcome=\"swapped\"}} {SWAPS}");
    assert!(metrics.contains(&swapped), "{metrics}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, refusal by refusal")]
fn what_is_not_fit_to_serve_is_refused_and_the_old_version_goes_on() {
    let mut other = real_model();
    // Weights: 785 instead of what was learned.
    let middle = other.len() / 2;
    other[middle..middle + 4096].fill(0x44);
    let config = |delay_ms| {
        Repository::new().builtin(
            "slow",
            &Builtin {
                delay_ms,
                ..Builtin::default()
            },
        )
    };
    let compare = "[swap]\ncompare = 2\nmax_p99_regression = 2.0\n";
    let repository = with_real(config(0), compare).file("slow/kapok.toml", compare);
    let root = repository.path();
    let slow = fs::read(config(60).path().join("slow/config.pbtxt")).expect("just written");
    let mut allowed = Kapok::new().model_repo(root).config(EXPLICIT);
    for part in ["model is unavailable", "not replaced"] {
        allowed = allowed.allow_log(part);
    }
    let kapok = allowed.start();
    let serves = |model: &str| {
        let body = match model {
            "slow" => infer_body(&[1], &json!([1])),
            _ => real_body(),
        };
        let answer = kapok
            .http()
            .post(&format!("/v2/models/{model}/infer"), body);
        assert_eq!(answer.status, 200, "{model}: {}", answer.text());
    };
    serves("real");
    serves("slow");
    let good = real_model();
    let hash = format!("{}  model.onnx\n", "0".repeat(64));
    let sidecar = fs::read(root.join("real/kapok.toml")).expect("just written");
    let signed = [
        sidecar.as_slice(),
        format!("[integrity]\npublic_key = \"{KEY}\"\n").as_bytes(),
    ]
    .concat();
    let cases: [(&str, &str, &[u8], &str); 5] = [
        ("real", "1/model.onnx", b"not a model", "not an ONNX model"),
        (
            "real",
            "1/model.onnx",
            &other,
            "disagrees with the version before",
        ),
        (
            "real",
            "1/manifest.sha256",
            hash.as_bytes(),
            "does not have the SHA-256 hash",
        ),
        ("real", "kapok.toml", &signed, "asks for a manifest"),
        (
            "slow",
            "config.pbtxt",
            &slow,
            "slower than the version before",
        ),
    ];
    for (model, file, content, reason) in cases {
        let path = root.join(model).join(file);
        let before = fs::read(&path).ok();
        replace(&path, content);
        let (status, said) = load(&kapok, model, &json!({}));
        assert_eq!(status, 400, "{reason}: {said}");
        assert!(said.contains(reason), "`{reason}` in {said}");
        let (state, why) = state(&kapok, model).expect("known");
        assert_eq!(state, "READY", "{reason}");
        assert!(
            why.contains("not replaced") && why.contains(reason),
            "{why}"
        );
        serves(model);
        match before {
            Some(before) => replace(&path, before),
            None => fs::remove_file(&path).expect("just written"),
        }
    }
    assert_eq!(fs::read(root.join("real/1/model.onnx")).ok(), Some(good));
    assert_eq!(load(&kapok, "real", &json!({})).0, 200);
    assert_eq!(
        state(&kapok, "real"),
        Some(("READY".to_owned(), String::new()))
    );
}

#[test]
fn changes_on_disk_are_followed_and_half_a_file_never_loads() {
    let repository = with_real(
        Repository::new().builtin("identity", &Builtin::default()),
        "",
    );
    let root = repository.path();
    let kapok = Kapok::new()
        .model_repo(root)
        .allow_log("model is unavailable")
        .start();
    let http = kapok.http();
    let batch = || http.get("/v2/models/identity/config").json()["max_batch_size"].clone();
    assert_eq!(batch(), json!(0));
    let builtin = Builtin {
        max_batch: 4,
        ..Builtin::default()
    };
    let changed = Repository::new().builtin("identity", &builtin);
    let text = fs::read(changed.path().join("identity/config.pbtxt")).expect("just written");
    replace(&root.join("identity/config.pbtxt"), text);
    wait::until("the new configuration", || {
        (batch() == json!(4)).then_some(())
    });

    let whole = real_model();
    let second = root.join("real/2");
    fs::create_dir(&second).expect("the folder is ours");
    fs::write(second.join("model.onnx"), &whole[..whole.len() / 2]).expect("ours");
    wait::until("the index to say why", || {
        let index = http.post("/v2/repository/index", "").text();
        assert_ne!(http.get("/v2/models/real/versions/2/ready").status, 200);
        index.contains("not an ONNX model").then_some(())
    });
    let answer = http.post("/v2/models/real/infer", real_body());
    assert_eq!(
        (answer.status, &answer.json()["model_version"]),
        (200, &json!("1"))
    );
    fs::write(second.join("model.onnx"), &whole).expect("ours");
    wait::until("version 2", || {
        let ready = http.get("/v2/models/real/versions/2/ready");
        (ready.status == 200).then_some(())
    });

    fs::remove_dir_all(root.join("identity")).expect("ours");
    wait::until("the model to be gone", || {
        let answer = http.get("/v2/models/identity/ready");
        (answer.status == 404).then_some(())
    });
}

/// RFC 4648 with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= three.len() {
                letter.into()
            } else {
                '='
            });
        }
    }
    text
}

#[test]
fn a_client_brings_its_own_configuration_and_files() {
    let repository = with_real(Repository::new(), "");
    let kapok = Kapok::new()
        .model_repo(repository.path())
        .config(EXPLICIT)
        .start();
    let config = json!({
        "backend": "onnxruntime",
        "parameters": {"whose": {"string_value": "the client's"}},
    })
    .to_string();
    let file = base64(&real_model());
    for body in [
        json!({"parameters": {"config": config}}),
        json!({"parameters": {"config": config, "file:7/model.onnx": file}}),
    ] {
        assert_eq!(load(&kapok, "real", &body), (200, "{}".to_owned()));
        let config = kapok.http().get("/v2/models/real/config").json();
        assert_eq!(
            config["parameters"]["whose"]["string_value"],
            "the client's"
        );
    }
    let answer = kapok.http().post("/v2/models/real/infer", real_body());
    assert_eq!(
        (answer.status, &answer.json()["model_version"]),
        (200, &json!("7"))
    );
    assert_eq!(load(&kapok, "real", &json!({})).0, 200);
    let config = kapok.http().get("/v2/models/real/config").json();
    assert_eq!(config["parameters"]["whose"], Value::Null);
}

#[test]
fn a_hundred_models_share_a_budget_that_holds_some() {
    let mut repository = Repository::new();
    for index in 0..100 {
        repository = repository.builtin(&format!("m{index}"), &Builtin::default());
    }
    let kapok = Kapok::new()
        .model_repo(repository.path())
        .config(EXPLICIT.replace("modelControl", "memoryBudgetMb: 1, modelControl"))
        .start();
    let http = kapok.http();
    // What is asked about a sleeping model is answered, and it is ready: its first request loads it.
    assert_eq!(state(&kapok, "m7").expect("known").0, "UNAVAILABLE");
    assert_eq!(http.get("/v2/models/m7/ready").status, 200);
    assert_eq!(state(&kapok, "m7").expect("known").0, "UNAVAILABLE");
    let metadata = http.get("/v2/models/m7").json();
    assert_eq!(metadata["inputs"][0]["name"], "INPUT0");
    assert_eq!(http.get("/v2/models/m8/config").json()["name"], "m8");
    for round in 0..3 {
        for index in 0..100 {
            // Not in the order of their names.
            let model = (index * 37 + round) % 100;
            let path = format!("/v2/models/m{model}/infer");
            let answer = http.post(&path, infer_body(&[1], &json!([model])));
            assert_eq!(answer.status, 200, "m{model}: {}", answer.text());
        }
    }
    let index = http.post("/v2/repository/index", "").json();
    let entries = index.as_array().expect("a list").iter();
    let awake = entries.filter(|entry| entry["state"] == "READY").count();
    assert!((1..=64).contains(&awake), "{awake} of 16 KiB in 1 MiB");
    assert_eq!(http.get("/v2/health/ready").status, 200);
}

#[test]
fn versions_have_names_over_rest_and_grpc() {
    let repository = Repository::new()
        .builtin("m", &Builtin::default())
        .file("m/2/.keep", "")
        .file(
            "m/kapok.toml",
            "[versions]\nlabels = { stable = 1, canary = 2 }\n",
        );
    let config = repository.path().join("m/config.pbtxt");
    let text = fs::read_to_string(&config).expect("just written");
    fs::write(config, format!("{text}version_policy {{ all {{}} }}\n")).expect("ours");
    let kapok = Kapok::new().model_repo(repository.path()).start();
    for (asked, version) in [("stable", "1"), ("canary", "2"), ("1", "1")] {
        let path = format!("/v2/models/m/versions/{asked}/infer");
        let answer = kapok.http().post(&path, infer_body(&[1], &json!([1])));
        assert_eq!(answer.json()["model_version"], version, "{asked}");
    }
    let answer = kapok.http().post(
        "/v2/models/m/versions/other/infer",
        infer_body(&[1], &json!([1])),
    );
    assert_eq!(answer.status, 404, "{}", answer.text());
    println!("{}", Script::new("triton_labels.py").against(&kapok).run());
}
