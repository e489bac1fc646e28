//! Where each of a model's inputs comes from: the client, the server's signals about the sequence, or its states.

use std::fs;
use std::path::Path;
use std::time::Duration;

use batch::{SequenceSettings, Turn};
use protocol::config::data_type;
use protocol::oip::proto::model_config::SchedulingChoice;
use protocol::oip::proto::model_sequence_batching::control::Kind;
use protocol::oip::proto::model_sequence_batching::initial_state::StateData;
use protocol::oip::proto::model_sequence_batching::{ControlInput, State, StrategyChoice};
use protocol::oip::proto::{ModelConfig, ModelSequenceBatching};
use protocol::tensor::{element_count, encode_bytes_elements};
use protocol::{CorrelationId, DataType, Tensor, TensorSpec};

use super::rows;
use crate::engine::Loaded;
use crate::error::Error;

/// What Triton writes into every configuration that does not say.
const IDLE_DEFAULT: Duration = Duration::from_secs(1);

/// The folder of `data_file`s, in the model's.
const INITIAL_STATE_FOLDER: &str = "initial_state";

/// How a model's sequences become calls.
#[derive(Debug)]
pub(crate) struct Plan {
    model: String,
    /// One per input of the engine, in its order.
    feeds: Vec<Feed>,
    /// The states' outputs, as the engine's indices.
    state_outputs: Vec<usize>,
    batched: bool,
    /// A sequence's row is its slot, and rows between are told that they are not ready.
    fixed_rows: bool,
    /// Each request is a sequence of its own.
    iterative: bool,
    /// A request is answered any number of times in its one run.
    many: bool,
    /// The output that says of each row whether it is to run again, as the engine's index.
    reschedule: Option<usize>,
}

/// The output by which a model asks to be run again, unless its owner names another.
const RESCHEDULE: &str = "RESCHEDULE";

#[derive(Debug)]
enum Feed {
    /// Among the call's inputs.
    Client(usize),
    Signal(Signal),
    /// Among the states, and the value of a sequence that begins.
    State(usize, Tensor),
}

#[derive(Debug)]
struct Signal {
    spec: TensorSpec,
    kind: Kind,
    /// Bytes that say no, and yes.
    values: [Vec<u8>; 2],
}

/// One request in a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'a> {
    pub(super) turn: &'a Turn,
    pub(super) id: &'a CorrelationId,
    pub(super) inputs: &'a [Tensor],
    /// None at the start.
    pub(super) states: Option<&'a Vec<Tensor>>,
}

fn batching(config: &ModelConfig) -> Option<&ModelSequenceBatching> {
    match &config.scheduling_choice {
        Some(SchedulingChoice::SequenceBatching(batching)) => Some(batching),
        _ => None,
    }
}

fn decoupled(config: &ModelConfig) -> bool {
    let policy = config.model_transaction_policy.as_ref();
    policy.is_some_and(|policy| policy.decoupled)
}

/// How sequences share a model's lanes; none for a model without them.
pub(crate) fn settings(
    config: &ModelConfig,
    lanes: usize,
    waiting_max: usize,
) -> Option<SequenceSettings> {
    let batching = batching(config)?;
    let size = |size: i32| usize::try_from(size).ok().filter(|size| *size > 0);
    let rows_max = size(config.max_batch_size).unwrap_or(1);
    let idle = match batching.max_sequence_idle_microseconds {
        0 => IDLE_DEFAULT,
        micros => Duration::from_micros(micros),
    };
    let mut settings = SequenceSettings {
        lanes,
        slots: rows_max,
        rows_max,
        idle,
        delay: Duration::ZERO,
        preferred: Vec::new(),
        waiting_max,
        iterative: batching.iterative_sequence,
    };
    match &batching.strategy_choice {
        Some(StrategyChoice::Oldest(oldest)) => {
            settings.slots = size(oldest.max_candidate_sequences).unwrap_or(rows_max);
            settings.delay = Duration::from_micros(oldest.max_queue_delay_microseconds);
            let preferred = oldest.preferred_batch_size.iter().copied();
            settings.preferred = preferred.filter_map(size).collect();
            settings.preferred.sort_unstable();
        }
        Some(StrategyChoice::Direct(direct)) => {
            settings.delay = Duration::from_micros(direct.max_queue_delay_microseconds);
            settings.preferred = vec![utilised(direct.minimum_slot_utilization, rows_max)];
        }
        None => {}
    }
    if decoupled(config) && !batching.iterative_sequence {
        // An answer is one request's: nothing says which row several would be of. Where a slot is a row there is one.
        settings.rows_max = 1;
        settings.preferred.clear();
        if !matches!(batching.strategy_choice, Some(StrategyChoice::Oldest(_))) {
            settings.slots = 1;
        }
    }
    Some(settings)
}

