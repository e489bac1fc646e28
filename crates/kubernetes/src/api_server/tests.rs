//! Kubernetes' own client against the server, with our manifests.

use std::path::{Path, PathBuf};
use std::process::Command;

use base::Tasks;

use super::{ApiServer, Kind};

/// Where `cargo xtask test` puts it.
fn kubectl() -> PathBuf {
    let cache = std::env::var_os("KAPOK_TEST_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/kapok"),
        PathBuf::from,
    );
    let program = cache.join("kubectl/kubectl");
    assert!(
        program.is_file(),
        "{} is missing: run `cargo xtask test`",
        program.display()
    );
    program
}

/// What it prints, which must be without complaint.
fn run(server: &ApiServer, home: &Path, args: &[&str]) -> String {
    let mut command = Command::new(kubectl());
    command.arg(format!("--server={}", server.url())).args(args);
    // It keeps what it learns of a server, and must find no configuration of the user's.
    command.env_clear().env("HOME", home).env("NO_PROXY", "*");
    let done = tokio::task::block_in_place(|| command.output()).expect("it runs");
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "kubectl {args:?}: {complaint}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_takes_the_manifests() {
    let tasks = Tasks::new();
    let server = ApiServer::start(&tasks).await;
    let home = tempfile::tempdir().expect("a temporary folder");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manifest/golden");
    for (file, expected) in [
        ("process.json", "job.batch/train-7f-1\n"),
        (
            "replica.json",
            "deployment.apps/resnet50-v2-3-1\nservice/resnet50-v2-3-1\n",
        ),
    ] {
        let file = golden.join(file).display().to_string();
        for mode in ["--dry-run=client", "--dry-run=none"] {
            let args = [
                "create",
                mode,
                "--validate=false",
                "-o",
                "name",
                "-f",
                &file,
            ];
            assert_eq!(run(&server, home.path(), &args), expected, "{mode} {file}");
        }
    }
    let file = golden.join("priority_classes.json").display().to_string();
    let made = run(
        &server,
        home.path(),
        &["create", "--validate=false", "-o", "name", "-f", &file],
    );
    assert_eq!(made.lines().count(), 10, "{made}");
    let args = [
        "get",
        "jobs",
        "-n",
        "vision",
        "-l",
        "kapok.dev/tenant=team-a",
        "-o",
        "name",
    ];
    assert_eq!(run(&server, home.path(), &args), "job.batch/train-7f-1\n");
    let args = [
        "delete",
        "service",
        "-n",
        "vision",
        "resnet50-v2-3-1",
        "--wait=false",
    ];
    run(&server, home.path(), &args);
    assert!(server.get(Kind::Services, "resnet50-v2-3-1").is_none());
}
