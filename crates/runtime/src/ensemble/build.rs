use std::sync::atomic::AtomicBool;

use protocol::config::{self, ensemble};
use protocol::oip::proto::ModelConfig;
use protocol::oip::proto::model_config::SchedulingChoice;

use super::graph::Graph;
use super::{Ensemble, Gate};
use crate::classify::Labels;
use crate::definition::Definition;
use crate::lifecycle::Track;
use crate::loader;
use crate::model::{Model, Serving};
use crate::runtime::Inner;
use crate::statistics::Statistics;

pub(crate) fn is_ensemble(definition: &Definition) -> bool {
    ensemble::steps(&definition.config()).is_some()
}

/// Reads nothing but the definition: whether the members are there and fit is decided at each publication.
pub(crate) fn build(inner: &Inner, definition: &Definition, number: u64) -> Result<Model, String> {
    let started = inner.tools.clock.now();
    if definition.sidecar.text.is_some() {
        return Err("[text] is for a model with an engine, not for an ensemble".to_owned());
    }
    let config = definition.complete(&[], &[])?;
    let (engine_inputs, engine_outputs) = config::engine_specs(&config);
    let interface = loader::interface(&config, &engine_inputs, &engine_outputs, true)?;
    let graph = Graph::build(&config, &definition.sidecar.pipeline)?;
    let gates = gates(&graph, in_flight_max(&config), inner.queue_max);
    let (name, version) = (config.name.clone(), number.to_string());
    let elapsed = inner.tools.clock.now().saturating_duration_since(started);
    Ok(Model {
        cache: None,
        statistics: Statistics::new(inner.metrics.model(&name, &version, &config)),
        inputs: config::specs(&config).0,
        labels: Labels::read(&definition.folder, &config)?,
        interface,
        load_ms: elapsed.as_secs_f64() * 1e3,
        track: Track::new(definition.sidecar.swap),
        serving: Serving::Ensemble(Ensemble {
            name: name.clone(),
            graph,
            gates,
            decoupled: AtomicBool::new(false),
        }),
        name,
        version,
        config,
    })
}

/// None means no limit of the ensemble's own.
fn in_flight_max(config: &ModelConfig) -> Option<usize> {
    let Some(SchedulingChoice::EnsembleScheduling(ensemble)) = &config.scheduling_choice else {
        return None;
    };
    let said = usize::try_from(ensemble.max_inflight_requests).ok();
    said.filter(|max| *max > 0)
}

fn gates(graph: &Graph, in_flight_max: Option<usize>, queue_max: usize) -> Vec<Option<Gate>> {
    graph
        .steps
        .iter()
        .map(|step| {
            // More items at a time than the member's queue holds would be refused there.
            let items = step.fan_out.as_ref().map(|fan_out| fan_out.in_flight);
            let items = items.map(|items| items.min(queue_max.max(1)));
            let inside = [items, in_flight_max].into_iter().flatten().min()?;
            Some(Gate::new(inside, queue_max))
        })
        .collect()
}
