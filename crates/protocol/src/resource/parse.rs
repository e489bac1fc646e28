//! YAML documents to resources, with the place of every mistake.

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_saphyr::{Error, Location, MessageFormatter as _, UserMessageFormatter};

use super::locate::{Body, Located};
use super::{API_VERSION, Metadata, Resource, ResourceError, Secret, Spec};
use crate::file_error::did_you_mean;

/// Reads every document; all that is wrong in any of them comes back, in the file's order.
pub fn parse_documents(text: &str, file: &str) -> Result<Vec<Resource>, Vec<ResourceError>> {
    let mut reading = Reading {
        file,
        seen: Vec::new(),
        resources: Vec::new(),
        errors: Vec::new(),
    };
    for part in parts(text) {
        if let Err(error) = reading.part(&part) {
            reading.errors.push(error);
        }
    }
    if reading.errors.is_empty() {
        Ok(reading.resources)
    } else {
        Err(reading.errors)
    }
}

/// The text of one document and the lines before it.
struct Part<'a> {
    text: &'a str,
    lines_before: usize,
}

/// Cuts at `---`. At the start of a line it is a border wherever it stands, inside quoted and block text too (YAML 1.2,
/// rule `c-forbidden`), so no parser is needed to find it.
fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut start, mut lines_before) = (0, 0);
    let (mut at, mut line) = (0, 0);
    for content in text.split_inclusive('\n') {
        let rest = content.strip_prefix("---");
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) {
            let text = text.get(start..at).unwrap_or_default();
            parts.push(Part { text, lines_before });
            (start, lines_before) = (at, line);
        }
        at += content.len();
        line += 1;
    }
    let text = text.get(start..).unwrap_or_default();
    parts.push(Part { text, lines_before });
    parts.retain(|part| !is_bare(part.text));
    parts
}

/// Only comments, directives and markers.
fn is_bare(text: &str) -> bool {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().map(str::trim_end).all(|line| {
        line.is_empty()
            || line.trim_start().starts_with('#')
            || line.starts_with('%')
            || matches!(line, "---" | "...")
    })
}

struct Reading<'a> {
    file: &'a str,
    /// Kind, name and line of what came before.
    seen: Vec<(&'static str, String, usize)>,
    resources: Vec<Resource>,
    errors: Vec<ResourceError>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document<S> {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    metadata: Metadata,
    spec: S,
}

impl Reading<'_> {
    fn part(&mut self, part: &Part<'_>) -> Result<(), ResourceError> {
        let documents: Vec<Located> =
            serde_saphyr::from_multiple_with_options(part.text, options())
                .map_err(|error| self.refused(&error, part, ""))?;
        let mut documents = documents.into_iter();
        let Some(tree) = documents.next() else {
            return Ok(());
        };
        if let Some(second) = documents.next() {
            return Err(self.at(
                part,
                second.at,
                "begin each document with a line `---`".to_owned(),
            ));
        }
        let kind = self.kind(&tree, part)?;
        let name = tree
            .get("metadata")
            .and_then(|metadata| metadata.get("name"));
        let name = name.and_then(Located::text).unwrap_or_default();
        let subject = subject(kind, name);
        let resource = read(kind, part.text).map_err(|error| {
            let error = error.without_snippet();
            let subject = match error.location().and_then(|at| tree.path_to(at)) {
                Some(path) if is_about_value(error) => format!("{subject}: `{path}`"),
                _ => subject,
            };
            self.refused(error, part, &subject)
        })?;
        self.keep(resource, &tree, part);
        Ok(())
    }

    /// The kind, after the version has been checked.
    fn kind(&self, tree: &Located, part: &Part<'_>) -> Result<&'static str, ResourceError> {
        if !matches!(tree.body, Body::Map(_)) {
            let message =
                "a document is a mapping with `apiVersion`, `kind`, `metadata` and `spec`";
            return Err(self.at(part, tree.at, message.to_owned()));
        }
        let field = |key: &str, hint: String| {
            let missing = || {
                self.at(
                    part,
                    tree.at,
                    format!("the document has no `{key}`; {hint}"),
                )
            };
            let value = tree.get(key).ok_or_else(missing)?;
            let text = value.text().ok_or_else(|| {
                self.at(part, value.at, format!("`{key}` must be a string; {hint}"))
            })?;
            Ok((value.at, text))
        };
        let (at, kind) = field("kind", format!("one of {}", Spec::KINDS.join(", ")))?;
        let Some(kind) = Spec::KINDS.into_iter().find(|known| *known == kind) else {
            let hint = did_you_mean(kind, &Spec::KINDS);
            return Err(self.at(part, at, format!("unknown kind `{kind}`{hint}")));
        };
        let (at, version) = field("apiVersion", format!("write `apiVersion: {API_VERSION}`"))?;
        if version != API_VERSION {
            let message =
                format!("unknown apiVersion `{version}`; this build reads `{API_VERSION}`");
            return Err(self.at(part, at, message));
        }
        Ok(kind)
    }

    fn keep(&mut self, resource: Resource, tree: &Located, part: &Part<'_>) {
        let (kind, name) = (resource.spec.kind(), resource.metadata.name.clone());
        let subject = subject(kind, &name);
        for problem in resource.validate() {
            let error = self.at(
                part,
                tree.place(&problem.path),
                format!("{subject}: {problem}"),
            );
            self.errors.push(error);
        }
        let at = tree.place(&["metadata".to_owned(), "name".to_owned()]);
        let same = self
            .seen
            .iter()
            .find(|seen| seen.0 == kind && seen.1 == name);
        if let Some((_, _, line)) = same {
            let message = format!("{kind} `{name}` is defined twice; the first is in line {line}");
            let error = self.at(part, at, message);
            self.errors.push(error);
        }
        let line = self.at(part, at, String::new()).line;
        self.seen.push((kind, name, line));
        self.resources.push(resource);
    }

    fn at(&self, part: &Part<'_>, location: Location, message: String) -> ResourceError {
        let number = |number: u64| usize::try_from(number).unwrap_or_default();
        let line = match number(location.line()) {
            0 => 0,
            line => line + part.lines_before,
        };
        ResourceError {
            file: self.file.to_owned(),
            line,
            column: number(location.column()),
            message,
        }
    }

    fn refused(&self, error: &Error, part: &Part<'_>, subject: &str) -> ResourceError {
        let error = error.without_snippet();
        let location = error.location().unwrap_or(Location::UNKNOWN);
        self.at(part, location, message(error, subject))
    }
}

fn subject(kind: &str, name: &str) -> String {
    if name.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind} `{name}`")
    }
}

