//! Anthropic's REST protocol, as far as kapok itself answers it: the list of models. What else there is, is relayed.

use serde::Serialize;

use crate::ApiError;
use crate::openai::ModelEntry;
use crate::resource::Timestamp;

/// Of one page, if nobody says how many.
const LINES: usize = 20;
const LINES_MAX: usize = 1000;

/// The part of a list that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    limit: usize,
    after: Option<String>,
    before: Option<String>,
}

#[derive(Serialize)]
struct List<'a> {
    data: Vec<Line<'a>>,
    has_more: bool,
    first_id: Option<&'a str>,
    last_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Line<'a> {
    r#type: &'static str,
    id: &'a str,
    display_name: &'a str,
    created_at: Timestamp,
    /// Whatever its provider plans with it, it can be asked here.
    lifecycle: &'static str,
}

impl<'a> From<&'a ModelEntry> for Line<'a> {
    fn from(entry: &'a ModelEntry) -> Self {
        Self {
            r#type: "model",
            id: &entry.id,
            display_name: &entry.id,
            created_at: Timestamp::from_millis(entry.created.saturating_mul(1000)),
            lifecycle: "active",
        }
    }
}

impl Page {
    /// `limit`, `after_id` and `before_id`, decoded; others are not looked at.
    pub fn of<'q>(parameters: impl Iterator<Item = (&'q str, String)>) -> Result<Self, ApiError> {
        let mut page = Self {
            limit: LINES,
            after: None,
            before: None,
        };
        for (name, value) in parameters {
            match name {
                "limit" => {
                    let limit = value.parse().ok();
                    page.limit = limit
                        .filter(|limit| (1..=LINES_MAX).contains(limit))
                        .ok_or_else(|| {
                            let message = format!("`limit` is a number from 1 to {LINES_MAX}");
                            ApiError::invalid(message).with_param("limit")
                        })?;
                }
                "after_id" => page.after = Some(value),
                "before_id" => page.before = Some(value),
                _ => {}
            }
        }
        Ok(page)
    }

    /// What of it lies on the page, and whether more follows in its direction.
    fn cut<'e>(&self, entries: &'e [ModelEntry]) -> (&'e [ModelEntry], bool) {
        let at = |id: &String| entries.iter().position(|entry| entry.id == *id);
        if let Some(end) = self.before.as_ref().and_then(at) {
            let start = end.saturating_sub(self.limit);
            return (&entries[start..end], start > 0);
        }
        let start = self.after.as_ref().and_then(at).map_or(0, |at| at + 1);
        let end = entries.len().min(start + self.limit);
        (&entries[start..end], end < entries.len())
    }
}

/// `GET /v1/models`
pub fn models(entries: &[ModelEntry], page: &Page) -> Vec<u8> {
    let (lines, has_more) = page.cut(entries);
    let id = |entry: Option<&'_ ModelEntry>| entry.map(|entry| entry.id.clone());
    let (first, last) = (id(lines.first()), id(lines.last()));
    let list = List {
        data: lines.iter().map(Line::from).collect(),
        has_more,
        first_id: first.as_deref(),
        last_id: last.as_deref(),
    };
    serde_json::to_vec(&list).expect("names and numbers always serialise")
}

/// `GET /v1/models/{id}`
pub fn model(entry: &ModelEntry) -> Vec<u8> {
    serde_json::to_vec(&Line::from(entry)).expect("names and numbers always serialise")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entries() -> Vec<ModelEntry> {
        let entry = |id: &str| ModelEntry {
            id: id.to_owned(),
            created: 1_767_225_600,
            owned_by: "u".to_owned(),
        };
        ["a", "b", "c"].map(entry).to_vec()
    }

    fn page(parameters: &[(&'static str, &str)]) -> Result<Page, ApiError> {
        let parameters = parameters.iter();
        Page::of(parameters.map(|(name, value)| (*name, (*value).to_owned())))
    }

    #[test]
    fn a_model_is_told_in_anthropics_words() {
        let told: Value = serde_json::from_slice(&model(&entries()[0])).expect("JSON");
        let expected = json!({"type": "model", "id": "a", "display_name": "a",
            "created_at": "2026-01-01T00:00:00.000Z", "lifecycle": "active"});
        assert_eq!(told, expected);
    }

    #[test]
    fn a_list_comes_in_pages() {
        for (parameters, ids, more) in [
            (&[][..], &["a", "b", "c"][..], false),
            (&[("limit", "2")], &["a", "b"], true),
            (&[("limit", "2"), ("after_id", "b")], &["c"], false),
            (&[("limit", "1"), ("before_id", "c")], &["b"], true),
            (&[("before_id", "c")], &["a", "b"], false),
            (&[("after_id", "c")], &[], false),
        ] {
            let page = page(parameters).expect("a page");
            let told: Value = serde_json::from_slice(&models(&entries(), &page)).expect("JSON");
            let lines = told["data"].as_array().expect("a list").iter();
            let found: Vec<_> = lines
                .map(|line| line["id"].as_str().expect("an id"))
                .collect();
            assert_eq!(found, ids, "{parameters:?}");
            assert_eq!(told["has_more"], more, "{parameters:?}");
            assert_eq!(told["last_id"], json!(ids.last()), "{parameters:?}");
        }
        for limit in ["0", "1001", "x"] {
            assert!(page(&[("limit", limit)]).is_err(), "{limit}");
        }
    }
}
