//! The JSON part of an inference request.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;

use super::error::{Place, broken};
use super::{DEPTH_MAX, data};
use crate::json::{Fault, Lone, Reader};
use crate::oip::checks::TENSORS_MAX;
use crate::oip::shared::{self, Placement, Shared};
use crate::{
    ApiError, BufferPool, DataType, InferRequest, Parameters, RequestedOutput, Tensor, shown,
};

mod parameters;

pub(super) use parameters::{of_request as read_parameters, parameter_of};
mod shape;

/// A request's JSON, with the tensors' data still as text.
#[derive(Debug, Clone)]
pub struct Header<'a> {
    pub id: Option<String>,
    pub parameters: Parameters,
    /// In the client's order.
    pub inputs: Vec<Input<'a>>,
    pub outputs: Vec<RequestedOutput>,
    form: ResponseForm,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Input<'a> {
    pub name: String,
    pub dtype: DataType,
    pub shape: Vec<usize>,
    pub data: InputData<'a>,
}

/// Where an input's elements are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputData<'a> {
    /// In the JSON, not yet read.
    Json(&'a str),
    /// Behind the JSON.
    Binary { bytes: usize },
    /// In shared memory, not yet read.
    Shared(Shared),
    /// Read from there.
    Read(Bytes),
}

/// Which outputs the client wants as binary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseForm {
    /// For outputs that say nothing themselves.
    pub binary: bool,
    pub outputs: BTreeMap<String, bool>,
    /// Outputs that go to shared memory, and neither into the JSON nor behind it.
    pub placement: Placement,
}

impl ResponseForm {
    pub fn wants_binary(&self, output: &str) -> bool {
        self.outputs.get(output).copied().unwrap_or(self.binary)
    }
}

/// Reads the JSON; tensor data is checked for being JSON and otherwise left alone.
pub fn parse_header(json: &[u8]) -> Result<Header<'_>, ApiError> {
    let mut reader = Reader::new(json, DEPTH_MAX).map_err(broken)?;
    let names = ["id", "parameters", "inputs", "outputs"];
    let [id, parameters, inputs, outputs] = reader.fields(names).map_err(broken)?;
    reader.end().map_err(broken)?;

    let id = id.map(read_id).transpose()?;
    let (parameters, binary) = parameters::of_request(parameters)?;
    let inputs = read_inputs(inputs)?;
    let (outputs, form) = read_outputs(outputs, binary)?;
    Ok(Header {
        id,
        parameters,
        inputs,
        outputs,
        form,
    })
}

fn read_id(text: &str) -> Result<String, ApiError> {
    let read = string(text);
    read.map_err(|fault| {
        ApiError::invalid(format!("Unable to parse 'id': {fault}")).with_param("id")
    })
}

/// A string that must be text; anything else is the fault.
fn string(text: &str) -> Result<String, Fault> {
    let text = Reader::over(text, DEPTH_MAX).text()?;
    text.unescape(Lone::Refuse).map(String::from)
}

/// The texts of a list's elements.
fn elements<'a>(list: Option<&'a str>, name: &'static str) -> Result<Vec<&'a str>, ApiError> {
    let invalid = |fault: String| {
        ApiError::invalid(format!("Unable to parse '{name}': {fault}")).with_param(name)
    };
    let Some(list) = list else {
        return Err(invalid(format!(
            "attempt to access non-existing object member '{name}'"
        )));
    };
    let mut found = Vec::new();
    let read = Reader::checked(list, DEPTH_MAX).array(|reader| {
        let element = reader.skip()?;
        if found.len() <= TENSORS_MAX {
            found.push(element);
        }
        Ok::<(), Fault>(())
    });
    read.map_err(|fault| invalid(fault.to_string()))?;
    if found.len() > TENSORS_MAX {
        return Err(invalid(format!("more than {TENSORS_MAX} elements")));
    }
    Ok(found)
}

