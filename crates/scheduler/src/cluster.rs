//! Nodes and what is free on each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::mig::{self, GEOMETRIES};
use crate::request::{MILLI, Request};
use crate::state::{Ask, GPUS_MAX, KINDS_MAX, Kinds, State};

/// One machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Node {
    pub name: String,
    pub cpu_milli: u32,
    pub memory_mib: u32,
    pub gpus: u8,
    /// Of its GPUs; empty without one.
    pub model: String,
    /// Of each of its GPUs; 0 when that is not known.
    pub gpu_memory_mib: u32,
    pub region: String,
    pub labels: BTreeMap<String, String>,
    /// Of an hour, in millionths of the currency that all prices share.
    pub price_micros: u64,
    pub power: Power,
}

/// Watts.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Power {
    pub idle_w: u32,
    /// Of each GPU at full load, beside what the node draws when idle.
    pub gpu_w: u32,
}

/// What nodes have in common that are alike but for what is free on them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    pub model: String,
    pub gpu_memory_mib: u32,
    pub region: String,
    pub labels: BTreeMap<String, String>,
    pub price_micros: u64,
    pub power: Power,
}

/// Which GPUs of which node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    pub node: usize,
    /// Indices on the node, ascending.
    pub gpus: Vec<u8>,
    /// The first memory slice of a MIG instance.
    pub slice: Option<u8>,
}

/// Which GPU of a node, and for a MIG instance which memory slice is its first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spot {
    pub gpu: u8,
    pub slice: u8,
}

/// Of what is free on a node, what is kept from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hold {
    pub node: usize,
    pub cpu_milli: u32,
    pub memory_mib: u32,
    pub free: [u16; GPUS_MAX],
}

#[derive(Debug, Clone)]
pub struct Cluster {
    nodes: Vec<Node>,
    kinds: Vec<Kind>,
    states: Vec<State>,
    /// How often each tag is used on a node, so that releasing the last one clears it.
    tags: Vec<[u16; GPUS_MAX + 1]>,
    allocated_milli: u64,
    capacity_milli: u64,
}

