//! One `--input`.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use protocol::{DataType, Tensor};
use serde_json::Value;

use super::element;
use crate::exit::{Failure, Outcome};

const FORMS: &str = "NAME=JSON, NAME=@FILE.json or NAME=@FILE:DATATYPE:SHAPE, such as image=@image.bin:FP32:1x3x224x224";

#[derive(Debug, PartialEq)]
pub(super) struct Input {
    pub(super) name: String,
    content: Content,
}

#[derive(Debug, PartialEq)]
enum Content {
    Json(Value),
    /// Little-endian bytes as they are in the file.
    Raw {
        file: PathBuf,
        dtype: DataType,
        shape: Vec<usize>,
    },
}

impl Input {
    pub(super) fn parse(text: &str) -> Outcome<Self> {
        let (name, value) = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| wrong(text, "it has no `NAME=`"))?;
        let content = match value.strip_prefix('@') {
            None => Content::Json(json(value).map_err(|error| wrong(text, &error))?),
            Some(source) => {
                match raw(source).map_err(|error| wrong(text, &error))? {
                    Some(content) => content,
                    None => {
                        let file = read(Path::new(source))?;
                        let value = serde_json::from_slice(&file).map_err(|error| {
                        wrong(text, &format!("the file is not JSON ({error}); raw bytes need a type and a shape"))
                    })?;
                        Content::Json(value)
                    }
                }
            }
        };
        Ok(Self {
            name: name.to_owned(),
            content,
        })
    }

    pub(super) fn is_raw(&self) -> bool {
        matches!(self.content, Content::Raw { .. })
    }

    /// The tensor for an input that the model describes as `spec`.
    pub(super) fn tensor(&self, spec: &Value) -> Outcome<Tensor> {
        let wrong = |reason: String| Failure::usage(format!("input `{}`: {reason}", self.name));
        let (dtype, shape, data) = match &self.content {
            Content::Raw { file, dtype, shape } => (*dtype, shape.clone(), read(file)?),
            Content::Json(value) => {
                let dtype = spec["datatype"].as_str().and_then(DataType::from_name);
                let dtype = dtype.ok_or_else(|| wrong("the model names no datatype".to_owned()))?;
                let mut flat = Vec::new();
                let mut shape = Vec::new();
                measure(value, 0, &mut shape, &mut flat).map_err(wrong)?;
                let rank = spec["shape"].as_array().map_or(shape.len(), Vec::len);
                // One example without its batch dimension is what people type.
                while shape.len() < rank {
                    shape.insert(0, 1);
                }
                let data = element::encode(&flat, dtype).map_err(wrong)?;
                (dtype, shape, data)
            }
        };
        Tensor::new(self.name.clone(), dtype, shape, Bytes::from(data))
            .map_err(|error| wrong(error.to_string()))
    }
}

fn wrong(text: &str, reason: &str) -> Failure {
    Failure::usage(format!("input `{text}` cannot be read: {reason}")).hint(FORMS)
}

/// A word that is not JSON is taken as a string: the shell has eaten the quotes.
fn json(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        Err(error) if text.starts_with(['[', '{', '"']) => Err(format!("not JSON: {error}")),
        Err(_) => Ok(Value::String(text.to_owned())),
    }
}

/// `FILE:DATATYPE:SHAPE`, or none when there is no known data type in it.
fn raw(source: &str) -> Result<Option<Content>, String> {
    let mut parts = source.rsplitn(3, ':');
    let (Some(shape), Some(dtype), Some(file)) = (parts.next(), parts.next(), parts.next()) else {
        return Ok(None);
    };
    let Some(dtype) = DataType::from_name(dtype) else {
        let names: Vec<&str> = DataType::ALL.iter().map(|dtype| dtype.name()).collect();
        return Err(format!(
            "`{dtype}` is no datatype; known: {}",
            names.join(", ")
        ));
    };
    let shape = shape
        .split(['x', ','])
        .map(|dimension| dimension.trim().parse::<usize>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| format!("`{shape}` is no shape; write it as 1x3x224x224"))?;
    Ok(Some(Content::Raw {
        file: PathBuf::from(file),
        dtype,
        shape,
    }))
}

/// The shape of nested arrays, and their elements in order.
fn measure<'a>(
    value: &'a Value,
    depth: usize,
    shape: &mut Vec<usize>,
    flat: &mut Vec<&'a Value>,
) -> Result<(), String> {
    let Value::Array(items) = value else {
        if depth == shape.len() {
            flat.push(value);
            return Ok(());
        }
        return Err("its arrays are not equally deep".to_owned());
    };
    // Before the first element the depth is not known yet.
    if depth == shape.len() && flat.is_empty() {
        shape.push(items.len());
    }
    if shape.get(depth) != Some(&items.len()) {
        return Err("its arrays are not equally long".to_owned());
    }
    items
        .iter()
        .try_for_each(|item| measure(item, depth + 1, shape, flat))
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        Failure::usage(format!("file `{}` cannot be read: {error}", path.display())).hint(FORMS)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_becomes_a_tensor_of_the_models_type_and_rank() {
        let spec = json!({"name": "x", "datatype": "FP32", "shape": [-1, 2]});
        for (text, shape) in [
            ("x=[[1, 2], [3, 4]]", Some(vec![2, 2])),
            ("x=[1, 2]", Some(vec![1, 2])),
            ("x=3", Some(vec![1, 1])),
            ("x=[[1], [2, 3]]", None),
            ("x=[1, [2]]", None),
            ("x=[\"a\", \"b\"]", None),
        ] {
            let tensor = Input::parse(text).and_then(|input| input.tensor(&spec));
            assert_eq!(tensor.ok().map(|tensor| tensor.shape), shape, "{text}");
        }
    }

    #[test]
    fn raw_files_carry_type_and_shape_and_mistakes_are_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("x.bin");
        std::fs::write(&file, 7_i64.to_le_bytes()).expect("a file");
        let parse = |tail: &str| Input::parse(&format!("x=@{}{tail}", file.display()));
        let input = parse(":INT64:1x1").expect("a raw input");
        assert!(input.is_raw());
        let tensor = input.tensor(&Value::Null).expect("a tensor");
        assert_eq!((tensor.dtype, tensor.shape), (DataType::Int64, vec![1, 1]));
        for (tail, message) in [
            (":INT65:1", "no datatype"),
            (":INT64:1xa", "no shape"),
            ("", "not JSON"),
        ] {
            let failure = parse(tail).expect_err(tail);
            assert!(failure.error.to_string().contains(message), "{tail}");
            assert!(failure.hint.is_some());
        }
        let short = parse(":INT64:2").and_then(|input| input.tensor(&Value::Null));
        assert!(short.is_err());
        assert!(Input::parse("=1").is_err());
        assert_eq!(
            Input::parse("x=cat").expect("a bare word").content,
            Content::Json(json!("cat"))
        );
    }
}
