//! From a model's folder to a model that answers, on loader threads.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use batch::Sequences;
use parking_lot::Mutex;
use protocol::TensorSpec;
use protocol::config;
use protocol::oip::proto::ModelConfig;
use protocol::oip::proto::model_config::SchedulingChoice;
use tokio::sync::Semaphore;

use crate::cache;
use crate::choose::{Choice, Chosen};
use crate::classify::Labels;
use crate::definition::Definition;
use crate::embed::TextPipeline;
use crate::ensemble;
use crate::lane::Slot;
use crate::model::{ByEngine, Model, Serving};
use crate::queue::Queue;
use crate::repository::{Found, select};
use crate::request::{Interface, Port, Reshape};
use crate::runtime::Inner;
use crate::sequence::{self, Plan, Sequencer};
use crate::snapshot::{Snapshot, Version};
use crate::statistics::Statistics;

/// What is shown until a model's configuration has been read: its latest version is being loaded.
pub(crate) fn first_snapshot(found: &[Found]) -> Snapshot {
    let entry = |found: &Found| {
        let state = match &found.problem {
            Some(problem) => Version::Unavailable(problem.clone()),
            None => Version::Loading,
        };
        let latest = latest(found);
        (found.name.clone(), BTreeMap::from([(latest, state)]))
    };
    Snapshot {
        models: found.iter().map(entry).collect(),
    }
}

fn latest(found: &Found) -> u64 {
    found.versions.keys().copied().next_back().unwrap_or(1)
}

/// Loads every model; returns at once, and `inner.loading` tells when all is done.
///
/// As many threads as cores: reading and preparing a model is mostly one core's work.
pub(crate) fn load_all(inner: &Arc<Inner>, found: Vec<Found>) -> std::io::Result<()> {
    let found: VecDeque<Found> = found
        .into_iter()
        .filter(|found| found.problem.is_none())
        .collect();
    let threads = found.len().min(inner.tools.compute.cores());
    inner.loading.send_replace(threads);
    let found = Arc::new(Mutex::new(found));
    for index in 0..threads {
        let (inner, found) = (Arc::clone(inner), Arc::clone(&found));
        std::thread::Builder::new()
            .name(format!("loader-{index}"))
            .spawn(move || {
                // In a loop of its own: the lock must not be held while loading.
                while let Some(next) = next(&inner, &found) {
                    guarded(&inner, &next);
                }
                inner.loading.send_modify(|threads| *threads -= 1);
            })?;
    }
    Ok(())
}

fn next(inner: &Inner, found: &Mutex<VecDeque<Found>>) -> Option<Found> {
    let next = found.lock().pop_front();
    next.filter(|_| !inner.tasks.stopping())
}

/// A model that makes us panic is a model that does not load; the others still do.
fn guarded(inner: &Inner, found: &Found) {
    if catch_unwind(AssertUnwindSafe(|| load(inner, found))).is_err() {
        let reason = refused(found, latest(found), "loading panicked".to_owned());
        let failed = Version::Unavailable(reason);
        inner.publish(&found.name, BTreeMap::from([(latest(found), failed)]));
    }
}

fn load(inner: &Inner, found: &Found) {
    let wanted = Definition::read(found, None).and_then(|definition| {
        let policy = definition.config().version_policy;
        let versions = select(&found.versions, policy.as_ref())?;
        Ok((definition, versions))
    });
    let (definition, versions) = match wanted {
        Ok(wanted) => wanted,
        Err(reason) => {
            let failed = Version::Unavailable(refused(found, latest(found), reason));
            return inner.publish(&found.name, BTreeMap::from([(latest(found), failed)]));
        }
    };
    let mut states: BTreeMap<u64, Version> = versions
        .iter()
        .map(|version| (*version, Version::Loading))
        .collect();
    inner.publish(&found.name, states.clone());
    for version in versions {
        let build = || build(inner, &definition, (version, &found.versions[&version]));
        // Here, too: versions that serve already go on serving.
        let built = catch_unwind(AssertUnwindSafe(build))
            .unwrap_or_else(|_| Err("loading panicked".to_owned()));
        let state = match built {
            Ok(model) => {
                tracing::info!(
                    model = found.name,
                    version,
                    engine = model.by_engine().map(|engine| engine.engine),
                    lanes = model.by_engine().map(|engine| engine.lanes),
                    load_ms = model.load_ms,
                    "model is ready"
                );
                Version::Ready(Arc::new(model))
            }
            Err(reason) => Version::Unavailable(refused(found, version, reason)),
        };
        states.insert(version, state);
        inner.publish(&found.name, states.clone());
    }
}

