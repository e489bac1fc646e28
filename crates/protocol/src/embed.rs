//! Text in, vectors out, whatever door it came through.

use crate::tensor::encode_bytes_elements;
use crate::{
    ApiError, DataType, InferRequest, InferResponse, ModelMetadata, RequestedOutput, Tensor, shown,
};

#[derive(Debug, Clone, PartialEq)]
pub struct EmbedRequest {
    pub model: String,
    pub inputs: EmbedInputs,
    /// Shorten the vectors to this many dimensions and normalise again.
    pub dimensions: Option<usize>,
}

/// OpenAI's four input shapes come down to two.
#[derive(Debug, Clone, PartialEq)]
pub enum EmbedInputs {
    Texts(Vec<String>),
    /// Already tokenised, special tokens included as given.
    Tokens(Vec<Vec<u32>>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    pub model: String,
    /// One vector per input, in order.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens over all inputs, special tokens included, padding excluded.
    pub tokens: usize,
}

/// A request for a model that takes strings and gives vectors, though it knows nothing of embeddings: one input of type
/// `BYTES`, with one string in each row.
pub fn infer_request(
    request: &EmbedRequest,
    metadata: &ModelMetadata,
) -> Result<InferRequest, ApiError> {
    let refuse = |why: String| {
        let message = format!("model `{}` cannot embed texts: {why}", metadata.name);
        ApiError::invalid(message).with_param("model")
    };
    let EmbedInputs::Texts(texts) = &request.inputs else {
        let message = "this model takes text, not token ids";
        return Err(ApiError::invalid(message).with_param("input"));
    };
    let [input] = metadata.inputs.as_slice() else {
        return Err(refuse(format!("it has {} inputs", metadata.inputs.len())));
    };
    if input.dtype != DataType::Bytes {
        return Err(refuse(format!("its input is of type {}", input.dtype)));
    }
    let rows = texts.len();
    let shape = match input.shape.as_slice() {
        [_] => vec![rows],
        [_, 1 | -1] => vec![rows, 1],
        shape => {
            return Err(refuse(format!(
                "its input has the shape {}",
                shown::shape(shape)
            )));
        }
    };
    if !input.accepts(&shape) {
        let message = format!(
            "model `{}` takes {} texts at a time",
            metadata.name, input.shape[0]
        );
        return Err(ApiError::invalid(message).with_param("input"));
    }
    let vectors = metadata
        .outputs
        .iter()
        .find(|output| output.dtype == DataType::Fp32 && matches!(output.shape.len(), 2 | 3));
    let vectors =
        vectors.ok_or_else(|| refuse("no output of it is a list of vectors".to_owned()))?;
    let data = encode_bytes_elements(texts)
        .ok_or_else(|| refuse("a text is longer than 4 GiB".to_owned()))?;
    let tensor = Tensor::new(&input.name, DataType::Bytes, shape, data.into())
        .map_err(|error| refuse(error.to_string()))?;
    Ok(InferRequest {
        model: request.model.clone(),
        inputs: vec![tensor],
        outputs: vec![RequestedOutput {
            name: vectors.name.clone(),
            ..RequestedOutput::default()
        }],
        ..InferRequest::default()
    })
}

/// The vectors of such a model's answer. It counts no tokens, so there are none to tell.
pub fn of_response(
    request: &EmbedRequest,
    response: &InferResponse,
) -> Result<Embeddings, ApiError> {
    let broken = |why: &str| {
        let message = format!("model `{}` gave no embeddings: {why}", request.model);
        ApiError::new(base::ErrorKind::BadUpstream, message)
    };
    let EmbedInputs::Texts(texts) = &request.inputs else {
        return Err(broken("it was given no texts"));
    };
    let [output] = response.outputs.as_slice() else {
        return Err(broken("it has not one output"));
    };
    let width = match output.shape.as_slice() {
        [rows, width] | [rows, 1, width] if *rows == texts.len() => *width,
        _ => return Err(broken("its output has not one vector for each text")),
    };
    if output.dtype != DataType::Fp32 || width == 0 {
        return Err(broken("its output has no numbers of type FP32"));
    }
    let (numbers, _) = output.data.as_chunks::<4>();
    let numbers: Vec<f32> = numbers
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    let shortened = request.dimensions.filter(|dimensions| *dimensions < width);
    if request
        .dimensions
        .is_some_and(|dimensions| dimensions > width)
    {
        let message = format!("`dimensions` must be at most {width}");
        return Err(ApiError::invalid(message).with_param("dimensions"));
    }
    let vectors = numbers.chunks_exact(width).map(|vector| match shortened {
        None => vector.to_vec(),
        Some(dimensions) => normalised(&vector[..dimensions]),
    });
    Ok(Embeddings {
        model: request.model.clone(),
        vectors: vectors.collect(),
        tokens: 0,
    })
}

/// Of length 1, as OpenAI shortens.
fn normalised(vector: &[f32]) -> Vec<f32> {
    let length = vector
        .iter()
        .map(|number| number * number)
        .sum::<f32>()
        .sqrt();
    let scale = if length > 0.0 { 1.0 / length } else { 1.0 };
    vector.iter().map(|number| number * scale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TensorSpec;

    fn asked(dimensions: Option<usize>) -> EmbedRequest {
        EmbedRequest {
            model: "m".to_owned(),
            inputs: EmbedInputs::Texts(vec!["a".to_owned(), "bc".to_owned()]),
            dimensions,
        }
    }

    fn model(dtype: DataType, shape: &[i64], output: &[i64]) -> ModelMetadata {
        ModelMetadata {
            name: "m".to_owned(),
            versions: Vec::new(),
            platform: String::new(),
            inputs: vec![TensorSpec::new("text", dtype, shape.to_vec())],
            outputs: vec![TensorSpec::new("vector", DataType::Fp32, output.to_vec())],
        }
    }

    #[test]
    fn texts_become_a_tensor_where_the_model_takes_one() {
        for (shape, expected) in [
            (&[-1][..], vec![2]),
            (&[-1, 1], vec![2, 1]),
            (&[2, -1], vec![2, 1]),
        ] {
            let model = model(DataType::Bytes, shape, &[-1, 3]);
            let request = infer_request(&asked(None), &model).expect("texts");
            assert_eq!(request.inputs[0].shape, expected);
            assert_eq!(request.inputs[0].data.as_ref(), b"\x01\0\0\0a\x02\0\0\0bc");
            assert_eq!(request.outputs[0].name, "vector");
        }
        for (model, part) in [
            (model(DataType::Int64, &[-1], &[-1, 3]), "of type INT64"),
            (model(DataType::Bytes, &[-1, 4, 4], &[-1, 3]), "shape"),
            (
                model(DataType::Bytes, &[1, 1], &[1, 3]),
                "1 texts at a time",
            ),
            (model(DataType::Bytes, &[-1], &[-1]), "list of vectors"),
        ] {
            let refused = infer_request(&asked(None), &model).expect_err(part);
            assert!(refused.message.contains(part), "{}", refused.message);
        }
    }

    #[test]
    fn vectors_come_back_whole_or_shortened() {
        let numbers = vec![3.0_f32, 4.0, 12.0, 0.0, 0.0, 0.0];
        let vector = Tensor::from_elements("vector", DataType::Fp32, vec![2, 3], numbers);
        let response = InferResponse {
            outputs: vec![vector.expect("six numbers")],
            ..InferResponse::default()
        };
        let whole = of_response(&asked(None), &response).expect("vectors");
        assert_eq!(whole.vectors, [[3.0, 4.0, 12.0], [0.0, 0.0, 0.0]]);
        let short = of_response(&asked(Some(2)), &response).expect("vectors");
        assert_eq!(short.vectors, [[0.6, 0.8], [0.0, 0.0]]);
        assert!(of_response(&asked(Some(4)), &response).is_err());
        assert!(of_response(&asked(None), &InferResponse::default()).is_err());
    }
}
