//! OpenVINO: the fastest on Intel's processors where it can run a model, from a library found on this machine.
//!
//! Inside, whole numbers of 64 bits are computed in 32 and FP64 in 32; a model whose inputs or outputs it could not carry
//! exactly is refused, as by rten.

mod api;
mod ending;
mod handles;
mod library;
mod streams;

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use protocol::{DataType, Tensor, TensorSpec};
use runtime::engine::{Engine, EngineError, Lane, LoadOptions, Loaded, Precision, Run, Source};

use self::api::{CANCELLED, element};
use self::ending::Ending;
use self::handles::{Borrowed, Compilation, Compiled, Failure, Request};
use self::library::Library;
use self::streams::{Plan, Streams};
use crate::graph::{self, Description, Port, PortKind};
use crate::lanes::Lanes;
use crate::memory::Meter;
use crate::{Processor, Search, reason};

const NAME: &str = "openvino";

/// The engine behind a library of OpenVINO 2023.0 or newer.
#[derive(Debug, Clone)]
pub struct OpenVinoEngine {
    library: Arc<Library>,
    streams: Arc<Streams>,
    precisions: Arc<[Precision]>,
}

impl OpenVinoEngine {
    /// Finds and loads the library. A process loads one: later calls return the first.
    pub fn find(search: &Search, processor: &Processor) -> Result<Self, EngineError> {
        let library = library::find(search)?;
        let mut precisions = vec![Precision::Fp32];
        if processor.computes_bf16() {
            precisions.push(Precision::Bf16);
        }
        Ok(Self {
            library,
            streams: Arc::new(Streams::new(search.threads)),
            precisions: precisions.into(),
        })
    }

    /// The library's file.
    pub fn library(&self) -> &Path {
        &self.library.path
    }
}

impl Engine for OpenVinoEngine {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        self.library.version.clone()
    }

    fn accepts(&self, source: &Source) -> bool {
        crate::is_onnx(source)
    }

    fn precisions(&self) -> &[Precision] {
        &self.precisions
    }

    fn load(&self, source: &Source, options: LoadOptions) -> Result<Arc<dyn Loaded>, EngineError> {
        crate::no_operator_libraries(source).map_err(refuse)?;
        let declared = graph::describe(&source.path).map_err(|error| refuse(error.to_string()))?;
        declared.check_kinds().map_err(refuse)?;
        let bytes = fs::metadata(&source.path).map_or(0, |data| data.len());
        let recipe = Recipe {
            library: Arc::clone(&self.library),
            path: source.path.clone(),
            plan: self.streams.plan(options, bytes),
            precision: options.precision,
        };
        let meter = Meter::start();
        let compiled = recipe.compile()?;
        let memory_bytes = meter.stop(&source.path);
        let description = completed(declared, &compiled)?;
        let (inputs, outputs) = description.specs(&source.inputs).map_err(refuse)?;
        check_carried(&inputs, "input")?;
        check_carried(&outputs, "output")?;
        Ok(Arc::new(OpenVinoModel {
            lanes: Lanes::new(compiled, recipe.plan.shared()),
            recipe,
            inputs: inputs.into(),
            outputs: outputs.into(),
            memory_bytes,
        }))
    }
}

/// What a compiled model is made of.
#[derive(Debug)]
struct Recipe {
    library: Arc<Library>,
    path: PathBuf,
    plan: Plan,
    precision: Precision,
}

impl Recipe {
    fn compile(&self) -> Result<Arc<Compiled>, EngineError> {
        let words = |failure: Failure| refuse(reason::about(&self.path, &failure.words));
        let path = CString::new(self.path.as_os_str().as_bytes())
            .map_err(|_| refuse("its path contains a NUL character"))?;
        let core = self.library.core()?;
        let model = core.read(&path).map_err(words)?;
        let how = Compilation {
            streams: self.plan.streams(),
            threads: self.plan.threads(),
            precision: match self.precision {
                Precision::Fp32 => "f32",
                Precision::Bf16 => "bf16",
            },
        };
        core.compile(&model, how).map(Arc::new).map_err(words)
    }
}

/// Fills in what the file does not declare and OpenVINO inferred, and checks that both speak of the same ports.
fn completed(declared: Description, compiled: &Compiled) -> Result<Description, EngineError> {
    let words = |failure: Failure| failed(failure.words);
    let (inputs, outputs) = (
        compiled.inputs().map_err(words)?,
        compiled.outputs().map_err(words)?,
    );
    let same = |(port, found): (&Port, &handles::Port)| {
        found.name.as_deref().is_none_or(|name| name == port.name)
    };
    let named = declared.inputs.iter().zip(&inputs).all(same);
    let counts = declared.inputs.len() == inputs.len() && declared.outputs.len() == outputs.len();
    if !named || !counts {
        return Err(refuse(
            "its inputs or outputs are not those that the file declares",
        ));
    }
    let fill = |ports: Vec<Port>, found: Vec<handles::Port>| {
        ports.into_iter().zip(found).map(filled).collect()
    };
    Ok(Description {
        inputs: fill(declared.inputs, inputs),
        outputs: fill(declared.outputs, outputs),
    })
}

fn filled((mut port, found): (Port, handles::Port)) -> Port {
    if port.kind == PortKind::Undeclared {
        port.kind = data_type(found.element).map_or(port.kind, PortKind::Tensor);
    }
    if port.shape.is_none() {
        port.shape = found.shape;
    }
    port
}