fn read_inputs(list: Option<&str>) -> Result<Vec<Input<'_>>, ApiError> {
    let mut inputs: Vec<Input<'_>> = Vec::new();
    let mut names = HashSet::new();
    let mut binary_bytes = 0_usize;
    for (index, text) in elements(list, "inputs")?.into_iter().enumerate() {
        let (input, place) = read_input(text, index)?;
        if !names.insert(input.name.clone()) {
            let message = "the name is given to an earlier input already";
            return Err(place.error("name", message));
        }
        if let InputData::Binary { bytes } = input.data {
            let total = binary_bytes.checked_add(bytes);
            binary_bytes = total.ok_or_else(|| shape::bytes_overflow(&place))?;
        }
        inputs.push(input);
    }
    Ok(inputs)
}

pub(super) fn read_input(text: &str, index: usize) -> Result<(Input<'_>, Place), ApiError> {
    let mut place = Place {
        role: "input",
        index,
        name: None,
    };
    let names = ["name", "datatype", "shape", "parameters", "data"];
    let [name, dtype, shape, parameters, data] = Reader::checked(text, DEPTH_MAX)
        .fields(names)
        .map_err(|fault| place.error("", &fault.to_string()))?;
    let name = read_name(name, &mut place)?;
    let dtype = read_dtype(dtype, &place)?;
    let shape = shape::read(shape, &place)?;
    let bytes = shape::byte_count(dtype, &shape, &place)?;
    let (binary, shared) = parameters::of_input(parameters, &place)?;
    let data = match (data, binary, shared) {
        (Some(data), None, None) => InputData::Json(data),
        (None, Some(given), None) => {
            shape::matches(given, bytes, &place)?;
            InputData::Binary { bytes: given }
        }
        (None, None, Some(shared)) => InputData::Shared(shared),
        (data, binary, shared) => {
            let given = [data.is_some(), binary.is_some(), shared.is_some()];
            return Err(one_source(given, &place));
        }
    };
    let input = Input {
        name,
        dtype,
        shape,
        data,
    };
    Ok((input, place))
}

/// Triton's sentence for data that is missing or given twice.
fn one_source(given: [bool; 3], place: &Place) -> ApiError {
    let names = ["data", "binary_data_size", "shared_memory_region"];
    let mut but: String = names
        .iter()
        .zip(given)
        .filter(|(_, given)| *given)
        .map(|(name, _)| format!(" '{name}'"))
        .collect();
    but = if but.is_empty() {
        " no field is set".to_owned()
    } else {
        format!(" set{but}")
    };
    let message = format!(
        "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', \
         'shared_memory_region' in 'parameters'. But{but}"
    );
    place.error("data", &message)
}

fn read_name(name: Option<&str>, place: &mut Place) -> Result<String, ApiError> {
    let name = name.ok_or_else(|| place.missing("name"))?;
    let name = string(name).map_err(|fault| place.unreadable("name", fault))?;
    if name.is_empty() {
        return Err(place.error("name", "the name must not be empty"));
    }
    place.name = Some(name.clone());
    Ok(name)
}

fn read_dtype(dtype: Option<&str>, place: &Place) -> Result<DataType, ApiError> {
    let dtype = dtype.ok_or_else(|| place.missing("datatype"))?;
    let dtype = string(dtype).map_err(|fault| place.unreadable("datatype", fault))?;
    DataType::from_name(&dtype).ok_or_else(|| {
        let known = DataType::ALL.map(DataType::name);
        let hint = crate::file_error::did_you_mean(&dtype, &known);
        place.error(
            "datatype",
            &format!("unknown datatype `{}`{hint}", shown::name(&dtype)),
        )
    })
}