impl Cluster {
    pub fn new(nodes: Vec<Node>) -> Result<Self, Error> {
        let mut kinds = Vec::new();
        let mut known = BTreeMap::new();
        let mut states = Vec::with_capacity(nodes.len());
        for node in &nodes {
            if usize::from(node.gpus) > GPUS_MAX {
                return Err(Error::TooManyGpus {
                    node: node.name.clone(),
                    gpus: node.gpus,
                });
            }
            let kind = Kind {
                model: node.model.clone(),
                gpu_memory_mib: node.gpu_memory_mib,
                region: node.region.clone(),
                labels: node.labels.clone(),
                price_micros: node.price_micros,
                power: node.power,
            };
            let next = kinds.len();
            let index = *known.entry(kind.clone()).or_insert(next);
            if index == next {
                kinds.push(kind);
            }
            states.push(idle(node, index)?);
        }
        let capacity_milli = nodes.iter().map(|node| u64::from(node.gpus) * 1_000).sum();
        Ok(Self {
            tags: vec![[0; GPUS_MAX + 1]; nodes.len()],
            nodes,
            kinds,
            states,
            allocated_milli: 0,
            capacity_milli,
        })
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    pub fn states(&self) -> &[State] {
        &self.states
    }

    /// Thousandths of GPUs in use.
    pub fn allocated_milli(&self) -> u64 {
        self.allocated_milli
    }

    /// Thousandths of GPUs there are.
    pub fn capacity_milli(&self) -> u64 {
        self.capacity_milli
    }

    /// Watts drawn by nodes that are in use; the others are taken to be suspended.
    pub fn watts(&self) -> u64 {
        let nodes = self.nodes.iter().zip(&self.states);
        let drawn = nodes.map(|(node, state)| {
            let used = u64::from(node.gpus) - state.whole() as u64;
            let awake = used > 0 || state.cpu_milli < node.cpu_milli;
            u64::from(awake) * u64::from(node.power.idle_w) + used * u64::from(node.power.gpu_w)
        });
        drawn.sum()
    }

    /// Translates a request into numbers and the kinds of nodes here that will do.
    pub fn ask(&self, request: &Request) -> Ask {
        let accepts = |kind: &Kind| {
            if let Some(profile) = &request.mig {
                let geometry = mig::geometry_of(&kind.model, kind.gpu_memory_mib);
                let shape = geometry.and_then(|at| GEOMETRIES[usize::from(at)].shape(profile));
                if shape.is_none() || request.gpus != 1 {
                    return false;
                }
            }
            let model = request.gpus == 0
                || request.models.is_empty()
                || request.models.contains(&kind.model);
            let region = request.regions.is_empty() || request.regions.contains(&kind.region);
            let labels = request
                .labels
                .iter()
                .all(|(name, value)| kind.labels.get(name) == Some(value));
            model && region && labels
        };
        Ask::new(request, Kinds::of(self.kinds.iter().map(accepts)))
    }

    /// Takes what a request needs; `spot` says where when it asks for a part of a GPU.
    pub fn place(&mut self, ask: &Ask, node: usize, spot: Spot) -> Result<Placement, Error> {
        let (after, placement) = self
            .after(ask, node, spot)
            .ok_or_else(|| Error::DoesNotFit {
                node: self.nodes[node].name.clone(),
            })?;
        self.states[node] = after;
        self.allocated_milli += u64::from(ask.total_milli());
        if let Some(count) = self.count(ask, node) {
            *count += 1;
        }
        Ok(placement)
    }

    /// What [`place`](Self::place) would take.
    pub fn would_place(&self, ask: &Ask, node: usize, spot: Spot) -> Option<Placement> {
        self.after(ask, node, spot).map(|(_, placement)| placement)
    }

    fn after(&self, ask: &Ask, node: usize, spot: Spot) -> Option<(State, Placement)> {
        let before = self.states[node];
        let gpu = usize::from(spot.gpu);
        if ask.divides() {
            let mut slots = ask.slots(&before);
            let slot = slots.find(|slot| (slot.gpu, slot.start) == (spot.gpu, spot.slice));
            let slot = slot.filter(|_| ask.fits(&before))?;
            let placement = Placement {
                node,
                gpus: vec![slot.gpu],
                slice: Some(slot.start),
            };
            return Some((ask.on_slot(&before, slot.gpu, slot.after), placement));
        }
        if !ask.fits(&before) || (ask.shares() && before.free[gpu] < ask.milli) {
            return None;
        }
        let after = if ask.shares() {
            ask.on_gpu(&before, gpu)
        } else {
            ask.on_fullest(&before)
        };
        let gpus = (0_u8..after.gpus)
            .filter(|gpu| after.free[usize::from(*gpu)] != before.free[usize::from(*gpu)])
            .collect();
        let slice = None;
        Some((after, Placement { node, gpus, slice }))
    }

    /// Takes the same again: exactly these GPUs.
    pub fn occupy(&mut self, ask: &Ask, placement: &Placement) -> Result<(), Error> {
        let node = placement.node;
        let does_not_fit = || Error::DoesNotFit {
            node: self.nodes[node].name.clone(),
        };
        let before = self.states[node];
        let mut after = before;
        let room = |free: u32, asked: u32| free.checked_sub(asked).ok_or_else(does_not_fit);
        after.cpu_milli = room(before.cpu_milli, ask.cpu_milli)?;
        after.memory_mib = room(before.memory_mib, ask.memory_mib)?;
        if ask.divides() {
            let spot = Spot {
                gpu: *placement.gpus.first().ok_or_else(does_not_fit)?,
                slice: placement.slice.ok_or_else(does_not_fit)?,
            };
            self.place(ask, node, spot)?;
            return Ok(());
        }
        for gpu in &placement.gpus {
            let free = after.free.get_mut(usize::from(*gpu));
            let free = free.ok_or_else(does_not_fit)?;
            *free = free.checked_sub(ask.milli).ok_or_else(does_not_fit)?;
        }
        if placement.gpus.len() != usize::from(ask.gpus) {
            return Err(does_not_fit());
        }
        after.tags |= ask.tag();
        self.states[node] = after;
        self.allocated_milli += u64::from(ask.total_milli());
        if let Some(count) = self.count(ask, node) {
            *count += 1;
        }
        Ok(())
    }

    /// Keeps this from being taken; what is not free any more is not kept.
    pub(crate) fn hold(&mut self, hold: &mut Hold) {
        let state = &mut self.states[hold.node];
        hold.cpu_milli = hold.cpu_milli.min(state.cpu_milli);
        hold.memory_mib = hold.memory_mib.min(state.memory_mib);
        state.cpu_milli -= hold.cpu_milli;
        state.memory_mib -= hold.memory_mib;
        for (kept, free) in hold.free.iter_mut().zip(&mut state.free) {
            *kept = (*kept).min(*free);
            *free -= *kept;
        }
    }

    /// Gives back what [`hold`](Self::hold) kept.
    pub(crate) fn unhold(&mut self, hold: &Hold) {
        let state = &mut self.states[hold.node];
        state.cpu_milli += hold.cpu_milli;
        state.memory_mib += hold.memory_mib;
        for (kept, free) in hold.free.iter().zip(&mut state.free) {
            *free += *kept;
        }
    }

    /// Gives back what [`place`](Self::place) took.
    pub fn release(&mut self, ask: &Ask, placement: &Placement) {
        let node = placement.node;
        ask.give_back(&mut self.states[node], placement);
        self.allocated_milli -= u64::from(ask.total_milli());
        let last = self.count(ask, node).is_some_and(|count| {
            *count = count.saturating_sub(1);
            *count == 0
        });
        if last {
            self.states[node].tags &= !ask.tag();
        }
    }

    fn count(&mut self, ask: &Ask, node: usize) -> Option<&mut u16> {
        let tag = ask.tag();
        self.tags[node].get_mut(tag.checked_ilog2()? as usize)
    }
}

fn idle(node: &Node, kind: usize) -> Result<State, Error> {
    let kind = u16::try_from(kind)
        .ok()
        .filter(|kind| usize::from(*kind) < KINDS_MAX)
        .ok_or(Error::TooManyKinds { max: KINDS_MAX })?;
    let mut free = [0; GPUS_MAX];
    free[..usize::from(node.gpus)].fill(MILLI);
    Ok(State {
        kind,
        gpus: node.gpus,
        geometry: mig::geometry_of(&node.model, node.gpu_memory_mib).map_or(0, |at| at + 1),
        cpu_milli: node.cpu_milli,
        memory_mib: node.memory_mib,
        free,
        divided: [0; GPUS_MAX],
        tags: 0,
    })
}
