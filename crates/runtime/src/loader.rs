//! From a model's folder to a model that answers, on loader threads.

use std::path::Path;
use std::sync::Arc;

use batch::{SequenceSettings, Sequences};
use parking_lot::Mutex;
use protocol::TensorSpec;
use protocol::config;
use protocol::oip::proto::ModelConfig;
use protocol::oip::proto::model_config::SchedulingChoice;
use tokio::sync::Semaphore;

use crate::agents;
use crate::cache;
use crate::choose::{Choice, Chosen};
use crate::classify::Labels;
use crate::definition::Definition;
use crate::embed::TextPipeline;
use crate::engine::{Lane, LoadOptions, Loaded, Source};
use crate::ensemble;
use crate::lane::Slot;
use crate::lifecycle::{Track, Warm, calls_begin, warm};
use crate::model::{ByEngine, Model, Serving};
use crate::queue::Queue;
use crate::ragged::{self, Ragged, RaggedLane};
use crate::request::{Interface, Port, Reshape};
use crate::runtime::Inner;
use crate::sequence::{self, Plan, Sequencer};
use crate::statistics::Statistics;

#[expect(
    clippy::too_many_lines,
    reason = "a model's parts, in the order in which they need each other"
)]
pub(crate) fn build(
    inner: &Inner,
    definition: &Definition,
    (number, folder): (u64, &Path),
) -> Result<Model, String> {
    agents::look(definition.normalized(), &definition.folder)?;
    if ensemble::is_ensemble(definition) {
        return ensemble::build(inner, definition, number);
    }
    let started = inner.tools.clock.now();
    let cores = inner.tools.compute.cores();
    let source = definition.source(folder)?;
    let mut chosen = chosen(inner, definition, &source)?;
    let mut config = definition.complete(chosen.loaded.inputs(), chosen.loaded.outputs())?;
    let ragged = ragged(inner, &config, &mut chosen)?;
    let loaded = Arc::clone(&chosen.loaded);
    let interface = interface(
        &config,
        loaded.inputs(),
        loaded.outputs(),
        loaded.takes_absent(),
    )?;
    let layout = definition.layout(cores, Some((loaded.as_ref(), chosen.threads)));
    if let [group] = config.instance_group.as_mut_slice() {
        group.count = i32::try_from(layout.lanes).unwrap_or(i32::MAX);
    }
    let (name, version) = (source.model, number.to_string());
    let metrics = inner.metrics.model(&name, &version, &config);
    metrics
        .lanes
        .set(i64::try_from(layout.lanes).unwrap_or(i64::MAX));
    let mut slots = slots(&mut chosen, layout.lanes)?;
    let statistics = Statistics::new(metrics);
    let clients: Vec<usize> = interface.inputs.iter().map(|port| port.index).collect();
    let again = definition.sidecar.sequence.reschedule.as_deref();
    let plan = Plan::of(
        &config,
        loaded.as_ref(),
        &clients,
        (&definition.folder, again),
    )?;
    let settings = sequence::settings(&config, layout.lanes, inner.queue_max);
    let sequencer = plan.zip(settings).map(|planned| {
        let lanes = (std::mem::take(&mut slots), layout.threads);
        sequencer(inner, (&config, &loaded), planned, lanes, &statistics)
    });
    let sequencer = sequencer.transpose()?;
    let limit = match &sequencer {
        Some(_) => None,
        None => inner.limits.join(&config)?,
    };
    let first = Warm {
        tools: &inner.tools,
        threads: layout.threads,
        definition,
        config: &config,
        interface: &interface,
    };
    calls_begin(inner);
    warm(&loaded, first)?;
    let embeds_max = layout.lanes.saturating_add(inner.queue_max);
    let embeds_max = embeds_max.min(Semaphore::MAX_PERMITS);
    let elapsed = inner.tools.clock.now().saturating_duration_since(started);
    let engine = ByEngine {
        name: name.clone(),
        sequencer,
        before: Mutex::default(),
        text: text(definition, loaded.as_ref())?,
        queue: Queue::new(
            (&name, loaded, ragged),
            slots,
            definition.batching(&config, inner.queue_max),
            (Arc::clone(&statistics), layout.threads),
            (inner.queues.clone(), limit),
        ),
        embeds: Semaphore::new(embeds_max),
        embeds_max,
        lanes: layout.lanes,
        threads: layout.threads,
        engine: chosen.engine,
        engine_version: chosen.version,
        candidates: chosen.candidates,
    };
    Ok(Model {
        statistics,
        name,
        version,
        inputs: config::specs(&config).0,
        labels: Labels::read(&definition.folder, &config)?,
        cache: cached(inner, &config),
        config,
        interface,
        load_ms: elapsed.as_secs_f64() * 1e3,
        track: Track::new(definition.sidecar.swap),
        serving: Serving::Engine(engine),
    })
}

