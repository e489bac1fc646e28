use protocol::{DataType, Tensor};

use super::*;
use crate::read::Budget;

fn held() -> Arc<Held> {
    Held::nothing(&Budget::new(1 << 20))
}

/// A shared memory object of this test's own, gone with it.
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn new(name: &str, content: &[u8]) -> Self {
        let name = format!("kapok-test-{}-{name}", std::process::id());
        std::fs::write(format!("{FOLDER}/{name}"), content).expect("/dev/shm is writable");
        Self(name)
    }

    pub(crate) fn key(&self) -> String {
        format!("/{}", self.0)
    }

    pub(crate) fn content(&self) -> Vec<u8> {
        std::fs::read(format!("{FOLDER}/{}", self.0)).expect("still there")
    }

    pub(crate) fn resize(&self, bytes: u64) {
        let file = File::options()
            .write(true)
            .open(format!("{FOLDER}/{}", self.0));
        file.and_then(|file| file.set_len(bytes)).expect("writable");
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(format!("{FOLDER}/{}", self.0));
    }
}

fn place(region: &str, offset: u64, bytes: u64) -> Shared {
    Shared {
        region: region.to_owned(),
        offset,
        bytes,
    }
}

fn answer(bytes: &[u8]) -> InferResponse {
    let data = Bytes::copy_from_slice(bytes);
    let tensor = Tensor::new("y", DataType::Uint8, vec![bytes.len()], data).expect("valid");
    InferResponse {
        outputs: vec![tensor],
        ..InferResponse::default()
    }
}

#[tokio::test]
async fn tensors_are_read_from_and_written_to_their_place() {
    let content: Vec<u8> = (0..STEP_BYTES * 2 + 100)
        .map(|i| u8::try_from(i % 251).expect("below"))
        .collect();
    let object = Object::new("place", &content);
    let regions = Regions::default();
    let size = content.len() as u64;
    regions
        .register("r", &object.key(), (10, size - 10))
        .expect("free");
    let pool = BufferPool::default();
    let read = regions
        .read(&place("r", 5, size - 20), &pool, &held())
        .await
        .expect("inside");
    assert_eq!(read[..], content[15..content.len() - 5]);
    let placement = Placement::from([("y".to_owned(), place("r", 2, 8))]);
    let destinations = regions.destinations(&placement).expect("inside");
    regions.unregister("r");
    write(&destinations, &answer(&[1, 2, 3]))
        .await
        .expect("unregistered, and in flight");
    assert_eq!(
        object.content()[11..16],
        [content[11], 1, 2, 3, content[15]]
    );
    let refused = write(&destinations, &answer(&[0; 9]))
        .await
        .expect_err("too long");
    assert_eq!(
        refused.message,
        "shared memory size specified with the request for output 'y' (8 bytes) should be at least 9 bytes to hold the results"
    );
}

#[tokio::test]
async fn a_region_that_was_cut_short_is_an_error_and_no_more() {
    let object = Object::new("cut", &[7; 64]);
    let regions = Regions::default();
    regions.register("r", &object.key(), (0, 64)).expect("free");
    let placement = Placement::from([("y".to_owned(), place("r", 0, 64))]);
    let destinations = regions.destinations(&placement).expect("inside");
    object.resize(32);
    let pool = BufferPool::default();
    let refused = regions
        .read(&place("r", 0, 64), &pool, &held())
        .await
        .expect_err("it is shorter");
    assert!(refused.message.contains("has become smaller"), "{refused}");
    let refused = write(&destinations, &answer(&[1; 64]))
        .await
        .expect_err("it is shorter");
    assert!(refused.message.contains("has become smaller"), "{refused}");
    assert_eq!(object.content(), [7; 32]);
}

#[test]
fn what_triton_refuses_is_refused_in_its_words() {
    let object = Object::new("refused", &[0; 64]);
    let key = object.key();
    let regions = Regions::default();
    regions.register("r", &key, (0, 64)).expect("free");
    for (name, key, (offset, bytes), part) in [
        (
            "r",
            key.as_str(),
            (0, 64),
            "shared memory region 'r' already in manager",
        ),
        (
            "s",
            &key,
            (0, 65),
            "failed to register shared memory region 's': invalid args",
        ),
        ("s", &key, (u64::MAX, 2), "invalid args"),
        (
            "s",
            "/kapok-test-no-such",
            (0, 1),
            "Unable to open shared memory region: '/kapok-test-no-such'",
        ),
        ("s", "/../../etc/passwd", (0, 1), "Unable to open"),
        ("s", "..", (0, 1), "Unable to open"),
        ("s", "", (0, 1), "Unable to open"),
        ("s", "/", (0, 1), "Unable to open"),
        ("s", "a\0b", (0, 1), "Unable to open"),
        ("", &key, (0, 1), "1 to 255 bytes"),
    ] {
        let refused = regions
            .register(name, key, (offset, bytes))
            .expect_err(part);
        assert!(refused.message.contains(part), "{refused}");
    }
    for (place, part) in [
        (
            place("none", 0, 1),
            "Unable to find shared memory region: 'none'",
        ),
        (
            place("r", 64, 0),
            "Invalid offset for shared memory region: 'r'",
        ),
        (
            place("r", u64::MAX - 31, 64),
            "Invalid offset for shared memory region: 'r'",
        ),
        (
            place("r", 1, 64),
            "Invalid offset + byte size for shared memory region: 'r'",
        ),
        (
            place("r", 1, u64::MAX),
            "Invalid offset + byte size for shared memory region: 'r'",
        ),
    ] {
        let refused = regions.find(&place).expect_err(part);
        assert_eq!(refused.message, part);
    }
    assert_eq!(regions.status("").expect("all").len(), 1);
    assert!(regions.status("s").is_err());
    regions.unregister("s");
    regions.unregister("");
    assert!(regions.status("").expect("all").is_empty());
}

#[tokio::test]
async fn inputs_count_as_bodies_do() {
    let object = Object::new("large", &[0; 8]);
    object.resize(1 << 40);
    let regions = Regions::default();
    regions
        .register("r", &object.key(), (0, 1 << 40))
        .expect("free");
    let (pool, held) = (BufferPool::default(), held());
    for bytes in [1 << 40, (1 << 20) + 1] {
        let refused = regions.read(&place("r", 0, bytes), &pool, &held).await;
        assert_eq!(refused.expect_err("too large").kind, ErrorKind::Unavailable);
    }
    let read = regions.read(&place("r", 0, 1 << 20), &pool, &held).await;
    assert_eq!(read.map(|bytes| bytes.len()), Ok(1 << 20));
}

#[test]
fn a_link_in_the_folder_leads_nowhere() {
    let object = Object::new("target", &[0; 8]);
    let link = format!("kapok-test-{}-link", std::process::id());
    let path = format!("{FOLDER}/{link}");
    std::os::unix::fs::symlink(format!("{FOLDER}{}", object.key()), &path).expect("writable");
    let refused = open(&link);
    std::fs::remove_file(path).expect("made above");
    assert!(refused.is_err());
}

#[test]
fn there_is_a_bound_on_regions() {
    let object = Object::new("many", &[0; 8]);
    let regions = Regions::default();
    for index in 0..REGIONS_MAX {
        let registered = regions.register(&format!("r{index}"), &object.key(), (0, 8));
        registered.expect("room for it");
    }
    let refused = regions
        .register("more", &object.key(), (0, 8))
        .expect_err("full");
    assert!(refused.message.contains("unregister one"), "{refused}");
}
