use base::ErrorKind;
use serde_json::{Value, json};

use crate::oip::proto::trace_setting_response::SettingValue;
use crate::oip::proto::{TraceSettingRequest, TraceSettingResponse};
use crate::resource::TraceSpec;
use crate::{ApiError, shown};

/// Which requests are traced, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSettings {
    pub level: TraceLevel,
    /// One of so many requests.
    pub rate: u32,
    /// Traces still to be taken; -1 is no end.
    pub count: i32,
    /// Traces a file; 0 puts all into one.
    pub log_frequency: u32,
    /// Empty means that nothing can be traced.
    pub file: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TraceLevel {
    #[default]
    Off,
    Timestamps,
}

impl Default for TraceSettings {
    /// Triton's.
    fn default() -> Self {
        Self {
            level: TraceLevel::Off,
            rate: 1000,
            count: -1,
            log_frequency: 0,
            file: String::new(),
        }
    }
}

impl From<&TraceSpec> for TraceSettings {
    fn from(spec: &TraceSpec) -> Self {
        let file = spec.file.as_ref();
        Self {
            level: if spec.timestamps {
                TraceLevel::Timestamps
            } else {
                TraceLevel::Off
            },
            rate: spec.rate,
            count: spec.count,
            log_frequency: spec.log_frequency,
            file: file.map_or_else(String::new, |file| file.display().to_string()),
        }
    }
}

/// What becomes of one setting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Change<T> {
    #[default]
    Keep,
    /// What it falls back to applies again: for a model the server's, for the server what it started with.
    Clear,
    Set(T),
}

impl<T> Change<T> {
    /// The new own value, if there is one.
    pub fn apply(self, own: Option<T>) -> Option<T> {
        match self {
            Self::Keep => own,
            Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceChange {
    pub level: Change<TraceLevel>,
    pub rate: Change<u32>,
    pub count: Change<i32>,
    pub log_frequency: Change<u32>,
}

impl TraceChange {
    /// The body of `POST …/trace/setting`; null clears.
    pub fn from_json(body: &[u8]) -> Result<Self, ApiError> {
        let settings = super::object(body)?.into_iter();
        Self::of(settings.map(|(name, value)| {
            let values = match value {
                Value::Null => Ok(Vec::new()),
                Value::String(text) => Ok(vec![text]),
                Value::Number(number) => Ok(vec![number.to_string()]),
                Value::Array(values) => values.into_iter().map(text).collect(),
                Value::Bool(_) | Value::Object(_) => Err(()),
            };
            (name, values)
        }))
    }

    /// No value at all clears. Whose settings they are is in the message's `model_name`.
    pub fn from_grpc(message: TraceSettingRequest) -> Result<Self, ApiError> {
        let settings = message.settings.into_iter();
        Self::of(settings.map(|(name, values)| (name, Ok(values.value))))
    }

    fn of(
        settings: impl Iterator<Item = (String, Result<Vec<String>, ()>)>,
    ) -> Result<Self, ApiError> {
        let mut change = Self::default();
        for (name, values) in settings {
            let values = values.map_err(|()| {
                let name = shown::name(&name);
                ApiError::invalid(format!("'{name}' takes text, a list of texts or null"))
            })?;
            match name.as_str() {
                "trace_level" => change.level = level(&values)?,
                "trace_rate" => change.rate = number(&name, &values, 0, u32::MAX.into())?,
                "trace_count" => change.count = number(&name, &values, -1, i32::MAX.into())?,
                "log_frequency" => {
                    change.log_frequency = number(&name, &values, 0, u32::MAX.into())?;
                }
                "trace_file" => refuse_file()?,
                "trace_mode" => mode(&values)?,
                _ => {
                    let name = shown::name(&name);
                    return Err(ApiError::invalid(format!("unknown trace setting '{name}'")));
                }
            }
        }
        Ok(change)
    }
}

fn text(value: Value) -> Result<String, ()> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(()),
    }
}

fn level(values: &[String]) -> Result<Change<TraceLevel>, ApiError> {
    let mut level = Change::Clear;
    for value in values {
        level = match value.as_str() {
            "OFF" if values.len() == 1 => Change::Set(TraceLevel::Off),
            "OFF" => {
                let message = "Expect only one trace level 'OFF' is specified";
                return Err(ApiError::invalid(message));
            }
            "TIMESTAMPS" => Change::Set(TraceLevel::Timestamps),
            "TENSORS" => {
                let message =
                    "trace level 'TENSORS' is not supported by this server; use 'TIMESTAMPS'";
                return Err(ApiError::new(ErrorKind::Unsupported, message));
            }
            other => {
                let other = shown::name(other);
                let message = format!("unknown trace level '{other}'; use 'OFF' or 'TIMESTAMPS'");
                return Err(ApiError::invalid(message));
            }
        };
    }
    Ok(level)
}

fn number<T: TryFrom<i64>>(
    name: &str,
    values: &[String],
    min: i64,
    max: i64,
) -> Result<Change<T>, ApiError> {
    let text = match values {
        [] => return Ok(Change::Clear),
        [text] => text,
        _ => {
            let message = format!("expect only 1 value for '{name}'");
            return Err(ApiError::invalid(message));
        }
    };
    let got = shown::name(text);
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let message = format!("Unable to parse '{name}', got: {got}");
        return Err(ApiError::invalid(message));
    }
    let value = text.parse::<i64>().ok();
    if name == "trace_count" && value.is_some_and(|value| value < min) {
        let message = format!("Unable to parse '{name}'. Expecting value >= {min}, got: {got}");
        return Err(ApiError::invalid(message));
    }
    value
        .filter(|value| (min..=max).contains(value))
        .and_then(|value| T::try_from(value).ok())
        .map(Change::Set)
        .ok_or_else(|| {
            ApiError::invalid(format!(
                "Unable to parse '{name}', value is out of range [ {min}, {max} ], got: {got}"
            ))
        })
}

/// Whoever could name a file could write one.
fn refuse_file() -> Result<(), ApiError> {
    let message = "trace file location can not be updated through network protocol";
    Err(ApiError::new(ErrorKind::Unsupported, message))
}

fn mode(values: &[String]) -> Result<(), ApiError> {
    match values {
        [] => Ok(()),
        [mode] if mode.eq_ignore_ascii_case("triton") => Ok(()),
        _ => {
            let mode = values.join(", ");
            let mode = shown::name(&mode);
            let message =
                format!("trace mode '{mode}' is not supported by this server; use 'triton'");
            Err(ApiError::new(ErrorKind::Unsupported, message))
        }
    }
}

impl TraceLevel {
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "OFF",
            Self::Timestamps => "TIMESTAMPS",
        }
    }
}

impl TraceSettings {
    pub fn to_json(&self) -> Vec<u8> {
        json!({
            "trace_level": [self.level.name()],
            "trace_rate": self.rate.to_string(),
            "trace_count": self.count.to_string(),
            "log_frequency": self.log_frequency.to_string(),
            "trace_file": self.file,
            "trace_mode": "triton",
        })
        .to_string()
        .into_bytes()
    }

    pub fn to_grpc(&self) -> TraceSettingResponse {
        let settings = [
            ("trace_level", self.level.name().to_owned()),
            ("trace_rate", self.rate.to_string()),
            ("trace_count", self.count.to_string()),
            ("log_frequency", self.log_frequency.to_string()),
            ("trace_file", self.file.clone()),
            ("trace_mode", "triton".to_owned()),
        ];
        TraceSettingResponse {
            settings: settings
                .into_iter()
                .map(|(name, value)| (name.to_owned(), SettingValue { value: vec![value] }))
                .collect(),
        }
    }
}