/// As many slots as this share of them, at least one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a batch size, and the result is held within it"
)]
fn utilised(share: f32, slots: usize) -> usize {
    ((share * slots as f32).ceil() as usize).clamp(1, slots)
}

impl Plan {
    /// Pairs what the configuration says with the engine's inputs; none for a model without sequences. `clients` are the
    /// engine's indices of the inputs that requests bring, in the order of a call's.
    pub(crate) fn of(
        config: &ModelConfig,
        loaded: &dyn Loaded,
        clients: &[usize],
        (folder, reschedule): (&Path, Option<&str>),
    ) -> Result<Option<Self>, String> {
        let Some(batching) = batching(config) else {
            return Ok(None);
        };
        let iterative = batching.iterative_sequence;
        let batched = config.max_batch_size > 0;
        let mut feeds = Vec::new();
        for (index, spec) in loaded.inputs().iter().enumerate() {
            if let Some(place) = clients.iter().position(|client| *client == index) {
                feeds.push(Feed::Client(place));
                continue;
            }
            let control = batching
                .control_input
                .iter()
                .find(|input| input.name == spec.name);
            if let Some(control) = control {
                feeds.push(Feed::Signal(signal(control, spec)?));
                continue;
            }
            let mut states = batching.state.iter().enumerate();
            let Some((state, written)) = states.find(|(_, state)| state.input_name == spec.name)
            else {
                return Err(format!(
                    "the configuration lacks the model's input `{}`",
                    spec.name
                ));
            };
            feeds.push(Feed::State(state, initial(written, batched, folder)?));
        }
        let output = |state: &State| {
            let mut outputs = loaded.outputs().iter();
            let found = outputs.position(|spec| spec.name == state.output_name);
            found.ok_or_else(|| format!("the model has no state output `{}`", state.output_name))
        };
        Ok(Some(Self {
            model: config.name.clone(),
            feeds,
            state_outputs: batching
                .state
                .iter()
                .map(output)
                .collect::<Result<_, _>>()?,
            batched,
            fixed_rows: !matches!(batching.strategy_choice, Some(StrategyChoice::Oldest(_))),
            reschedule: match iterative {
                true => flag(loaded, reschedule)?,
                false => None,
            },
            iterative,
            many: decoupled(config) && !iterative,
        }))
    }

    pub(super) fn many(&self) -> bool {
        self.many
    }

    pub(super) fn iterative(&self) -> bool {
        self.iterative
    }

    pub(super) fn reschedule(&self) -> Option<usize> {
        self.reschedule
    }

    /// Names of the engine's inputs that requests do not bring.
    pub(crate) fn own_inputs(config: &ModelConfig) -> Vec<&str> {
        let Some(batching) = batching(config) else {
            return Vec::new();
        };
        let controls = batching
            .control_input
            .iter()
            .map(|input| input.name.as_str());
        let states = batching.state.iter().map(|state| state.input_name.as_str());
        controls.chain(states).collect()
    }

    pub(super) fn state_outputs(&self) -> &[usize] {
        &self.state_outputs
    }

    /// Whether this id can be told to the model.
    pub(super) fn accepts(&self, id: &CorrelationId) -> Result<(), Error> {
        for feed in &self.feeds {
            if let Feed::Signal(signal) = feed
                && signal.kind == Kind::ControlSequenceCorrid
                && told(id, signal.spec.dtype).is_none()
            {
                let message = format!(
                    "correlation ID `{id}` of model `{}` does not fit its control `{}` of type {}",
                    self.model, signal.spec.name, signal.spec.dtype
                );
                return Err(Error::request("sequence_id", message));
            }
        }
        Ok(())
    }

