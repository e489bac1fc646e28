//! Models that answer as a test needs it: `echo` gives its inputs back, `vectors` embeds, `slow` never answers, `repeat`
//! answers once for each element and then fails if the last one is negative; `dozing` is `repeat` once it is awake, and
//! `patient` answers when `dozing` has. `lengths` takes strings and gives a vector for each: its bytes, and 1.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base::{Deadline, ErrorKind};
use parking_lot::Mutex;
use protocol::oip::proto::{ModelConfig, ModelStatistics};
use protocol::{
    ApiError, EmbedInputs, EmbedRequest, Embeddings, IndexEntry, InferRequest, InferResponse,
    LoadRequest, ModelDescription, ModelMetadata, ModelState, ModelTraits, StreamedResponse,
    TensorSpec, Timing,
};
use tokio::sync::Notify;

use crate::server::{Answer, ModelServer, ModelStream};

#[derive(Debug, Default)]
pub(super) struct FakeModels {
    /// Calls to `slow` that were given up.
    pub(super) dropped: AtomicUsize,
    /// Calls that came in.
    pub(super) asked: AtomicUsize,
    /// The ids of requests that came in.
    pub(super) order: Mutex<Vec<String>>,
    awake: AtomicBool,
    /// Told when `dozing` has answered.
    dozed: Arc<Notify>,
}

const NAMES: [&str; 6] = ["echo", "vectors", "slow", "broken", "loading", "repeat"];

/// In no list.
const HIDDEN: [&str; 3] = ["dozing", "patient", "lengths"];

struct Dropped<'a>(&'a AtomicUsize);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn known(model: &str) -> Result<(), ApiError> {
    if NAMES.contains(&model) || HIDDEN.contains(&model) {
        Ok(())
    } else {
        Err(ApiError::unknown_model(model))
    }
}

/// Less than the call really takes: the ledger books no more than there was.
const TIMING: Timing = Timing {
    queue: Duration::from_nanos(40),
    input: Duration::from_nanos(30),
    infer: Duration::from_nanos(20),
    output: Duration::from_nanos(10),
};

struct Once(Option<InferResponse>);

impl ModelStream for Once {
    fn next(&mut self) -> Answer<'_, Option<StreamedResponse>> {
        let response = self.0.take();
        Box::pin(async move {
            Ok(response.map(|response| StreamedResponse {
                response,
                last: true,
            }))
        })
    }
}

/// One answer for each element of the one input.
struct Repeat {
    request: InferRequest,
    at: usize,
    ended: Option<Arc<Notify>>,
}

impl ModelStream for Repeat {
    fn next(&mut self) -> Answer<'_, Option<StreamedResponse>> {
        let input = &self.request.inputs[0];
        let elements = input.elements::<f32>().expect("aligned");
        let element = elements.get(self.at).copied();
        self.at += 1;
        if let (None, Some(ended)) = (element, &self.ended) {
            ended.notify_one();
        }
        let answer = element.map(|element| {
            if element < 0.0 {
                return Err(ApiError::invalid("a negative element"));
            }
            let (name, dtype) = (input.name.clone(), input.dtype);
            let tensor = protocol::Tensor::from_elements(name, dtype, vec![1], vec![element]);
            Ok(StreamedResponse {
                response: InferResponse {
                    model: self.request.model.clone(),
                    version: "1".to_owned(),
                    id: self.request.id.clone(),
                    outputs: vec![tensor.expect("one element")],
                    ..InferResponse::default()
                },
                last: false,
            })
        });
        Box::pin(async move { answer.transpose() })
    }
}

fn lengths(request: &InferRequest) -> InferResponse {
    let mut data = request.inputs[0].data.as_ref();
    let mut vectors = Vec::new();
    while let Some((bytes, rest)) = data.split_first_chunk::<4>() {
        let bytes = u32::from_le_bytes(*bytes);
        vectors.extend([f32::from(u16::try_from(bytes).expect("short")), 1.0]);
        data = &rest[bytes as usize..];
    }
    let shape = vec![vectors.len() / 2, 2];
    let tensor = protocol::Tensor::from_elements("v", protocol::DataType::Fp32, shape, vectors);
    InferResponse {
        model: request.model.clone(),
        version: "1".to_owned(),
        outputs: vec![tensor.expect("two for each")],
        ..InferResponse::default()
    }
}

impl ModelServer for FakeModels {
    fn has(&self, model: &str) -> bool {
        known(model).is_ok()
    }

    fn model_ready(&self, model: &str, _: Option<&str>) -> Result<bool, ApiError> {
        known(model).map(|()| model != "loading")
    }

    fn ready(&self) -> bool {
        false
    }

