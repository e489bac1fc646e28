//! What the two processes say to each other: a length in four little-endian bytes, then JSON.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use protocol::oip::proto::ModelConfig;
use protocol::sidecar::Sidecar;
use protocol::{DataType, Parameter, TensorSpec};
use runtime::engine::{EngineError, LoadOptions, Precision, Source};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Names, shapes and reasons; tensors' bytes go another way.
const FRAME_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    Load(Box<Model>),
    OpenLane {
        lane: u64,
    },
    CloseLane {
        lane: u64,
    },
    Run {
        call: u64,
        lane: u64,
        inputs: Vec<Header>,
        wanted: Vec<usize>,
    },
    Stop {
        call: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Loaded(Loaded),
    NotLoaded(Fault),
    LaneOpen {
        lane: u64,
    },
    NoLane {
        lane: u64,
        fault: Fault,
    },
    Done {
        call: u64,
        result: Result<Vec<Header>, Fault>,
    },
}

/// A tensor without its bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) dtype: DataType,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Loaded {
    pub(crate) inputs: Vec<Spec>,
    pub(crate) outputs: Vec<Spec>,
    pub(crate) delay: Duration,
    pub(crate) memory_bytes: u64,
    pub(crate) takes_absent: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    name: String,
    dtype: DataType,
    shape: Vec<i64>,
}

impl From<&TensorSpec> for Spec {
    fn from(spec: &TensorSpec) -> Self {
        Self {
            name: spec.name.clone(),
            dtype: spec.dtype,
            shape: spec.shape.clone(),
        }
    }
}

impl From<Spec> for TensorSpec {
    fn from(spec: Spec) -> Self {
        Self::new(spec.name, spec.dtype, spec.shape)
    }
}

/// [`Source`] and [`LoadOptions`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Model {
    pub(crate) engine: String,
    name: String,
    path: PathBuf,
    backend: String,
    parameters: BTreeMap<String, String>,
    inputs: Vec<Spec>,
    outputs: Vec<Spec>,
    folder: PathBuf,
    config: Vec<u8>,
    sidecar: Sidecar,
    threads: usize,
    lanes: usize,
    precision: Precision,
    frugal: bool,
}

impl Model {
    pub(crate) fn new(engine: &str, source: &Source, options: LoadOptions) -> Self {
        let specs = |specs: &[TensorSpec]| specs.iter().map(Spec::from).collect();
        Self {
            engine: engine.to_owned(),
            name: source.model.clone(),
            path: source.path.clone(),
            backend: source.backend.clone(),
            parameters: source
                .parameters
                .iter()
                .map(|(key, value)| (key.clone(), value.to_string()))
                .collect(),
            inputs: specs(&source.inputs),
            outputs: specs(&source.outputs),
            folder: source.folder.clone(),
            config: source.config.encode_to_vec(),
            sidecar: source.sidecar.as_ref().clone(),
            threads: options.threads,
            lanes: options.lanes,
            precision: options.precision,
            frugal: options.frugal,
        }
    }

    pub(crate) fn source(self) -> Result<(Source, LoadOptions), String> {
        let config = ModelConfig::decode(self.config.as_slice())
            .map_err(|error| format!("the configuration did not arrive: {error}"))?;
        let specs = |specs: Vec<Spec>| specs.into_iter().map(TensorSpec::from).collect();
        let source = Source {
            model: self.name,
            path: self.path,
            backend: self.backend,
            parameters: self
                .parameters
                .into_iter()
                .map(|(key, value)| (key, Parameter::Text(value)))
                .collect(),
            inputs: specs(self.inputs),
            outputs: specs(self.outputs),
            folder: self.folder,
            config: Arc::new(config),
            sidecar: Arc::new(self.sidecar),
        };
        let options = LoadOptions {
            threads: self.threads,
            lanes: self.lanes,
            precision: self.precision,
            frugal: self.frugal,
        };
        Ok((source, options))
    }
}

/// [`EngineError`] without the engine's name, which this side knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Fault {
    Input(String),
    Stopped,
    Unsupported(String),
    Failed(String),
    Gone(String),
}

impl From<EngineError> for Fault {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Input(reason) => Self::Input(reason),
            EngineError::Stopped => Self::Stopped,
            EngineError::Unsupported { reason, .. } | EngineError::Missing { reason, .. } => {
                Self::Unsupported(reason)
            }
            EngineError::Failed { reason, .. } => Self::Failed(reason),
            EngineError::Gone { reason, .. } => Self::Gone(reason),
        }
    }
}

impl Fault {
    pub(crate) fn of(self, engine: &'static str) -> EngineError {
        match self {
            Self::Input(reason) => EngineError::Input(reason),
            Self::Stopped => EngineError::Stopped,
            Self::Unsupported(reason) => EngineError::Unsupported { engine, reason },
            Self::Failed(reason) => EngineError::Failed { engine, reason },
            Self::Gone(reason) => EngineError::Gone { engine, reason },
        }
    }
}

pub(crate) fn send(mut to: impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    let length = u32::try_from(length)
        .ok()
        .filter(|_| length <= FRAME_BYTES_MAX)
        .ok_or_else(|| io::Error::other("a message is too long"))?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    to.write_all(&frame)
}

/// None when the other side has closed.
pub(crate) fn receive<T: DeserializeOwned>(mut from: impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other(format!(
            "a message claims {length} bytes, at most {FRAME_BYTES_MAX} are allowed"
        )));
    }
    let mut frame = vec![0; length];
    from.read_exact(&mut frame)?;
    Ok(Some(serde_json::from_slice(&frame)?))
}

#[cfg(test)]
mod tests {
    use protocol::Parameters;

    use super::*;

    #[test]
    fn all_that_an_engine_is_told_arrives() {
        let mut sidecar = Sidecar::default();
        sidecar.custom_ops.libs.push("ops.so".into());
        let spec = TensorSpec::new("x", DataType::Fp32, vec![-1, 3]);
        let parameter = Parameter::Text("2".to_owned());
        let source = Source {
            model: "m".to_owned(),
            path: "/m/1/model.onnx".into(),
            backend: "onnxruntime".to_owned(),
            parameters: Parameters::from([("threads".to_owned(), parameter)]),
            inputs: vec![spec.clone()],
            outputs: vec![spec],
            folder: "/m".into(),
            config: Arc::new(ModelConfig {
                name: "m".to_owned(),
                max_batch_size: 4,
                ..ModelConfig::default()
            }),
            sidecar: Arc::new(sidecar),
        };
        let options = LoadOptions {
            threads: 2,
            lanes: 3,
            precision: Precision::Bf16,
            frugal: true,
        };
        let mut sent = Vec::new();
        let model = Model::new("onnxruntime", &source, options);
        send(&mut sent, &Order::Load(Box::new(model))).expect("fits");
        let Some(Order::Load(model)) = receive(sent.as_slice()).expect("arrives") else {
            panic!("another order");
        };
        let (arrived, with) = model.source().expect("whole");
        assert_eq!(with, options);
        assert_eq!(format!("{arrived:?}"), format!("{source:?}"));
    }
}