    /// All outputs that somebody wants, the states', and the one that asks for more.
    pub(super) fn wanted<'a>(&self, each: impl Iterator<Item = &'a [usize]>) -> Vec<usize> {
        let mut wanted: Vec<usize> = each.flatten().copied().collect();
        wanted.extend(&self.state_outputs);
        wanted.extend(self.reschedule);
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }

    fn rows(&self, members: &[usize]) -> Vec<usize> {
        if self.fixed_rows && self.batched {
            members.to_vec()
        } else {
            (0..members.len()).collect()
        }
    }

    /// The engine's inputs for requests in the order of their slots.
    pub(super) fn inputs(&self, members: &[Member<'_>]) -> Vec<Tensor> {
        let slots: Vec<usize> = members.iter().map(|member| member.turn.slot).collect();
        let places = self.rows(&slots);
        let rows = places.last().map_or(1, |last| last + 1);
        let placed = || places.iter().copied().zip(members);
        let input = |feed: &Feed| match feed {
            Feed::Client(index) => {
                let given =
                    placed().filter_map(|(row, member)| Some((row, member.inputs.get(*index)?)));
                rows::join(rows, given)
            }
            Feed::State(index, initial) => rows::join(
                rows,
                placed().map(|(row, member)| {
                    let kept = member.states.and_then(|states| states.get(*index));
                    (row, kept.unwrap_or(initial))
                }),
            ),
            Feed::Signal(signal) => self.signal(signal, rows, placed()),
        };
        self.feeds.iter().map(input).collect()
    }

    fn signal<'a>(
        &self,
        signal: &Signal,
        rows: usize,
        placed: impl Iterator<Item = (usize, &'a Member<'a>)>,
    ) -> Tensor {
        let nothing = match signal.spec.dtype {
            DataType::Bytes => vec![0; 4],
            _ => signal.values[0].clone(),
        };
        let mut elements = vec![nothing; rows];
        for (row, member) in placed {
            let yes = match signal.kind {
                Kind::ControlSequenceStart => member.turn.start,
                Kind::ControlSequenceEnd => member.turn.end,
                Kind::ControlSequenceReady => true,
                Kind::ControlSequenceCorrid => {
                    elements[row] = told(member.id, signal.spec.dtype).unwrap_or_default();
                    continue;
                }
            };
            elements[row].clone_from(&signal.values[usize::from(yes)]);
        }
        let rank = signal.spec.shape.len().max(1);
        let mut shape = vec![1; rank];
        if self.batched {
            shape[0] = rows;
        }
        Tensor {
            name: signal.spec.name.clone(),
            dtype: signal.spec.dtype,
            shape,
            data: elements.concat().into(),
        }
    }

    /// Each request's own outputs; `slots` as in [`Self::inputs`].
    pub(super) fn split(
        &self,
        outputs: &[Tensor],
        slots: &[usize],
    ) -> Result<Vec<Vec<Tensor>>, Error> {
        if !self.batched {
            return Ok(vec![outputs.to_vec()]);
        }
        let places = self.rows(slots);
        let rows = places.last().map_or(1, |last| last + 1);
        let own = |row: &usize| {
            let part = |output: &Tensor| {
                rows::row(output, *row, rows).ok_or_else(|| Error::Failed {
                    model: self.model.clone(),
                    reason: format!(
                        "output `{}` of shape {:?} has no row for each of {rows} requests",
                        output.name, output.shape
                    ),
                })
            };
            outputs.iter().map(part).collect()
        };
        places.iter().map(own).collect()
    }
}

/// The output that asks for another run. Without one, a model answers each request in one.
fn flag(loaded: &dyn Loaded, named: Option<&str>) -> Result<Option<usize>, String> {
    let name = named.unwrap_or(RESCHEDULE);
    let found = loaded.outputs().iter().position(|spec| spec.name == name);
    match found.map(|index| (index, loaded.outputs()[index].dtype)) {
        Some((index, DataType::Bool)) => Ok(Some(index)),
        Some((_, dtype)) => Err(format!(
            "output `{name}` asks for a request to be run again, and must be BOOL, one for each row; it is {dtype}"
        )),
        None if named.is_some() => Err(format!(
            "`sequence.reschedule` names `{name}`, and the model has no such output"
        )),
        None => Ok(None),
    }
}

