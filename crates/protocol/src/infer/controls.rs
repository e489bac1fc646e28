use std::fmt;
use std::time::Duration;

use super::{Parameter, Parameters};
use crate::error::ApiError;

/// What a request's parameters ask of the server rather than of the model: order, urgency, the shape of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Controls {
    /// `sequence_id`; the number 0 and the empty text mean that the request is in no sequence.
    pub sequence: Option<CorrelationId>,
    /// `sequence_start`.
    pub start: bool,
    /// `sequence_end`.
    pub end: bool,
    /// `priority`: 1 is the highest, 0 means the model's default.
    pub priority: u64,
    /// `timeout`, counted from the request's arrival; 0 on the wire means none.
    pub timeout: Option<Duration>,
    /// `triton_enable_empty_final_response`: end a decoupled stream with an answer without outputs.
    pub empty_final_response: bool,
}

/// Names one sequence of a model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CorrelationId {
    Number(u64),
    Text(String),
}

/// Longest text that names a sequence, in bytes; Triton's own bound for what it passes to models.
const TEXT_BYTES_MAX: usize = 128;

impl Controls {
    /// Reads Triton's names; others are the model's business. The error names the parameter.
    pub fn of(parameters: &Parameters) -> Result<Self, ApiError> {
        Ok(Self {
            sequence: sequence(parameters)?,
            start: flag(parameters, "sequence_start")?,
            end: flag(parameters, "sequence_end")?,
            priority: whole(parameters, "priority")?,
            timeout: match whole(parameters, "timeout")? {
                0 => None,
                micros => Some(Duration::from_micros(micros)),
            },
            empty_final_response: flag(parameters, "triton_enable_empty_final_response")?,
        })
    }
}

fn sequence(parameters: &Parameters) -> Result<Option<CorrelationId>, ApiError> {
    const KEY: &str = "sequence_id";
    if let Some(Parameter::Text(text)) = parameters.get(KEY) {
        if text.len() > TEXT_BYTES_MAX {
            return Err(ApiError::invalid(format!(
                "parameter `{KEY}` has {} bytes, the limit is {TEXT_BYTES_MAX}",
                text.len()
            ))
            .with_param(KEY));
        }
        return Ok((!text.is_empty()).then(|| CorrelationId::Text(text.clone())));
    }
    match number(parameters, KEY) {
        Ok(0) => Ok(None),
        Ok(number) => Ok(Some(CorrelationId::Number(number))),
        Err(()) => Err(wrong(KEY, "an unsigned integer or a string")),
    }
}

fn flag(parameters: &Parameters, key: &str) -> Result<bool, ApiError> {
    match parameters.get(key) {
        None => Ok(false),
        Some(Parameter::Bool(flag)) => Ok(*flag),
        Some(_) => Err(wrong(key, "a boolean")),
    }
}

fn whole(parameters: &Parameters, key: &str) -> Result<u64, ApiError> {
    number(parameters, key).map_err(|()| wrong(key, "an unsigned integer"))
}

/// 0 when it is not given.
fn number(parameters: &Parameters, key: &str) -> Result<u64, ()> {
    match parameters.get(key) {
        None => Ok(0),
        Some(Parameter::Int(number)) => u64::try_from(*number).map_err(|_| ()),
        Some(Parameter::Uint(number)) => Ok(*number),
        Some(Parameter::Bool(_) | Parameter::Double(_) | Parameter::Text(_)) => Err(()),
    }
}

fn wrong(key: &str, expected: &str) -> ApiError {
    ApiError::invalid(format!("parameter `{key}` must be {expected}")).with_param(key)
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parameters: &[(&str, Parameter)]) -> Result<Controls, ApiError> {
        let owned = |(key, value): &(&str, Parameter)| ((*key).to_owned(), value.clone());
        Controls::of(&parameters.iter().map(owned).collect())
    }

    #[test]
    fn a_plain_request_asks_for_nothing() {
        let plain = [
            ("sequence_id", Parameter::Int(0)),
            ("timeout", Parameter::Uint(0)),
            ("color", Parameter::Double(0.5)),
        ];
        assert_eq!(of(&plain), Ok(Controls::default()));
        let unnamed = [("sequence_id", Parameter::Text(String::new()))];
        assert_eq!(of(&unnamed), Ok(Controls::default()));
    }

    #[test]
    fn every_control_is_read_in_each_of_its_types() {
        let all = [
            ("sequence_id", Parameter::Uint(u64::MAX)),
            ("sequence_start", Parameter::Bool(true)),
            ("sequence_end", Parameter::Bool(true)),
            ("priority", Parameter::Int(2)),
            ("timeout", Parameter::Int(1500)),
            ("triton_enable_empty_final_response", Parameter::Bool(true)),
        ];
        let expected = Controls {
            sequence: Some(CorrelationId::Number(u64::MAX)),
            start: true,
            end: true,
            priority: 2,
            timeout: Some(Duration::from_micros(1500)),
            empty_final_response: true,
        };
        assert_eq!(of(&all), Ok(expected));
        let named = of(&[("sequence_id", Parameter::Text("a b".to_owned()))]);
        let expected = CorrelationId::Text("a b".to_owned());
        assert_eq!(named.map(|controls| controls.sequence), Ok(Some(expected)));
    }

    #[test]
    fn a_wrong_type_names_the_parameter() {
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        for (key, value) in [
            ("sequence_id", Parameter::Int(-1)),
            ("sequence_id", Parameter::Double(1.0)),
            ("sequence_id", Parameter::Text(long)),
            ("sequence_start", Parameter::Int(1)),
            ("sequence_end", Parameter::Text("true".to_owned())),
            ("priority", Parameter::Int(-1)),
            ("timeout", Parameter::Double(1.0)),
            ("triton_enable_empty_final_response", Parameter::Uint(1)),
        ] {
            let error = of(&[(key, value.clone())]).expect_err(key);
            assert!(error.message.contains(key), "{value:?}: {error}");
            assert_eq!(error.param.as_deref(), Some(key));
        }
    }
}
