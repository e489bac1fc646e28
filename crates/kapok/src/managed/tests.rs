use std::fs;
use std::path::PathBuf;

use base::TaskKind;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A managed `/bin/sh` script, and everything that was reported of it.
struct Fixture {
    folder: TempDir,
    address: std::net::SocketAddr,
    tasks: Tasks,
    reports: Arc<Mutex<Vec<Result<(), String>>>>,
    _wish: watch::Sender<Wish>,
}

impl Fixture {
    /// The script can use `$FOLDER`.
    fn start(script: &str, change: impl FnOnce(&mut ProcessSpec)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let mut upstream: UpstreamSpec = serde_json::from_value(serde_json::json!({
            "url": format!("http://{address}"),
            "process": {
                "command": ["/bin/sh", "-c", script],
                "env": {"FOLDER": folder.path()},
                "stopTimeoutMs": 60_000,
            },
        }))
        .expect("a good spec");
        change(upstream.process.as_mut().expect("a process"));
        let reports = Arc::new(Mutex::new(Vec::new()));
        let tasks = Tasks::new();
        let seen = Arc::clone(&reports);
        let report: Report = Arc::new(move |name, state| {
            assert_eq!(name, "fake");
            match state {
                State::Ready => seen.lock().push(Ok(())),
                State::Starting("its process is starting") => {}
                State::Starting(reason) | State::Down(reason) => {
                    seen.lock().push(Err(reason.to_owned()));
                }
            }
        });
        let (wish, wishes) = watch::channel(Wish::Run);
        let clock = Clock::real();
        let mut managed = Managed::new("fake", &upstream, report, clock, (tasks.clone(), wishes))
            .expect("a good URL")
            .expect("a process");
        // Processes of the real binary are tested in `e2e`.
        managed.keeper = Keeper::Thread;
        managed.pace = Pace {
            starting: Duration::from_millis(5),
            ready: Duration::from_millis(5),
            restart: (Duration::from_millis(5), Duration::from_millis(50)),
            ..Pace::default()
        };
        tasks.spawn(TaskKind::ManagedProcess, "fake", async move {
            managed.run(None).await;
            Ok(())
        });
        Self {
            folder,
            address,
            tasks,
            reports,
            _wish: wish,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The pids that the script wrote, one a line.
    async fn pids(&self, count: usize) -> Vec<Pid> {
        until(|| {
            let text = fs::read_to_string(self.file("pids")).unwrap_or_default();
            let complete = text.ends_with('\n');
            let pids: Vec<Pid> = text
                .lines()
                .filter_map(|line| Pid::from_raw(line.trim().parse().ok()?))
                .collect();
            (complete && pids.len() >= count).then_some(pids)
        })
        .await
    }

    async fn report(&self, count: usize) -> Result<(), String> {
        until(|| self.reports.lock().get(count - 1).cloned()).await
    }

    /// Answers every request on the upstream's address until dropped.
    async fn serve(&self) -> Tasks {
        let listener = TcpListener::bind(self.address)
            .await
            .expect("the port is still free");
        let tasks = Tasks::new();
        tasks.spawn(TaskKind::HealthCheck, "fake server", async move {
            loop {
                let (mut stream, _) = listener.accept().await?;
                let mut request = [0; 1024];
                let _count = stream.read(&mut request).await?;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                stream.write_all(answer).await?;
            }
        });
        tasks
    }
}

/// Looks again and again until there is something, for at most half a minute.
async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Clock::real().now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Clock::real().now() < deadline, "it did not happen");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn alive(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}

const STAY: &str = "echo $$ >> $FOLDER/pids; exec sleep 600";

#[tokio::test]
async fn a_ready_process_that_dies_is_started_again_and_stopped_with_the_node() {
    let fixture = Fixture::start(STAY, |_| {});
    let first = fixture.pids(1).await[0];
    let server = fixture.serve().await;
    assert_eq!(fixture.report(1).await, Ok(()));

    server.drain(Duration::ZERO).await;
    drop(server);
    kill_process(first, Signal::KILL).expect("it lives");
    let reason = fixture.report(2).await.expect_err("it died");
    assert!(
        reason.contains("SIGKILL") || reason.contains("nothing answers"),
        "{reason}"
    );
    let second = fixture.pids(2).await[1];
    assert_ne!(first, second);
    let _server = fixture.serve().await;
    until(|| {
        fixture
            .reports
            .lock()
            .last()
            .filter(|last| last.is_ok())
            .map(|_| ())
    })
    .await;

    assert!(fixture.tasks.drain(Duration::from_secs(30)).await);
    assert!(!alive(second));
    assert_eq!(fixture.pids(2).await.len(), 2, "it was started once more");
}

#[tokio::test]
async fn stopping_ends_the_whole_group_even_what_ignores_the_signal() {
    let script = "trap '' TERM; (trap '' TERM; echo started; sleep 600 & echo $! >> $FOLDER/pids; wait) & \
                  echo $$ >> $FOLDER/pids; while :; do sleep 600; done";
    let fixture = Fixture::start(script, |process| process.stop_timeout_ms = 20);
    let pids = fixture.pids(2).await;
    assert!(fixture.tasks.drain(Duration::from_secs(30)).await);
    for pid in pids {
        until(|| (!alive(pid)).then_some(())).await;
    }
}

#[tokio::test]
async fn what_a_process_starts_does_not_outlive_it() {
    let fixture = Fixture::start("sleep 600 & echo $! >> $FOLDER/pids; exit 3", |_| {});
    let left_behind = fixture.pids(1).await[0];
    let reason = fixture.report(1).await.expect_err("it ended");
    assert!(reason.contains("exit status: 3"), "{reason}");
    until(|| (!alive(left_behind)).then_some(())).await;
    fixture.tasks.drain(Duration::from_secs(30)).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_a_process_leaves_behind_is_buried_when_kapok_is_the_first_of_a_container() {
    // From here on this process inherits orphans, as the first process of a container does.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("Linux 3.4");
    let fixture = Fixture::start("sleep 600 & echo $! >> $FOLDER/pids; exit 3", |_| {});
    let left_behind = fixture.pids(1).await[0];
    fixture
        .report(1)
        .await
        .expect_err("it ended, and was reaped before that was told");
    assert!(!alive(left_behind));
    fixture.tasks.drain(Duration::from_secs(30)).await;
}

#[tokio::test]
async fn the_reason_names_what_was_wrong() {
    let crash = Fixture::start(
        "echo loading; echo 'cannot open model.gguf' >&2; exit 1",
        |_| {},
    );
    let reason = crash.report(1).await.expect_err("it ended");
    assert!(reason.contains("exit status: 1"), "{reason}");
    assert!(reason.contains("cannot open model.gguf"), "{reason}");
    crash.tasks.drain(Duration::from_secs(30)).await;

    let missing = Fixture::start("", |process| {
        process.command = vec!["/nowhere/server".into()]
    });
    let reason = missing.report(2).await.expect_err("it cannot start");
    assert!(
        reason.contains("`/nowhere/server` cannot be started"),
        "{reason}"
    );
    missing.tasks.drain(Duration::from_secs(30)).await;

    let slow = Fixture::start(STAY, |process| process.start_timeout_ms = 20);
    let reason = slow.report(1).await.expect_err("it never answers");
    assert!(
        reason.contains("not ready") && reason.contains("nothing answers"),
        "{reason}"
    );
    let pids = slow.pids(2).await;
    assert!(!alive(pids[0]));
    slow.tasks.drain(Duration::from_secs(30)).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_and_nothing_is_started() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let marker = folder.path().join("started");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let upstream: UpstreamSpec = serde_json::from_value(serde_json::json!({
        "url": format!("http://{address}"),
        "process": {"command": ["touch", marker]},
    }))
    .expect("a good spec");
    let (told, reason) = tokio::sync::watch::channel(String::new());
    let report: Report = Arc::new(move |_, state| match state {
        State::Down(reason) => drop(told.send_replace(reason.to_owned())),
        other => panic!("the port is taken: {other:?}"),
    });
    let tasks = Tasks::new();
    let (_wish, wishes) = watch::channel(Wish::Run);
    let clock = Clock::real();
    let managed = Managed::new("fake", &upstream, report, clock, (tasks.clone(), wishes))
        .expect("a good URL")
        .expect("a process");
    tasks.spawn(TaskKind::ManagedProcess, "fake", async move {
        managed.run(None).await;
        Ok(())
    });
    until(|| {
        reason
            .borrow()
            .contains("another program already listens")
            .then_some(())
    })
    .await;
    assert!(!marker.exists());
    tasks.drain(Duration::from_secs(30)).await;
}
