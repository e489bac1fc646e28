use std::collections::BTreeMap;

use crate::oip::proto::{InferParameter, infer_parameter::ParameterChoice};
use crate::{ApiError, Parameter, Parameters, shown};

/// `owner` says whose parameters they are in an error.
pub(super) fn read(
    parameters: BTreeMap<String, InferParameter>,
    owner: &str,
) -> Result<Parameters, ApiError> {
    parameters
        .into_iter()
        .map(|(name, parameter)| {
            let value = match parameter.parameter_choice {
                Some(ParameterChoice::BoolParam(value)) => Parameter::Bool(value),
                Some(ParameterChoice::Int64Param(value)) => Parameter::Int(value),
                Some(ParameterChoice::Uint64Param(value)) => Parameter::Uint(value),
                Some(ParameterChoice::DoubleParam(value)) => Parameter::Double(value),
                Some(ParameterChoice::StringParam(value)) => Parameter::Text(value),
                None => {
                    return Err(ApiError::invalid(format!(
                        "parameter `{}` of {owner} has no value",
                        shown::name(&name)
                    ))
                    .with_param(name));
                }
            };
            Ok((name, value))
        })
        .collect()
}

pub(super) fn write(parameters: Parameters) -> BTreeMap<String, InferParameter> {
    parameters
        .into_iter()
        .map(|(name, value)| {
            let choice = match value {
                Parameter::Bool(value) => ParameterChoice::BoolParam(value),
                Parameter::Int(value) => ParameterChoice::Int64Param(value),
                Parameter::Uint(value) => ParameterChoice::Uint64Param(value),
                Parameter::Double(value) => ParameterChoice::DoubleParam(value),
                Parameter::Text(value) => ParameterChoice::StringParam(value),
            };
            let parameter = InferParameter {
                parameter_choice: Some(choice),
            };
            (name, parameter)
        })
        .collect()
}
