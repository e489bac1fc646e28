//! `parameters` of a request, an input and an output.

use super::{DEPTH_MAX, Place};
use crate::json::{Fault, Kind, Lone, Reader};
use crate::oip::checks::{Refused, output_place, reserved};
use crate::oip::shared::{self, Shared};
use crate::{ApiError, Parameter, Parameters, shown};

/// Why a list of parameters was refused: JSON's reason, or a parameter's.
enum Why {
    Fault(Fault),
    /// The parameter and what is wrong with it.
    Value(String, String),
}

impl From<Fault> for Why {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

fn read(text: Option<&str>) -> Result<Parameters, Why> {
    let mut parameters = Parameters::new();
    let Some(text) = text else {
        return Ok(parameters);
    };
    Reader::over(text, DEPTH_MAX).object(|reader, key| {
        let key = key.unescape(Lone::Refuse)?.into_owned();
        let value = scalar(reader, &key)?;
        parameters.insert(key, value);
        Ok::<(), Why>(())
    })?;
    Ok(parameters)
}

fn scalar(reader: &mut Reader<'_>, key: &str) -> Result<Parameter, Why> {
    match reader.kind()? {
        Kind::Bool => Ok(Parameter::Bool(reader.bool()?)),
        Kind::Text => {
            let text = reader.text()?.unescape(Lone::Refuse)?;
            Ok(Parameter::Text(text.into_owned()))
        }
        Kind::Number => number(reader.number()?)
            .ok_or_else(|| Why::Value(key.to_owned(), "the number is too large".to_owned())),
        found @ (Kind::Object | Kind::Array | Kind::Null) => {
            let message = format!(
                "has invalid type, {}; it should be a number, a boolean or a string",
                found.name()
            );
            Err(Why::Value(key.to_owned(), message))
        }
    }
}

/// A scalar that a parameter can be; none for anything else.
pub(in crate::oip::rest) fn parameter_of(text: &str) -> Option<Parameter> {
    scalar(&mut Reader::over(text, DEPTH_MAX), "").ok()
}

/// Integers stay integers as long as 64 bits hold them.
fn number(text: &str) -> Option<Parameter> {
    if let Ok(number) = text.parse() {
        return Some(Parameter::Int(number));
    }
    if let Ok(number) = text.parse() {
        return Some(Parameter::Uint(number));
    }
    let number: f64 = text.parse().ok()?;
    number.is_finite().then_some(Parameter::Double(number))
}

/// The request's own parameters, and whether outputs are binary unless they say otherwise.
pub(in crate::oip::rest) fn of_request(text: Option<&str>) -> Result<(Parameters, bool), ApiError> {
    let mut parameters = read(text).map_err(|why| match why {
        Why::Fault(fault) => ApiError::invalid(format!("Unable to parse 'parameters': {fault}"))
            .with_param("parameters"),
        Why::Value(key, message) => request_parameter(&key, &message),
    })?;
    if let Some((key, message)) = reserved(&parameters) {
        return Err(request_parameter(key, message));
    }
    let binary = match parameters.remove("binary_data_output") {
        None => false,
        Some(Parameter::Bool(binary)) => binary,
        Some(_) => {
            let message = "Unable to parse 'binary_data_output': expected true or false";
            return Err(request_parameter("binary_data_output", message));
        }
    };
    Ok((parameters, binary))
}

fn request_parameter(key: &str, message: &str) -> ApiError {
    let key = shown::name(key);
    ApiError::invalid(format!("parameter `{key}`: {message}"))
        .with_param(format!("parameters.{key}"))
}

fn of_tensor(text: Option<&str>, place: &Place) -> Result<Parameters, ApiError> {
    let parameters = read(text).map_err(|why| match why {
        Why::Fault(fault) => place.unreadable("parameters", fault),
        Why::Value(key, message) => {
            let key = shown::name(&key);
            let message = format!("parameter `{key}`: {message}");
            place.error(&format!("parameters.{key}"), &message)
        }
    })?;
    Ok(parameters)
}

fn refuse(refused: &Refused, place: &Place) -> ApiError {
    let field = format!("parameters.{}", refused.key);
    place.error(&field, &refused.message)
}

/// How many bytes of this input follow the JSON, and where it is in shared memory; neither when its data is in the JSON.
pub(super) fn of_input(
    text: Option<&str>,
    place: &Place,
) -> Result<(Option<usize>, Option<Shared>), ApiError> {
    let mut parameters = of_tensor(text, place)?;
    let shared = shared::take(&mut parameters).map_err(|refused| refuse(&refused, place))?;
    let bytes = match parameters.remove("binary_data_size") {
        None => None,
        Some(Parameter::Int(bytes)) => Some(usize::try_from(bytes).map_err(|_| bad_size(place))?),
        Some(_) => return Err(bad_size(place)),
    };
    Ok((bytes, shared))
}

fn bad_size(place: &Place) -> ApiError {
    let message = "Unable to parse 'binary_data_size': expected a number of bytes";
    place.error("parameters.binary_data_size", message)
}

/// An output's own parameters.
pub(super) struct OfOutput {
    pub(super) parameters: Parameters,
    /// Whether it says binary or JSON itself.
    pub(super) binary: Option<bool>,
    pub(super) shared: Option<Shared>,
}

pub(super) fn of_output(text: Option<&str>, place: &Place) -> Result<OfOutput, ApiError> {
    let mut parameters = of_tensor(text, place)?;
    let shared = output_place(&mut parameters).map_err(|refused| refuse(&refused, place))?;
    let binary = match parameters.remove("binary_data") {
        None => None,
        Some(Parameter::Bool(binary)) => Some(binary),
        Some(_) => {
            let message = "Unable to parse 'binary_data': expected true or false";
            return Err(place.error("parameters.binary_data", message));
        }
    };
    Ok(OfOutput {
        parameters,
        binary,
        shared,
    })
}
