use base::ErrorKind;
use serde_json::{Value, json};

use crate::oip::proto::log_settings_request::setting_value::ParameterChoice;
use crate::oip::proto::log_settings_response::SettingValue;
use crate::oip::proto::log_settings_response::setting_value::ParameterChoice as Said;
use crate::oip::proto::{LogSettingsRequest, LogSettingsResponse};
use crate::{ApiError, shown};

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Where to; empty means standard error.
    pub file: String,
    pub info: bool,
    pub warning: bool,
    pub error: bool,
    /// 0 is off.
    pub verbose_level: u32,
    pub format: LogFormat,
}

/// How a line begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// glog's: severity, month, day and time in one word.
    Default,
    /// With the whole date, the severity in words.
    #[default]
    Iso8601,
}

/// None leaves a setting as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogChange {
    pub info: Option<bool>,
    pub warning: Option<bool>,
    pub error: Option<bool>,
    pub verbose_level: Option<u32>,
    pub format: Option<LogFormat>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            file: String::new(),
            info: true,
            warning: true,
            error: true,
            verbose_level: 0,
            format: LogFormat::default(),
        }
    }
}

impl LogFormat {
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Iso8601 => "ISO8601",
        }
    }

    pub fn of(name: &str) -> Option<Self> {
        [Self::Default, Self::Iso8601]
            .into_iter()
            .find(|format| format.name() == name)
    }
}

/// One value of either wire.
enum Given {
    Nothing,
    Bool(bool),
    Count(u32),
    Text(String),
    Other,
}

impl LogChange {
    /// The body of `POST /v2/logging`; null leaves a setting as it is.
    pub fn from_json(body: &[u8]) -> Result<Self, ApiError> {
        let given = |value| match value {
            Value::Null => Given::Nothing,
            Value::Bool(value) => Given::Bool(value),
            Value::String(text) => Given::Text(text),
            Value::Number(number) => number
                .as_u64()
                .and_then(|number| u32::try_from(number).ok())
                .map_or(Given::Other, Given::Count),
            Value::Array(_) | Value::Object(_) => Given::Other,
        };
        let settings = super::object(body)?.into_iter();
        Self::of(settings.map(|(name, value)| (name, given(value))))
    }

    pub fn from_grpc(message: LogSettingsRequest) -> Result<Self, ApiError> {
        let given = |choice| match choice {
            None => Given::Nothing,
            Some(ParameterChoice::BoolParam(value)) => Given::Bool(value),
            Some(ParameterChoice::Uint32Param(value)) => Given::Count(value),
            Some(ParameterChoice::StringParam(text)) => Given::Text(text),
        };
        let settings = message.settings.into_iter();
        Self::of(settings.map(|(name, value)| (name, given(value.parameter_choice))))
    }

    fn of(settings: impl Iterator<Item = (String, Given)>) -> Result<Self, ApiError> {
        let mut change = Self::default();
        for (name, given) in settings {
            match name.as_str() {
                "log_info" => change.info = boolean(&name, &given)?,
                "log_warning" => change.warning = boolean(&name, &given)?,
                "log_error" => change.error = boolean(&name, &given)?,
                "log_verbose_level" => change.verbose_level = count(&name, &given)?,
                "log_format" => change.format = format(&name, &given)?,
                "log_file" => refuse_file(&given)?,
                _ => {
                    let name = shown::name(&name);
                    return Err(ApiError::invalid(format!("unknown log setting '{name}'")));
                }
            }
        }
        Ok(change)
    }
}

fn boolean(name: &str, given: &Given) -> Result<Option<bool>, ApiError> {
    match given {
        Given::Nothing => Ok(None),
        Given::Bool(value) => Ok(Some(*value)),
        _ => Err(ApiError::invalid(format!("expect boolean for '{name}'"))),
    }
}

fn count(name: &str, given: &Given) -> Result<Option<u32>, ApiError> {
    match given {
        Given::Nothing => Ok(None),
        Given::Count(value) => Ok(Some(*value)),
        // Triton's word, though it takes none below 0.
        _ => Err(ApiError::invalid(format!("expect int32 for '{name}'"))),
    }
}

fn format(name: &str, given: &Given) -> Result<Option<LogFormat>, ApiError> {
    match given {
        Given::Nothing => Ok(None),
        Given::Text(text) => LogFormat::of(text).map(Some).ok_or_else(|| {
            let text = shown::name(text);
            ApiError::invalid(format!("invalid argument for log_format, got: {text}"))
        }),
        _ => Err(ApiError::invalid(format!("expect string for '{name}'"))),
    }
}

/// Whoever could name a file could write one.
fn refuse_file(given: &Given) -> Result<(), ApiError> {
    if matches!(given, Given::Nothing) {
        return Ok(());
    }
    let message = "log file location can not be updated through network protocol";
    Err(ApiError::new(ErrorKind::Unsupported, message))
}

impl LogSettings {
    pub fn to_json(&self) -> Vec<u8> {
        json!({
            "log_file": self.file,
            "log_info": self.info,
            "log_warning": self.warning,
            "log_error": self.error,
            "log_verbose_level": self.verbose_level,
            "log_format": self.format.name(),
        })
        .to_string()
        .into_bytes()
    }

    pub fn to_grpc(&self) -> LogSettingsResponse {
        let settings = [
            ("log_file", Said::StringParam(self.file.clone())),
            ("log_info", Said::BoolParam(self.info)),
            ("log_warning", Said::BoolParam(self.warning)),
            ("log_error", Said::BoolParam(self.error)),
            ("log_verbose_level", Said::Uint32Param(self.verbose_level)),
            (
                "log_format",
                Said::StringParam(self.format.name().to_owned()),
            ),
        ];
        LogSettingsResponse {
            settings: settings
                .into_iter()
                .map(|(name, choice)| {
                    let parameter_choice = Some(choice);
                    (name.to_owned(), SettingValue { parameter_choice })
                })
                .collect(),
        }
    }
}