fn chosen(inner: &Inner, definition: &Definition, source: &Source) -> Result<Chosen, String> {
    let cores = inner.tools.compute.cores();
    let frugal = inner.residency.budget().is_some();
    let thrifty = |options: LoadOptions| LoadOptions { frugal, ..options };
    let choice = Choice {
        engines: inner.engines.of(source, definition.sidecar.engine.name()),
        source,
        sidecar: &definition.sidecar,
        options: thrifty(definition.options(cores)),
        alternative: definition.alternative(cores).map(thrifty),
        tools: &inner.tools,
    };
    let chosen = choice.make()?;
    definition.check_warmup(chosen.loaded.inputs())?;
    Ok(chosen)
}

fn sequencer(
    inner: &Inner,
    (config, loaded): (&ModelConfig, &Arc<dyn Loaded>),
    (plan, settings): (Plan, SequenceSettings),
    (lanes, threads): (Vec<Slot>, usize),
    statistics: &Arc<Statistics>,
) -> Result<Arc<Sequencer>, String> {
    let limits: Result<Vec<_>, _> = lanes.iter().map(|_| inner.limits.join(config)).collect();
    Ok(Sequencer::new(sequence::Parts {
        model: config.name.clone(),
        limits: limits?.into_iter().flatten().collect(),
        loaded: Arc::clone(loaded),
        plan,
        sequences: Sequences::new(settings),
        lanes,
        threads,
        statistics: Arc::clone(statistics),
        clock: inner.tools.clock.clone(),
        compute: inner.tools.compute.clone(),
        buffers: inner.buffers.clone(),
        tasks: inner.tasks.clone(),
    }))
}

/// The model's part of the response cache, where it is asked for and an answer depends on the request alone.
fn cached(inner: &Inner, config: &ModelConfig) -> Option<cache::Member> {
    let asked = config
        .response_cache
        .as_ref()
        .is_some_and(|cache| cache.enable);
    let policy = config.model_transaction_policy.as_ref();
    let decoupled = policy.is_some_and(|policy| policy.decoupled);
    let sequences = matches!(
        config.scheduling_choice,
        Some(SchedulingChoice::SequenceBatching(_))
    );
    let cache = inner.response_cache.as_ref()?;
    (asked && !decoupled && !sequences).then(|| cache.member())
}

fn text(definition: &Definition, loaded: &dyn Loaded) -> Result<Option<TextPipeline>, String> {
    let rows_max = definition.rows_max();
    let text = definition.sidecar.text.as_ref();
    text.map(|text| TextPipeline::load(&definition.folder, text, loaded, rows_max))
        .transpose()
}

