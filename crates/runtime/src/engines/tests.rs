use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::testing::Fake;

fn source(backend: &str) -> Source {
    Source {
        backend: backend.to_owned(),
        ..Source::default()
    }
}

fn names(engines: &[Arc<dyn Engine>]) -> Vec<&'static str> {
    engines.iter().map(|engine| engine.name()).collect()
}

#[test]
fn libraries_are_looked_for_once_and_not_before_a_model_needs_one() {
    let looked = Arc::new(AtomicUsize::new(0));
    let (seen, engine) = (Arc::clone(&looked), Fake::new("onnxruntime").engine());
    let engines = Engines::new(move || {
        // Threads that a library starts inherit its name.
        assert_eq!(std::thread::current().name(), Some("engine"));
        seen.fetch_add(1, Ordering::Relaxed);
        vec![engine]
    });
    let identity = source("identity");
    assert_eq!(names(engines.of(&identity, None)), ["builtin"]);
    assert_eq!(names(engines.of(&identity, Some("builtin"))), ["builtin"]);
    let shown = format!("{engines:?}");
    assert!(shown.contains("Builtin"), "{shown}");
    assert_eq!(looked.load(Ordering::Relaxed), 0);
    let all = ["onnxruntime", "builtin"];
    assert_eq!(names(engines.of(&source("onnxruntime"), None)), all);
    // An owner who names another engine is told that it does not do this.
    assert_eq!(names(engines.of(&identity, Some("rten"))), all);
    assert_eq!(looked.load(Ordering::Relaxed), 1);
}
