//! `POST /v1/embeddings`

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::DEPTH_MAX;
use crate::json::{Fault, Kind, Lone, Reader};
use crate::{ApiError, EmbedInputs, EmbedRequest, Embeddings};

/// OpenAI's limit on one request.
pub const INPUTS_MAX: usize = 2048;

/// How vectors are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EncodingFormat {
    #[default]
    Float,
    /// Little-endian f32; what openai-python asks for unless told otherwise.
    Base64,
}

/// Reads the body; fields that it does not know are let through, as OpenAI does.
pub fn parse_embeddings(body: &[u8]) -> Result<(EmbedRequest, EncodingFormat), ApiError> {
    let facts = super::scan(body)?;
    let names = ["input", "encoding_format", "dimensions"];
    // The scan has just read the same bytes as an object.
    let [input, format, dimensions] = Reader::new(body, DEPTH_MAX)
        .and_then(|mut reader| reader.fields(names))
        .map_err(|fault| ApiError::invalid(fault.to_string()))?;
    let input = input.ok_or_else(|| invalid("input", "you must provide an input parameter"))?;
    let request = EmbedRequest {
        model: facts.model.into_owned(),
        inputs: read_inputs(input)?,
        dimensions: present(dimensions).map(read_dimensions).transpose()?,
    };
    let format = present(format).map(read_format).transpose()?;
    Ok((request, format.unwrap_or_default()))
}

fn invalid(param: &str, message: &str) -> ApiError {
    ApiError::invalid(message).with_param(param)
}

/// SDKs write null for what was not set.
fn present(value: Option<&str>) -> Option<&str> {
    value.filter(|value| *value != "null")
}

fn read_dimensions(text: &str) -> Result<usize, ApiError> {
    text.parse()
        .ok()
        .filter(|dimensions| *dimensions > 0)
        .ok_or_else(|| {
            invalid(
                "dimensions",
                "`dimensions` must be a whole number from 1 up",
            )
        })
}

fn read_format(text: &str) -> Result<EncodingFormat, ApiError> {
    match text {
        "\"float\"" => Ok(EncodingFormat::Float),
        "\"base64\"" => Ok(EncodingFormat::Base64),
        _ => {
            let message = "`encoding_format` must be `float` or `base64`";
            Err(invalid("encoding_format", message))
        }
    }
}

/// Why `input` was refused: as JSON, or for what it says.
enum Why {
    Fault(Fault),
    Error(ApiError),
}

impl From<Fault> for Why {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

fn refuse<T>(message: &str) -> Result<T, Why> {
    Err(Why::Error(invalid("input", message)))
}

fn read_inputs(text: &str) -> Result<EmbedInputs, ApiError> {
    let mut reader = Reader::over(text, DEPTH_MAX);
    inputs(&mut reader).map_err(|why| match why {
        Why::Error(error) => error,
        Why::Fault(fault) => invalid("input", &format!("`input`: {fault}")),
    })
}

const SHAPES: &str =
    "`input` must be a string, a list of strings, a list of token ids, or a list of such lists";

fn inputs(reader: &mut Reader<'_>) -> Result<EmbedInputs, Why> {
    match reader.kind()? {
        Kind::Text => Ok(EmbedInputs::Texts(vec![text(reader)?])),
        Kind::Array => list(reader),
        Kind::Object | Kind::Number | Kind::Bool | Kind::Null => refuse(SHAPES),
    }
}

/// The first element decides what the list is a list of.
fn list(reader: &mut Reader<'_>) -> Result<EmbedInputs, Why> {
    let mut first = None;
    let (mut texts, mut token_lists, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
    reader.array(|reader| {
        let kind = reader.kind()?;
        if *first.get_or_insert(kind) != kind {
            return refuse(SHAPES);
        }
        match kind {
            Kind::Text => texts.push(text(reader)?),
            Kind::Number => tokens.push(token(reader)?),
            Kind::Array => token_lists.push(token_list(reader)?),
            Kind::Object | Kind::Bool | Kind::Null => return refuse(SHAPES),
        }
        if texts.len().max(token_lists.len()) > INPUTS_MAX {
            return refuse("`input` has more than 2048 elements; send them in several requests");
        }
        Ok(())
    })?;
    match first {
        None => refuse("`input` must not be an empty list"),
        Some(Kind::Text) => Ok(EmbedInputs::Texts(texts)),
        Some(Kind::Number) => Ok(EmbedInputs::Tokens(vec![tokens])),
        Some(_) => Ok(EmbedInputs::Tokens(token_lists)),
    }
}

fn text(reader: &mut Reader<'_>) -> Result<String, Why> {
    let text = reader.text()?.unescape(Lone::Replace)?.into_owned();
    if text.is_empty() {
        return refuse("`input` must not contain an empty string");
    }
    Ok(text)
}

fn token_list(reader: &mut Reader<'_>) -> Result<Vec<u32>, Why> {
    let mut tokens = Vec::new();
    reader.array(|reader| {
        tokens.push(token(reader)?);
        Ok::<(), Why>(())
    })?;
    if tokens.is_empty() {
        return refuse("`input` must not contain an empty list");
    }
    Ok(tokens)
}

fn token(reader: &mut Reader<'_>) -> Result<u32, Why> {
    if reader.kind()? != Kind::Number {
        return refuse(SHAPES);
    }
    match reader.number()?.parse() {
        Ok(token) => Ok(token),
        Err(_) => refuse("`input`: a token id is a whole number from 0 to 4294967295"),
    }
}

/// Writes the answer. A number that JSON cannot carry is written as null; base64 carries every bit.
pub fn encode_embeddings(embeddings: &Embeddings, format: EncodingFormat) -> Vec<u8> {
    let numbers: usize = embeddings.vectors.iter().map(Vec::len).sum();
    // About eleven digits for each number.
    let mut json = Vec::with_capacity(numbers * 12 + 256);
    json.extend_from_slice(b"{\"object\":\"list\",\"data\":[");
    for (index, vector) in embeddings.vectors.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(b"{\"object\":\"embedding\",\"index\":");
        write(&mut json, &index);
        json.extend_from_slice(b",\"embedding\":");
        match format {
            EncodingFormat::Float => write(&mut json, vector),
            EncodingFormat::Base64 => write(&mut json, &base64(vector)),
        }
        json.push(b'}');
    }
    json.extend_from_slice(b"],\"model\":");
    write(&mut json, &embeddings.model);
    json.extend_from_slice(b",\"usage\":{\"prompt_tokens\":");
    write(&mut json, &embeddings.tokens);
    json.extend_from_slice(b",\"total_tokens\":");
    write(&mut json, &embeddings.tokens);
    json.extend_from_slice(b"}}");
    json
}

fn write<T: serde::Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(json, value).expect("strings and numbers always serialise");
}

fn base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    STANDARD.encode(bytes)
}