fn check_carried(specs: &[TensorSpec], role: &str) -> Result<(), EngineError> {
    for spec in specs {
        if element_type(spec.dtype).is_none() {
            return Err(refuse(format!(
                "{role} `{}` is {}, which OpenVINO does not compute exactly",
                spec.name, spec.dtype
            )));
        }
    }
    Ok(())
}

/// The library's number of a type that it carries exactly.
fn element_type(dtype: DataType) -> Option<u32> {
    Some(match dtype {
        DataType::Bool => element::BOOLEAN,
        DataType::Uint8 => element::U8,
        DataType::Int8 => element::I8,
        DataType::Int32 => element::I32,
        DataType::Int64 => element::I64,
        DataType::Fp16 => element::F16,
        DataType::Fp32 => element::F32,
        DataType::Uint16
        | DataType::Uint32
        | DataType::Uint64
        | DataType::Int16
        | DataType::Fp64
        | DataType::Bf16
        | DataType::Bytes => return None,
    })
}

fn data_type(number: u32) -> Option<DataType> {
    let carried = [
        DataType::Bool,
        DataType::Uint8,
        DataType::Int8,
        DataType::Int32,
        DataType::Int64,
        DataType::Fp16,
        DataType::Fp32,
    ];
    carried
        .into_iter()
        .find(|dtype| element_type(*dtype) == Some(number))
}

/// A model of which the first compilation exists.
#[derive(Debug)]
struct OpenVinoModel {
    recipe: Recipe,
    inputs: Arc<[TensorSpec]>,
    outputs: Arc<[TensorSpec]>,
    lanes: Lanes<Compiled>,
    memory_bytes: u64,
}

impl Loaded for OpenVinoModel {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn lane(&self) -> Result<Box<dyn Lane>, EngineError> {
        let compiled = self.lanes.next(|| self.recipe.compile())?;
        let request = compiled
            .request()
            .map_err(|failure| failed(failure.words))?;
        Ok(Box::new(OpenVinoLane {
            request: Arc::new(request),
            inputs: Arc::clone(&self.inputs),
            outputs: Arc::clone(&self.outputs),
            _compiled: compiled,
        }))
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

#[derive(Debug)]
struct OpenVinoLane {
    request: Arc<Request>,
    inputs: Arc<[TensorSpec]>,
    outputs: Arc<[TensorSpec]>,
    _compiled: Arc<Compiled>,
}

impl Lane for OpenVinoLane {
    fn run(&mut self, call: &Run<'_>) -> Result<Vec<Tensor>, EngineError> {
        let Run {
            inputs,
            wanted,
            stop,
        } = *call;
        if inputs.len() != self.inputs.len() {
            return Err(crate::input_count(self.inputs.len(), inputs.len()));
        }
        for (index, tensor) in inputs.iter().enumerate() {
            let borrowed = self.borrow(tensor)?;
            self.request
                .set_input(index, &borrowed)
                .map_err(|failure| wrong(tensor, &failure))?;
        }
        let request = Arc::clone(&self.request);
        let ending = Ending::new(move || request.cancel());
        let told = ending.clone();
        let guard = stop.on_set(move || told.end());
        if stop.is_set() {
            ending.over();
            return Err(EngineError::Stopped);
        }
        let result = self.request.infer();
        ending.over();
        drop(guard);
        match result {
            Ok(()) => {}
            Err(failure) if failure.status == CANCELLED || stop.is_set() => {
                return Err(EngineError::Stopped);
            }
            // Nothing tells apart what the caller and what the model did wrong; a shape is the caller's.
            Err(failure) => return Err(failed(reason::public(&failure.words))),
        }
        wanted.iter().map(|index| self.output(*index)).collect()
    }
}

impl OpenVinoLane {
    fn borrow<'a>(&self, tensor: &'a Tensor) -> Result<Borrowed<'a>, EngineError> {
        let element = element_type(tensor.dtype).ok_or_else(|| {
            failed(format!(
                "input `{}` is {}, which was refused at load",
                tensor.name, tensor.dtype
            ))
        })?;
        match tensor.dtype {
            DataType::Bool => {
                crate::bools(tensor)?;
            }
            DataType::Int64 => crate::narrow(tensor, NAME)?,
            DataType::Fp32 => {
                crate::elements::<f32>(tensor)?;
            }
            DataType::Int32 => {
                crate::elements::<i32>(tensor)?;
            }
            DataType::Fp16 => {
                crate::elements::<half::f16>(tensor)?;
            }
            _ => {}
        }
        Borrowed::new(&self.request, (element, &tensor.shape), &tensor.data)
            .map_err(|failure| wrong(tensor, &failure))
    }

    fn output(&self, index: usize) -> Result<Tensor, EngineError> {
        let spec = &self.outputs[index];
        let output = self
            .request
            .output(index)
            .map_err(|failure| failed(format!("output `{}`: {}", spec.name, failure.words)))?;
        if data_type(output.element) != Some(spec.dtype) {
            return Err(failed(format!(
                "output `{}` came back as another type than {}",
                spec.name, spec.dtype
            )));
        }
        let data = Bytes::from(output.bytes);
        Tensor::new(&spec.name, spec.dtype, output.shape, data)
            .map_err(|error| failed(error.to_string()))
    }
}

fn wrong(tensor: &Tensor, failure: &Failure) -> EngineError {
    EngineError::Input(format!(
        "input `{}`: {}",
        tensor.name,
        reason::public(&failure.words)
    ))
}

fn refuse(reason: impl Into<String>) -> EngineError {
    EngineError::unsupported(NAME, reason)
}

fn failed(reason: impl Into<String>) -> EngineError {
    EngineError::failed(NAME, reason)
}