/// Puts what batches of different shapes need before the engine.
fn ragged(
    inner: &Inner,
    config: &ModelConfig,
    chosen: &mut Chosen,
) -> Result<Option<Arc<ragged::Plan>>, String> {
    let Some(plan) = ragged::Plan::of(config, chosen.loaded.as_ref())?.map(Arc::new) else {
        return Ok(None);
    };
    let buffers = inner.buffers.clone();
    let lane = chosen.lane.take().map(|lane| RaggedLane {
        lane,
        plan: Arc::clone(&plan),
        buffers: buffers.clone(),
    });
    chosen.lane = lane.map(|lane| Box::new(lane) as Box<dyn Lane>);
    chosen.loaded = Arc::new(Ragged {
        model: Arc::clone(&chosen.loaded),
        plan: Arc::clone(&plan),
        buffers,
    });
    Ok(Some(plan))
}

fn slots(chosen: &mut Chosen, lanes: usize) -> Result<Vec<Slot>, String> {
    let first = chosen.lane.take();
    let missing = lanes - usize::from(first.is_some());
    let more = (0..missing).map(|_| chosen.loaded.lane());
    first
        .map(Ok)
        .into_iter()
        .chain(more)
        .map(|lane| lane.map(Slot::new).map_err(|error| error.to_string()))
        .collect()
}

/// A configuration cannot say "no dimensions": one of size 1 stands for it.
fn scalar(spec: &TensorSpec, engine: &[TensorSpec]) -> Option<Reshape> {
    let engine = engine.iter().find(|engine| engine.name == spec.name)?;
    let stands = engine.shape.is_empty() && spec.shape == [1];
    stands.then(|| Reshape {
        from: vec![1],
        to: Vec::new(),
    })
}

/// Pairs the configuration's tensors with the engine's by name.
pub(crate) fn interface(
    config: &ModelConfig,
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
    takes_absent: bool,
) -> Result<Interface, String> {
    let (input_specs, output_specs) = config::specs(config);
    let port = |spec: &TensorSpec, engine: &[TensorSpec], reshape| {
        let index = engine.iter().position(|engine| engine.name == spec.name)?;
        Some(Port {
            spec: spec.clone(),
            engine: engine[index].clone(),
            index,
            reshape,
            optional: false,
        })
    };
    let mut interface = Interface {
        model: config.name.clone(),
        takes_absent,
        inputs: Vec::new(),
        outputs: Vec::new(),
        batch_max: usize::try_from(config.max_batch_size)
            .ok()
            .filter(|batch| *batch > 0),
    };
    for (spec, input) in input_specs.iter().zip(&config.input) {
        let reshape = input.reshape.as_ref().map(|reshape| Reshape {
            from: input.dims.clone(),
            to: reshape.shape.clone(),
        });
        match port(spec, inputs, reshape.or_else(|| scalar(spec, inputs))) {
            Some(port) => interface.inputs.push(Port {
                optional: input.optional,
                ..port
            }),
            // An initializer of the graph, which requests cannot set.
            None if input.optional => {}
            None => return Err(format!("the model has no input `{}`", spec.name)),
        }
    }
    for (spec, output) in output_specs.iter().zip(&config.output) {
        let reshape = output.reshape.as_ref().map(|reshape| Reshape {
            from: reshape.shape.clone(),
            to: output.dims.clone(),
        });
        let reshape = reshape.or_else(|| scalar(spec, outputs).map(Reshape::reversed));
        let port = port(spec, outputs, reshape);
        interface
            .outputs
            .push(port.ok_or_else(|| format!("the model has no output `{}`", spec.name))?);
    }
    interface.inputs.sort_by_key(|port| port.index);
    let own = Plan::own_inputs(config);
    let once = interface
        .inputs
        .is_sorted_by(|one, other| one.index < other.index);
    let unnamed = inputs.iter().find(|spec| {
        let own = own.contains(&spec.name.as_str());
        let mut given = interface.inputs.iter();
        !own && given.all(|port| port.spec.name != spec.name)
    });
    if once && unnamed.is_none() {
        return Ok(interface);
    }
    Err(match unnamed {
        Some(spec) => format!("the configuration lacks the model's input `{}`", spec.name),
        None => "the configuration names an input twice".to_owned(),
    })
}