fn read_outputs(
    list: Option<&str>,
    binary: bool,
) -> Result<(Vec<RequestedOutput>, ResponseForm), ApiError> {
    let mut outputs: Vec<RequestedOutput> = Vec::new();
    let mut form = ResponseForm {
        binary,
        ..ResponseForm::default()
    };
    let mut names = HashSet::new();
    if list.is_none() {
        return Ok((outputs, form));
    }
    for (index, text) in elements(list, "outputs")?.into_iter().enumerate() {
        let mut place = Place {
            role: "output",
            index,
            name: None,
        };
        let [name, parameters] = Reader::over(text, DEPTH_MAX)
            .fields(["name", "parameters"])
            .map_err(|fault| place.error("", &fault.to_string()))?;
        let name = read_name(name, &mut place)?;
        let parameters::OfOutput {
            parameters,
            binary,
            shared,
        } = parameters::of_output(parameters, &place)?;
        if let Some(binary) = binary {
            form.outputs.insert(name.clone(), binary);
        }
        if let Some(shared) = shared {
            form.placement.insert(name.clone(), shared);
        }
        // Asked for twice is given once.
        if names.insert(name.clone()) {
            outputs.push(RequestedOutput { name, parameters });
        }
    }
    Ok((outputs, form))
}

impl Header<'_> {
    /// Bytes of each binary tensor that follows the JSON, in that order. Their sum can be addressed, but it is only what
    /// the client claims: compare it with the body's own length and limit before allocating.
    pub fn binary_plan(&self) -> Vec<usize> {
        let sizes = self.inputs.iter().map(|input| match input.data {
            InputData::Binary { bytes } => Some(bytes),
            InputData::Json(_) | InputData::Shared(_) | InputData::Read(_) => None,
        });
        sizes.flatten().collect()
    }

    /// Where the inputs in shared memory are, in order; their sizes fit their types and shapes.
    pub fn shared_plan(&self, model: &str) -> Result<Vec<Shared>, ApiError> {
        let mut plan = Vec::new();
        for input in &self.inputs {
            if let InputData::Shared(place) = &input.data {
                let names = (input.name.as_str(), model);
                shared::check_size(names, input.dtype, &input.shape, place.bytes)?;
                plan.push(place.clone());
            }
        }
        Ok(plan)
    }

    /// Takes what was read from those places, in the plan's order.
    pub fn set_shared(&mut self, read: Vec<Bytes>) {
        let places = self
            .inputs
            .iter_mut()
            .filter(|input| matches!(input.data, InputData::Shared(_)));
        for (input, bytes) in places.zip(read) {
            input.data = InputData::Read(bytes);
        }
    }

    /// Joins the JSON with the binary tensors, one [`Bytes`] for each entry of the plan.
    pub fn into_request(
        self,
        model: &str,
        version: Option<&str>,
        binary: Vec<Bytes>,
        pool: &BufferPool,
    ) -> Result<(InferRequest, ResponseForm), ApiError> {
        let mut binary = binary.into_iter();
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for (index, input) in self.inputs.into_iter().enumerate() {
            let place = Place {
                role: "input",
                index,
                name: Some(input.name.clone()),
            };
            let bytes = match input.data {
                InputData::Json(text) => {
                    data::parse(text, &input.name, input.dtype, &input.shape, pool)
                        .map_err(|message| place.error("data", &message))?
                }
                InputData::Binary { bytes } => exactly(bytes, binary.next(), &place)?,
                InputData::Read(bytes) => bytes,
                InputData::Shared(_) => {
                    return Err(place.error("parameters", "its shared memory was not read"));
                }
            };
            let tensor = Tensor::new(input.name, input.dtype, input.shape, bytes);
            inputs.push(tensor.map_err(|error| {
                ApiError::invalid(error.of_input(model)).with_param(format!("inputs[{index}]"))
            })?);
        }
        if binary.next().is_some_and(|rest| !rest.is_empty()) {
            let message = format!(
                "unexpected additional input data for model '{}'",
                shown::name(model)
            );
            return Err(ApiError::invalid(message));
        }
        let request = InferRequest {
            model: model.to_owned(),
            version: version.map(str::to_owned),
            id: self.id,
            parameters: self.parameters,
            inputs,
            outputs: self.outputs,
        };
        Ok((request, self.form))
    }
}

fn exactly(bytes: usize, found: Option<Bytes>, place: &Place) -> Result<Bytes, ApiError> {
    let found = found.unwrap_or_default();
    if found.len() == bytes {
        return Ok(found);
    }
    let message = format!(
        "the body ends too early: `binary_data_size` promises {bytes} bytes, {} are there",
        found.len()
    );
    Err(place.error("parameters.binary_data_size", &message))
}