/// Logs why, once, where the error stops; only the log knows the folder.
fn refused(found: &Found, version: u64, reason: String) -> String {
    tracing::error!(
        model = found.name,
        version,
        folder = %found.folder.display(),
        reason,
        "model is unavailable"
    );
    reason
}

fn build(
    inner: &Inner,
    definition: &Definition,
    (number, folder): (u64, &Path),
) -> Result<Model, String> {
    if ensemble::is_ensemble(definition) {
        return ensemble::build(inner, definition, number);
    }
    let started = inner.tools.clock.now();
    let cores = inner.tools.compute.cores();
    let source = definition.source(folder)?;
    let choice = Choice {
        engines: &inner.engines,
        source: &source,
        sidecar: &definition.sidecar,
        options: definition.options(cores),
        alternative: definition.alternative(cores),
        tools: &inner.tools,
    };
    let mut chosen = choice.make()?;
    let loaded = Arc::clone(&chosen.loaded);
    definition.check_warmup(loaded.inputs())?;
    let mut config = definition.complete(loaded.inputs(), loaded.outputs())?;
    let interface = interface(
        &config,
        loaded.inputs(),
        loaded.outputs(),
        loaded.takes_absent(),
    )?;
    let text = definition.sidecar.text.as_ref();
    let text = text
        .map(|text| {
            let rows_max = definition.rows_max();
            TextPipeline::load(&definition.folder, text, loaded.as_ref(), rows_max)
        })
        .transpose()?;
    let layout = definition.layout(cores, Some((loaded.as_ref(), chosen.threads)));
    if let [group] = config.instance_group.as_mut_slice() {
        group.count = i32::try_from(layout.lanes).unwrap_or(i32::MAX);
    }
    let (name, version) = (source.model, number.to_string());
    let metrics = inner.metrics.model(&name, &version);
    metrics
        .lanes
        .set(i64::try_from(layout.lanes).unwrap_or(i64::MAX));
    let mut slots = slots(&mut chosen, layout.lanes)?;
    let statistics = Statistics::new(metrics);
    let clients: Vec<usize> = interface.inputs.iter().map(|port| port.index).collect();
    let plan = Plan::of(&config, loaded.as_ref(), &clients, &definition.folder)?;
    let settings = sequence::settings(&config, layout.lanes, inner.queue_max);
    let sequencer = plan.zip(settings).map(|(plan, settings)| {
        Sequencer::new(sequence::Parts {
            model: name.clone(),
            loaded: Arc::clone(&loaded),
            plan,
            sequences: Sequences::new(settings),
            lanes: std::mem::take(&mut slots),
            threads: layout.threads,
            statistics: Arc::clone(&statistics),
            clock: inner.tools.clock.clone(),
            compute: inner.tools.compute.clone(),
            buffers: inner.buffers.clone(),
            tasks: inner.tasks.clone(),
        })
    });
    let embeds_max = layout
        .lanes
        .saturating_add(inner.queue_max)
        .min(Semaphore::MAX_PERMITS);
    let elapsed = inner.tools.clock.now().saturating_duration_since(started);
    let engine = ByEngine {
        name: name.clone(),
        sequencer,
        queue: Queue::new(
            (&name, loaded),
            slots,
            definition.batching(&config, inner.queue_max),
            (Arc::clone(&statistics), layout.threads),
            (inner.queues.clone(), inner.limits.join(&config)),
        ),
        text,
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
        serving: Serving::Engine(engine),
    })
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
