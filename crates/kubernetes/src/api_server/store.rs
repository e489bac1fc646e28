use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::Kind;

/// One thing that happened.
#[derive(Debug, Clone)]
pub(super) struct Happened {
    pub(super) version: u64,
    pub(super) kind: Kind,
    pub(super) how: &'static str,
    pub(super) object: Value,
}

#[derive(Debug)]
pub(super) struct Store {
    version: u64,
    /// Versions before this one cannot be watched from.
    oldest: u64,
    objects: BTreeMap<(Kind, String), Value>,
    history: Vec<Happened>,
    /// Counts changes; watches end when the second number does.
    pub(super) changes: watch::Sender<(u64, u64)>,
    pub(super) refusals: Vec<(String, u16)>,
    pub(super) requests: Vec<String>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            version: 1,
            oldest: 0,
            objects: BTreeMap::new(),
            history: Vec::new(),
            changes: watch::Sender::new((0, 0)),
            refusals: Vec::new(),
            requests: Vec::new(),
        }
    }
}

/// `metadata.name`.
fn name_of(object: &Value) -> String {
    object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

impl Store {
    pub(super) fn get(&self, kind: Kind, name: &str) -> Option<Value> {
        self.objects.get(&(kind, name.to_owned())).cloned()
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn list(&self, kind: Kind, selector: &str) -> Vec<Value> {
        let of_kind = self.objects.iter().filter(|((known, _), _)| *known == kind);
        let objects = of_kind.map(|(_, object)| object);
        objects
            .filter(|object| selects(selector, object))
            .cloned()
            .collect()
    }

    /// Creates or replaces; answers what is kept.
    pub(super) fn apply(&mut self, kind: Kind, mut object: Value) -> Value {
        let key = (kind, name_of(&object));
        let how = match self.objects.get(&key) {
            Some(before) => {
                object["metadata"]["uid"] = before["metadata"]["uid"].clone();
                "MODIFIED"
            }
            None => {
                object["metadata"]["uid"] = format!("uid-{}", self.version + 1).into();
                object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
                "ADDED"
            }
        };
        let (group_version, _, word, _) = kind.words();
        object["apiVersion"] = group_version.into();
        object["kind"] = word.into();
        self.happened(kind, how, object)
    }

    fn happened(&mut self, kind: Kind, how: &'static str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let key = (kind, name_of(&object));
        if how == "DELETED" {
            self.objects.remove(&key);
        } else {
            self.objects.insert(key, object.clone());
        }
        self.history.push(Happened {
            version: self.version,
            kind,
            how,
            object: object.clone(),
        });
        self.changes.send_modify(|(changes, _)| *changes += 1);
        object
    }

    pub(super) fn remove(&mut self, kind: Kind, name: &str) {
        if let Some(object) = self.get(kind, name) {
            self.happened(kind, "DELETED", object);
        }
    }

    /// In the foreground an object stays until its pods are gone; otherwise it goes at once.
    pub(super) fn delete(&mut self, kind: Kind, name: &str, foreground: bool) -> Option<Value> {
        let mut object = self.get(kind, name)?;
        if foreground {
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z".into();
            object["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
            return Some(self.happened(kind, "MODIFIED", object));
        }
        Some(self.happened(kind, "DELETED", object))
    }

    pub(super) fn forget(&mut self) {
        self.version += 1;
        self.oldest = self.version;
        self.history.clear();
        self.cut();
    }

    pub(super) fn cut(&mut self) {
        self.changes.send_modify(|(changes, cuts)| {
            *changes += 1;
            *cuts += 1;
        });
    }

    /// What happened after a version; none if that is not known any more.
    pub(super) fn since(&self, version: u64, kind: Kind, selector: &str) -> Option<Vec<Happened>> {
        if version < self.oldest {
            return None;
        }
        let after = self
            .history
            .iter()
            .filter(|one| one.version > version && one.kind == kind);
        Some(
            after
                .filter(|one| selects(selector, &one.object))
                .cloned()
                .collect(),
        )
    }
}

/// `a=b,c`: equality and presence.
fn selects(selector: &str, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    let terms = selector.split(',').filter(|term| !term.is_empty());
    terms.into_iter().all(|term| match term.split_once('=') {
        Some((label, value)) => labels[label] == value,
        None => !labels[term].is_null(),
    })
}

/// <https://www.rfc-editor.org/rfc/rfc7396>
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in patch {
        if value.is_null() {
            if let Some(fields) = target.as_object_mut() {
                fields.remove(name);
            }
        } else {
            merge(&mut target[name], value);
        }
    }
}
