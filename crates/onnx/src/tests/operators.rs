//! Operators that a model brings, with the sample library.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use protocol::oip::proto::ModelOperations;
use protocol::sidecar::Sidecar;
use runtime::engine::{EngineError, LoadOptions, Source};

use super::build::{Model, model, node, tensor};
use super::{engines, floats, source};
use crate::proto::{Opset, element};

/// Built beside the tests.
fn library() -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    let target = test.ancestors().nth(2);
    let target = target.expect("target/<profile>/deps/<test>");
    target.join("examples/libdouble_plus.so")
}

fn double_plus() -> Model {
    let mut operator = node("DoublePlus", &["x"], &["y"]);
    operator.domain = "kapok.sample".to_owned();
    let ports = |name| vec![tensor(name, element::FLOAT, &[-1, 2])];
    let mut model = model(vec![operator], ports("x"), ports("y"));
    model.opsets.push(Opset {
        domain: "kapok.sample".to_owned(),
        version: 1,
    });
    model
}

fn in_configuration(source: &mut Source, library: &Path) {
    let config = Arc::make_mut(&mut source.config);
    config.model_operations = Some(ModelOperations {
        op_library_filename: vec![library.display().to_string()],
    });
}

fn in_sidecar(source: &mut Source, library: &Path) {
    let mut sidecar = Sidecar::default();
    sidecar.custom_ops.libs.push(library.to_owned());
    source.sidecar = Arc::new(sidecar);
}

#[test]
fn a_model_runs_with_the_operators_it_brings() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, double_plus().encode_to_vec()).expect("a file");
    std::fs::copy(library(), folder.path().join("ops.so")).expect("built with the tests");
    let plain = Source {
        folder: folder.path().to_owned(),
        ..source(&path)
    };
    let absolute = folder.path().join("ops.so");
    let named = |name: fn(&mut Source, &Path), library: &Path| {
        let mut source = plain.clone();
        name(&mut source, library);
        source
    };
    let ways = [
        named(in_configuration, Path::new("ops.so")),
        named(in_sidecar, Path::new("ops.so")),
        named(in_sidecar, &absolute),
    ];
    for engine in engines() {
        for source in &ways {
            let loaded = engine.load(source, LoadOptions::default());
            if engine.name() != "onnxruntime" {
                let error = loaded.expect_err("refused").to_string();
                assert!(error.contains("ops.so"), "{error}");
                continue;
            }
            let loaded = loaded.expect("loads");
            // Lanes have sessions of their own, as the library promises nothing about calls at once.
            std::thread::scope(|scope| {
                for start in [0.0, 10.0] {
                    let mut lane = loaded.lane().expect("a lane");
                    scope.spawn(move || {
                        for _ in 0..20 {
                            let x = [start, 1.5, -3.0, 0.0];
                            let y = x.map(|x| 2.0 * x + 1.0);
                            let outputs = lane.once(&[floats("x", &[2, 2], &x)], &[0]);
                            assert_eq!(outputs.expect("runs"), [floats("y", &[2, 2], &y)]);
                        }
                    });
                }
            });
        }
    }
}

#[test]
fn a_model_whose_operators_are_missing_says_which() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, double_plus().encode_to_vec()).expect("a file");
    std::fs::write(folder.path().join("text.so"), "no library").expect("a file");
    let mut broken = Source {
        folder: folder.path().to_owned(),
        ..source(&path)
    };
    in_sidecar(&mut broken, Path::new("text.so"));
    for engine in engines() {
        for (source, part) in [(&source(&path), "DoublePlus"), (&broken, "text.so")] {
            let error = engine.load(source, LoadOptions::default());
            let error = error.expect_err("refused");
            assert!(
                matches!(error, EngineError::Unsupported { .. }),
                "{error:?}"
            );
            let error = error.to_string();
            let home = folder.path().to_string_lossy();
            assert!(
                error.contains(part) && !error.contains(&*home),
                "{}: {error}",
                engine.name()
            );
        }
    }
}
