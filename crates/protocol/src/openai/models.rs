use serde::Serialize;

/// One line of `GET /v1/models`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelEntry {
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    pub owned_by: String,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'a str,
}

impl<'a> From<&'a ModelEntry> for Entry<'a> {
    fn from(entry: &'a ModelEntry) -> Self {
        Self {
            id: &entry.id,
            object: "model",
            created: entry.created,
            owned_by: &entry.owned_by,
        }
    }
}

/// `GET /v1/models`
pub fn models(entries: &[ModelEntry]) -> Vec<u8> {
    let list = List {
        object: "list",
        data: entries.iter().map(Entry::from).collect(),
    };
    serde_json::to_vec(&list).expect("names and numbers always serialise")
}

/// `GET /v1/models/{id}`
pub fn model(entry: &ModelEntry) -> Vec<u8> {
    serde_json::to_vec(&Entry::from(entry)).expect("names and numbers always serialise")
}
