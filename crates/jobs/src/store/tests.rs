use protocol::resource::{JobSpec, JobStatus, Metadata, Timestamp};

use super::*;

fn record(number: u64) -> Record {
    Record {
        number,
        job: Job {
            metadata: Metadata::default(),
            spec: JobSpec::default(),
            status: JobStatus::new(format!("job-{number}"), Timestamp::from_millis(number)),
        },
        entry: None,
    }
}

#[test]
fn what_was_written_is_there_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |store: &dyn Store| {
        assert_eq!(store.load().expect("empty"), []);
        store
            .write(&[record(1), record(2), record(3)], &[])
            .expect("room");
        store.write(&[record(2)], &[1, 9]).expect("room");
        assert_eq!(store.load().expect("two"), [record(2), record(3)]);
    };
    check(&InMemory::default());
    check(&Embedded::open(folder.path()).expect("a new file"));
    let again = Embedded::open(folder.path()).expect("the same file");
    assert_eq!(again.load().expect("two"), [record(2), record(3)]);
}

#[test]
fn a_file_in_other_hands_is_told_from_a_broken_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let held = Embedded::open(folder.path()).expect("a new file");
    let second = Embedded::open(folder.path());
    assert!(matches!(second, Err(StoreError::Busy { .. })), "{second:?}");
    drop(held);
    std::fs::write(folder.path().join("jobs.redb"), b"not a database").expect("written");
    let broken = Embedded::open(folder.path());
    assert!(
        matches!(broken, Err(StoreError::Broken { .. })),
        "{broken:?}"
    );
}

#[test]
fn an_entry_of_another_version_of_the_queue_is_left_out() {
    let mut json = serde_json::to_value(record(7)).expect("JSON");
    json["entry"] = serde_json::json!({"of": "tomorrow"});
    let read: Record = serde_json::from_value(json).expect("a record");
    assert_eq!(read, record(7));
}