/// Deepest nesting of any kind is 5 (`spec.targets[0].upstream`, counted from the document); the rest is room.
const DEPTH_MAX: usize = 16;

/// Aliases may share a list of models; they may not make a small file large.
const ALIAS_EVENTS_MAX: usize = 10_000;

/// Snippets are the caller's business. Depth is bounded because the parser and serde recurse.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: ALIAS_EVENTS_MAX,
        },
    }
}

fn read(kind: &str, text: &str) -> Result<Resource, Error> {
    fn document<S: DeserializeOwned>(text: &str) -> Result<Document<S>, Error> {
        let mut documents: Vec<Document<S>> =
            serde_saphyr::from_multiple_with_options(text, options())?;
        // The same text has been read as exactly one document before.
        Ok(documents.swap_remove(0))
    }
    fn resource<S>(document: Document<S>, spec: impl FnOnce(S) -> Spec) -> Resource {
        Resource {
            metadata: document.metadata,
            spec: spec(document.spec),
        }
    }
    match kind {
        "Node" => document(text).map(|read| resource(read, Spec::Node)),
        "Upstream" => document(text).map(|read| resource(read, Spec::Upstream)),
        "Route" => document(text).map(|read| resource(read, Spec::Route)),
        "Key" => document(text).map(|read| resource(read, Spec::Key)),
        _ => document(text).map(|read| resource(read, |spec| Spec::Job(Box::new(spec)))),
    }
}

/// The house's words for what people get wrong most, the parser's for the rest.
fn message(error: &Error, subject: &str) -> String {
    let of = if subject.is_empty() { "" } else { " in " };
    let told = |text: &str| match subject {
        "" => text.to_owned(),
        subject => format!("{subject}: {text}"),
    };
    match error {
        Error::SerdeUnknownField {
            field, expected, ..
        } => {
            format!(
                "unknown field `{field}`{of}{subject}{}",
                did_you_mean(field, expected)
            )
        }
        Error::SerdeUnknownVariant {
            variant, expected, ..
        } => {
            format!(
                "unknown value `{variant}`{of}{subject}{}",
                did_you_mean(variant, expected)
            )
        }
        Error::SerdeMissingField { field, .. } => format!("missing field `{field}`{of}{subject}"),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("field `{key}` is given twice{of}{subject}")
        }
        Error::SerdeInvalidType {
            unexpected,
            expected,
            ..
        } => told(&format!("expected {expected}, found {unexpected}")),
        Error::InvalidScalar { ty, .. } => told(&format!("expected {}", scalar(ty))),
        Error::Message { msg, .. } => told(msg),
        other => {
            let text = UserMessageFormatter.format_message(other);
            told(&text.trim_end().replace('\n', "; "))
        }
    }
}

/// Whether the error says what is wrong with a value but not which field's; the rest name theirs.
fn is_about_value(error: &Error) -> bool {
    !matches!(
        error,
        Error::SerdeUnknownField { .. }
            | Error::SerdeUnknownVariant { .. }
            | Error::SerdeMissingField { .. }
            | Error::DuplicateMappingKey { .. }
    )
}

/// Rust's names of types mean nothing to who writes a file.
fn scalar(kind: &str) -> &str {
    match kind.as_bytes() {
        [b'u', b'0'..=b'9', ..] => "a whole number from 0 up",
        [b'i', b'0'..=b'9', ..] => "a whole number",
        [b'f', b'0'..=b'9', ..] => "a number",
        _ => kind,
    }
}

/// For the fuzzer: whatever the bytes, an answer; and what is accepted is valid and the same after being written out.
pub fn fuzz_resource_yaml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match parse_documents(text, "kapok.yaml") {
        Ok(resources) => resources.iter().for_each(check_written),
        Err(errors) => assert!(!errors.is_empty(), "refused without a reason"),
    }
}

fn check_written(resource: &Resource) {
    assert!(resource.validate().is_empty(), "accepted although wrong");
    let secret = matches!(&resource.spec, Spec::Upstream(spec) if matches!(spec.api_key, Some(Secret::Value(_))));
    // JSON is YAML, but for what a YAML file must not contain even in quotes; and a secret is not written out.
    let written = serde_json::to_string(resource).unwrap_or_default();
    let printable = |character: char| {
        !character.is_control() && !matches!(character, '\u{feff}' | '\u{fffe}' | '\u{ffff}')
    };
    if !secret && written.chars().all(printable) {
        let read = parse_documents(&written, "kapok.yaml");
        assert_eq!(
            read.as_deref(),
            Ok(std::slice::from_ref(resource)),
            "changed by being written out"
        );
    }
}
