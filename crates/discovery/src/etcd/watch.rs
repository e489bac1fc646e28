use bytes::BytesMut;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::client::{Client, bytes, number, range};
use crate::Error;

/// Largest message: etcd's own limit of a request is 1.5 MiB, and one message can carry several.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// What happens under a prefix, from a revision on.
#[derive(Debug)]
pub(super) struct Watch {
    body: Incoming,
    unread: BytesMut,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The watch is there.
    Created,
    /// Keys and their new values; none for one that is gone.
    Changes {
        revision: u64,
        changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    },
    /// The revision to begin with is no longer kept.
    Compacted,
}

impl Watch {
    pub(super) async fn open(client: &mut Client, prefix: &str, from: u64) -> Result<Self, Error> {
        let mut create = range(prefix);
        create["start_revision"] = json!(from.to_string());
        create["progress_notify"] = json!(true);
        let request = json!({ "create_request": create });
        let response = client.open("/v3/watch", &request).await?;
        Ok(Self {
            body: response.into_body(),
            unread: BytesMut::new(),
        })
    }

    /// Waits for the next message. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Told, Error> {
        loop {
            // One JSON document a line.
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line = self.unread.split_to(end + 1);
                return read(&line);
            }
            let ended = || Error::Etcd("the watch has ended".to_owned());
            let frame = self.body.frame().await.ok_or_else(ended)?;
            let frame =
                frame.map_err(|error| Error::Etcd(format!("the watch broke off: {error}")))?;
            if let Some(data) = frame.data_ref() {
                self.unread.extend_from_slice(data);
            }
            if self.unread.len() > MESSAGE_BYTES_MAX {
                return Err(Error::Etcd(
                    "a message of the watch is too large".to_owned(),
                ));
            }
        }
    }
}

fn read(line: &[u8]) -> Result<Told, Error> {
    let message: Value = serde_json::from_slice(line)
        .map_err(|error| Error::Etcd(format!("a message of the watch is not JSON: {error}")))?;
    if let Some(error) = message.get("error") {
        let reason = error["message"]
            .as_str()
            .or(error.as_str())
            .unwrap_or("no reason");
        return Err(Error::Etcd(format!("the watch is refused: {reason}")));
    }
    let result = &message["result"];
    if number(&result["compact_revision"]).is_some_and(|revision| revision > 0) {
        return Ok(Told::Compacted);
    }
    if result["canceled"].as_bool() == Some(true) {
        let reason = result["cancel_reason"].as_str().unwrap_or("no reason");
        return Err(Error::Etcd(format!("the watch is cancelled: {reason}")));
    }
    let events = result["events"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let revision = number(&result["header"]["revision"]).unwrap_or_default();
    // A word of progress has no events: all before its revision has been told.
    if events.is_empty() && result["created"].as_bool() == Some(true) {
        return Ok(Told::Created);
    }
    let changes = events.iter().map(|event| {
        let pair = &event["kv"];
        let gone = event["type"].as_str() == Some("DELETE");
        (bytes(&pair["key"]), (!gone).then(|| bytes(&pair["value"])))
    });
    Ok(Told::Changes {
        revision,
        changes: changes.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_as_etcd_3_4_sends_them() {
        let check = |text: &str| read(text.as_bytes()).map_err(|error| error.to_string());
        let created = r#"{"result":{"header":{"cluster_id":"1","revision":"7"},"created":true}}"#;
        assert_eq!(check(created), Ok(Told::Created));
        // "YQ==" is a, "Yg==" is b.
        let events = r#"{"result":{"header":{"revision":"9"},"events":[{"kv":{"key":"YQ==","value":"Yg==","mod_revision":"8"}},{"type":"DELETE","kv":{"key":"Yg==","mod_revision":"9"}}]}}"#;
        let changes = vec![(b"a".to_vec(), Some(b"b".to_vec())), (b"b".to_vec(), None)];
        let revision = 9;
        assert_eq!(check(events), Ok(Told::Changes { revision, changes }));
        let progress = r#"{"result":{"header":{"revision":"12"}}}"#;
        let changes = Vec::new();
        let revision = 12;
        assert_eq!(check(progress), Ok(Told::Changes { revision, changes }));
        let compacted =
            r#"{"result":{"header":{"revision":"20"},"canceled":true,"compact_revision":"15"}}"#;
        assert_eq!(check(compacted), Ok(Told::Compacted));
        for (bad, part) in [
            (
                r#"{"result":{"canceled":true,"cancel_reason":"no"}}"#,
                "cancelled: no",
            ),
            (
                r#"{"error":{"message":"permission denied"}}"#,
                "permission denied",
            ),
            ("{", "not JSON"),
        ] {
            let error = check(bad).expect_err(bad);
            assert!(error.contains(part), "{error}");
        }
    }
}