    fn wake<'a>(&'a self, model: &'a str, _: Option<&'a str>) -> Answer<'a, ()> {
        Box::pin(async move {
            if model == "dozing" {
                tokio::task::yield_now().await;
                self.awake.store(true, Ordering::SeqCst);
            }
            Ok(())
        })
    }

    fn metadata(&self, model: &str, _: Option<&str>) -> Result<ModelMetadata, ApiError> {
        known(model)?;
        if model == "lengths" {
            return Ok(ModelMetadata {
                name: model.to_owned(),
                versions: vec!["1".to_owned()],
                platform: "fake".to_owned(),
                inputs: vec![TensorSpec::new("text", protocol::DataType::Bytes, vec![-1])],
                outputs: vec![TensorSpec::new("v", protocol::DataType::Fp32, vec![-1, 2])],
            });
        }
        Ok(ModelMetadata {
            name: model.to_owned(),
            versions: vec!["1".to_owned()],
            platform: "fake".to_owned(),
            inputs: vec![TensorSpec::new("x", protocol::DataType::Fp32, vec![-1])],
            outputs: Vec::new(),
        })
    }

    fn traits(&self, model: &str, _: Option<&str>) -> Result<ModelTraits, ApiError> {
        known(model)?;
        if model == "dozing" && !self.awake.load(Ordering::SeqCst) {
            return Err(ApiError::new(ErrorKind::Unavailable, "asleep"));
        }
        Ok(ModelTraits {
            batches: false,
            decoupled: matches!(model, "repeat" | "dozing"),
        })
    }

    /// Not of those that streams and generate ask: a configuration may be large, and is for whoever wants it whole.
    fn config(&self, model: &str, _: Option<&str>) -> Result<ModelConfig, ApiError> {
        known(model)?;
        if matches!(model, "repeat" | "dozing") {
            return Err(ApiError::new(
                ErrorKind::Internal,
                "too large for each request",
            ));
        }
        Ok(ModelConfig {
            name: model.to_owned(),
            ..ModelConfig::default()
        })
    }

    fn index(&self) -> Vec<IndexEntry> {
        NAMES
            .iter()
            .map(|name| IndexEntry {
                name: (*name).to_owned(),
                version: "1".to_owned(),
                state: if *name == "loading" {
                    ModelState::Loading
                } else {
                    ModelState::Ready
                },
                reason: String::new(),
            })
            .collect()
    }

    fn statistics(
        &self,
        model: Option<&str>,
        _: Option<&str>,
    ) -> Result<Vec<ModelStatistics>, ApiError> {
        model.map_or(Ok(()), known)?;
        Ok(NAMES
            .iter()
            .filter(|name| model.is_none_or(|model| model == **name))
            .map(|name| ModelStatistics {
                name: (*name).to_owned(),
                ..ModelStatistics::default()
            })
            .collect())
    }

    fn infer(&self, request: InferRequest, _: Deadline) -> Answer<'_, (InferResponse, Timing)> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.order.lock().extend(request.id.clone());
        Box::pin(async move {
            match request.model.as_str() {
                "slow" => {
                    let _dropped = Dropped(&self.dropped);
                    std::future::pending().await
                }
                "broken" => panic!("a bug in a model"),
                "lengths" => Ok((lengths(&request), TIMING)),
                "loading" => Err(ApiError::new(ErrorKind::Unavailable, "model is loading")),
                _ => {
                    let response = InferResponse {
                        model: request.model,
                        version: "1".to_owned(),
                        id: request.id,
                        outputs: request.inputs,
                        ..InferResponse::default()
                    };
                    Ok((response, TIMING))
                }
            }
        })
    }

    fn stream(
        &self,
        request: InferRequest,
        deadline: Deadline,
    ) -> Answer<'_, Box<dyn ModelStream>> {
        Box::pin(async move {
            if matches!(request.model.as_str(), "repeat" | "dozing") {
                let ended = (request.model == "dozing").then(|| Arc::clone(&self.dozed));
                let (at, request) = (0, request);
                let repeat = Repeat { request, at, ended };
                return Ok(Box::new(repeat) as Box<dyn ModelStream>);
            }
            if request.model == "patient" {
                self.dozed.notified().await;
            }
            let (response, _timing) = self.infer(request, deadline).await?;
            Ok(Box::new(Once(Some(response))) as Box<dyn ModelStream>)
        })
    }

    fn load(&self, request: LoadRequest) -> Answer<'_, ()> {
        Box::pin(async move { known(&request.model) })
    }

    fn unload(&self, model: &str, _dependents: bool) -> Answer<'_, ()> {
        let model = model.to_owned();
        Box::pin(async move { known(&model) })
    }

    fn roll_back(&self, model: &str) -> Answer<'_, ()> {
        let model = model.to_owned();
        Box::pin(async move {
            known(&model)?;
            if model == "echo" {
                return Ok(());
            }
            let message = format!("failed to roll back '{model}', nothing served before");
            Err(ApiError::new(ErrorKind::Conflict, message))
        })
    }

    fn embeds(&self, model: &str) -> bool {
        model == "vectors"
    }

    fn embed(&self, request: EmbedRequest, _: Deadline) -> Answer<'_, (Embeddings, Timing)> {
        Box::pin(async move {
            let count = match &request.inputs {
                EmbedInputs::Texts(texts) => texts.len(),
                EmbedInputs::Tokens(tokens) => tokens.len(),
            };
            let embeddings = Embeddings {
                model: request.model,
                vectors: vec![vec![0.5, -0.5]; count],
                tokens: 3 * count,
            };
            Ok((embeddings, TIMING))
        })
    }

    fn describe(&self) -> Vec<ModelDescription> {
        Vec::new()
    }
}
