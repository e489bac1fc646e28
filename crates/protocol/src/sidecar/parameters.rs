//! The same settings as `parameters { key: "kapok.…" }` in `config.pbtxt`, which Triton ignores. The sidecar's own file
//! wins over them.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::Sidecar;
use super::parse::hinted;
use crate::config::Problem;
use crate::oip::proto::ModelParameter;

/// What the keys of our own parameters begin with.
pub const PREFIX: &str = "kapok.";

/// All settings together, and those that somebody has made, as parameters.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Merged {
    pub sidecar: Sidecar,
    /// By their whole key, such as `kapok.swap.compare`.
    pub shown: BTreeMap<String, String>,
}

impl Merged {
    /// `text` is that of a sidecar that [`Sidecar::parse`] has accepted; empty when there is none.
    pub fn of(
        text: &str,
        parameters: &BTreeMap<String, ModelParameter>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut settings = Table::new();
        for (key, value) in parameters {
            let Some(path) = key.strip_prefix(PREFIX) else {
                continue;
            };
            match setting(path, &value.string_value) {
                Ok(table) => merge(&mut settings, table),
                Err(message) => {
                    let message = format!("parameter `{key}`: {message}");
                    problems.push(Problem::new(format!("parameters[{key}]"), message));
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let file: Table = toml::from_str(text).unwrap_or_default();
        merge(&mut settings, file);
        let mut shown = BTreeMap::new();
        flatten(PREFIX.trim_end_matches('.'), &settings, &mut shown);
        let sidecar: Sidecar = settings.try_into().map_err(|error: toml::de::Error| {
            vec![Problem::new("parameters", hinted(error.message()))]
        })?;
        let wrong: Vec<_> = sidecar
            .problems()
            .iter()
            .map(|problem| {
                let key = format!("{PREFIX}{}", problem.path.join("."));
                let message = format!("parameter `{key}`: {}", problem.message);
                Problem::new(format!("parameters[{key}]"), message)
            })
            .collect();
        if wrong.is_empty() {
            Ok(Self { sidecar, shown })
        } else {
            Err(wrong)
        }
    }
}

/// One parameter as a table: its value read as TOML, or else as the text it is.
fn setting(path: &str, value: &str) -> Result<Table, String> {
    let read = toml::from_str::<Table>(&format!("value = {value}"));
    let read = read.ok().filter(|table| table.len() == 1);
    let typed = read.and_then(|mut table| table.remove("value"));
    let mut fault = None;
    for value in typed.into_iter().chain([Value::String(value.to_owned())]) {
        let mut parts = path.rsplit('.');
        let last = parts.next().unwrap_or_default();
        let mut table = Table::from_iter([(last.to_owned(), value)]);
        for part in parts {
            table = Table::from_iter([(part.to_owned(), Value::Table(table))]);
        }
        match table.clone().try_into::<Sidecar>() {
            Ok(_) => return Ok(table),
            Err(error) => fault = fault.or_else(|| Some(hinted(error.message()))),
        }
    }
    Err(fault.unwrap_or_default())
}

/// The later one wins, key by key.
fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn flatten(path: &str, table: &Table, shown: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let path = format!("{path}.{key}");
        match value {
            Value::Table(table) => flatten(&path, table, shown),
            Value::String(text) => {
                shown.insert(path, text.clone());
            }
            value => {
                // Numbers, booleans and lists of them look the same in both.
                let text = serde_json::to_string(value).unwrap_or_default();
                shown.insert(path, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(text: &str, parameters: &[(&str, &str)]) -> Result<Merged, Vec<Problem>> {
        let parameters = parameters.iter().map(|(key, value)| {
            let string_value = (*value).to_owned();
            ((*key).to_owned(), ModelParameter { string_value })
        });
        Merged::of(text, &parameters.collect())
    }

    #[test]
    fn the_file_wins_over_parameters_and_both_are_shown() {
        let merged = merged(
            "lanes = 3\n[agree]\natol = 0.5",
            &[
                ("kapok.lanes", "2"),
                ("kapok.engine", "rten"),
                ("kapok.agree.rtol", "0.25"),
                ("kapok.warmup.shapes.x", "[1, 16]"),
                ("intra_op_thread_count", "2"),
            ],
        )
        .expect("valid");
        assert_eq!(merged.sidecar.lanes, Some(3));
        assert_eq!(merged.sidecar.engine, crate::sidecar::EngineChoice::Rten);
        assert!((merged.sidecar.agree.atol - 0.5).abs() < 1e-9);
        assert!((merged.sidecar.agree.rtol - 0.25).abs() < 1e-9);
        assert_eq!(merged.sidecar.warmup.shapes["x"], [1, 16]);
        let shown: Vec<_> = merged
            .shown
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        assert_eq!(
            shown,
            [
                "kapok.agree.atol=0.5",
                "kapok.agree.rtol=0.25",
                "kapok.engine=rten",
                "kapok.lanes=3",
                "kapok.warmup.shapes.x=[1,16]",
            ]
        );
    }

    #[test]
    fn a_mistake_names_the_parameter_and_the_nearest_known_key() {
        for (key, value, expected) in [
            (
                "kapok.lane",
                "2",
                "parameter `kapok.lane`: unknown field `lane`; did you mean `lanes`?",
            ),
            (
                "kapok.agree.atoll",
                "1",
                "parameter `kapok.agree.atoll`: unknown field `atoll`; did you mean `atol`?",
            ),
            (
                "kapok.engine",
                "rtn",
                "parameter `kapok.engine`: unknown variant `rtn`; did you mean `rten`?",
            ),
            (
                "kapok.lanes",
                "0",
                "parameter `kapok.lanes`: at least 1 lane",
            ),
        ] {
            let problems = merged("", &[(key, value)]).expect_err(key);
            assert_eq!(problems[0].to_string(), expected);
            assert_eq!(problems[0].field, format!("parameters[{key}]"));
        }
    }
}
