//! Where the binary under test is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// The `kapok` built from the present sources, in the profile of this test; built once per process.
///
/// `KAPOK_TEST_BINARY` names another one: a release build, an installed package.
pub fn path() -> &'static Path {
    BINARY.get_or_init(|| {
        if let Some(given) = std::env::var_os("KAPOK_TEST_BINARY") {
            return PathBuf::from(given);
        }
        build()
    })
}

/// A test executable lives in `<target>/<profile>/deps/`. Cargo's own lock makes this safe beside other test processes,
/// and it is a no-op of a fraction of a second when nothing changed.
fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile_dir = test
        .ancestors()
        .find(|dir| dir.file_name().is_some_and(|name| name == "deps"))
        .and_then(Path::parent)
        .expect("cargo puts tests under <target>/<profile>/deps");
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(other) => other,
        None => "dev",
    };
    let target = profile_dir.parent().expect("the profile is in the target");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "-p", "kapok", "--profile", profile])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo build -p kapok:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    profile_dir.join("kapok")
}