fn signal(input: &ControlInput, spec: &TensorSpec) -> Result<Signal, String> {
    let wrong = |reason: &str| format!("control input `{}` {reason}", input.name);
    let [control] = input.control.as_slice() else {
        return Err(wrong("must have exactly one `control`"));
    };
    let kind = control.kind();
    let values = if kind == Kind::ControlSequenceCorrid {
        let zeros = vec![0; spec.dtype.size().unwrap_or(4)];
        let (expected, found) = (data_type(control.data_type), spec.dtype);
        if expected.is_some_and(|expected| expected != found) {
            return Err(wrong(&format!(
                "has another data type than the model's {found}"
            )));
        }
        [zeros.clone(), zeros]
    } else if let [no, yes] = control.int32_false_true.as_slice() {
        [no.to_le_bytes().to_vec(), yes.to_le_bytes().to_vec()]
    } else if let [no, yes] = control.fp32_false_true.as_slice() {
        [no.to_le_bytes().to_vec(), yes.to_le_bytes().to_vec()]
    } else if let [no, yes] = control.bool_false_true.as_slice() {
        [vec![u8::from(*no)], vec![u8::from(*yes)]]
    } else {
        return Err(wrong("must give two values, for false and for true"));
    };
    let size = spec.dtype.size();
    if size.is_some_and(|size| size != values[0].len()) {
        return Err(wrong(&format!(
            "has another data type than the model's {}",
            spec.dtype
        )));
    }
    Ok(Signal {
        spec: spec.clone(),
        kind,
        values,
    })
}

/// An id as one element of this type; none when it does not fit.
fn told(id: &CorrelationId, dtype: DataType) -> Option<Vec<u8>> {
    let number = || match id {
        CorrelationId::Number(number) => Some(*number),
        CorrelationId::Text(text) => text.parse().ok(),
    };
    match dtype {
        DataType::Bytes => encode_bytes_elements([id.to_string()]),
        DataType::Uint64 => Some(number()?.to_le_bytes().to_vec()),
        DataType::Int64 => Some(i64::try_from(number()?).ok()?.to_le_bytes().to_vec()),
        DataType::Uint32 => Some(u32::try_from(number()?).ok()?.to_le_bytes().to_vec()),
        DataType::Int32 => Some(i32::try_from(number()?).ok()?.to_le_bytes().to_vec()),
        _ => None,
    }
}

/// The state of a sequence that begins: as written, else zeros with 1 for each open dimension.
fn initial(state: &State, batched: bool, folder: &Path) -> Result<Tensor, String> {
    let name = &state.input_name;
    let wrong = |reason: String| format!("state `{name}`: {reason}");
    let dtype =
        data_type(state.data_type).ok_or_else(|| wrong("`data_type` is missing".to_owned()))?;
    let written = state.initial_state.first();
    let dims = written.map_or(&state.dims, |initial| &initial.dims);
    let size = |dim: &i64| usize::try_from(*dim).unwrap_or(1);
    let mut shape: Vec<usize> = dims.iter().map(size).collect();
    if batched {
        shape.insert(0, 1);
    }
    let elements = element_count(&shape).ok_or_else(|| wrong("it is too large".to_owned()))?;
    let bytes = elements.saturating_mul(dtype.size().unwrap_or(4));
    let data = match written.and_then(|initial| initial.state_data.as_ref()) {
        Some(StateData::DataFile(file)) => {
            let path = folder.join(INITIAL_STATE_FOLDER).join(file);
            let mut data = fs::read(path).map_err(|error| {
                wrong(format!(
                    "cannot read `{INITIAL_STATE_FOLDER}/{file}`: {error}"
                ))
            })?;
            if dtype != DataType::Bytes {
                if data.len() < bytes {
                    return Err(wrong(format!(
                        "initial_state setting expects {bytes} bytes, but the data provided from {file} only has {} bytes",
                        data.len()
                    )));
                }
                data.truncate(bytes);
            }
            data
        }
        Some(StateData::ZeroData(_)) | None => vec![0; bytes],
    };
    Tensor::new(name, dtype, shape, data.into()).map_err(|error| wrong(error.to_string()))
}
