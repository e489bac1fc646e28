use super::*;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("kapok-xtask-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn hello(scratch: &Scratch) -> Expected<'static> {
    Expected {
        path: scratch.0.join("models/m/1/model.onnx"),
        bytes: 5,
        sha256: HELLO,
    }
}

#[test]
fn a_placed_file_is_present_until_someone_changes_it() {
    let scratch = Scratch::new("place");
    let store = Store::new(scratch.0.clone());
    let expected = hello(&scratch);
    assert!(!store.present(&expected).unwrap());
    store.place(&mut &b"hello"[..], &expected).unwrap();
    assert!(store.present(&expected).unwrap());
    fs::write(&expected.path, "jello").unwrap();
    assert!(!store.present(&expected).unwrap(), "same size, other bytes");
    fs::write(&expected.path, "hello").unwrap();
    assert!(store.present(&expected).unwrap(), "put right by hand");
}

#[test]
fn wrong_bytes_are_refused_and_leave_nothing_behind() {
    let scratch = Scratch::new("refuse");
    let store = Store::new(scratch.0.clone());
    let expected = hello(&scratch);
    for wrong in ["jello", "hell", "hello!", ""] {
        let error = store.place(&mut wrong.as_bytes(), &expected).unwrap_err();
        assert!(error.to_string().contains("expected"), "{wrong}: {error}");
    }
    let left: Vec<_> = fs::read_dir(expected.path.parent().unwrap())
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
