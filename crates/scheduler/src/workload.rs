//! Which requests come, and how often: what a policy may know beforehand.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::request::Request;

/// How often each type of request occurs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(Request, u32)>", into = "Vec<(Request, u32)>")]
pub struct Workload(BTreeMap<Request, u32>);

impl Workload {
    pub fn of<'a>(requests: impl IntoIterator<Item = &'a Request>) -> Self {
        let mut counts = BTreeMap::new();
        for request in requests {
            match counts.get_mut(request) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(request.clone(), 1);
                }
            }
        }
        Self(counts)
    }

    /// One more; a type that is new is passed over when there are so many already.
    pub fn add(&mut self, request: &Request, types_max: usize) {
        if let Some(count) = self.0.get_mut(request) {
            *count = count.saturating_add(1);
        } else if self.0.len() < types_max {
            self.0.insert(request.clone(), 1);
        }
    }

    pub fn types(&self) -> impl Iterator<Item = (&Request, u32)> {
        self.0.iter().map(|(request, count)| (request, *count))
    }

    /// The most frequent types that make up this share of all requests, as in the FGD artifact: types that differ in
    /// memory alone are one (its memory is the largest), and of equally frequent ones those that ask for more come first.
    pub fn typical(&self, share: f64) -> Vec<(Request, u32)> {
        let mut counts: BTreeMap<Request, (u32, u32)> = BTreeMap::new();
        for (request, count) in &self.0 {
            let mut key = request.clone();
            key.memory_mib = 0;
            let entry = counts.entry(key).or_default();
            entry.0 += count;
            entry.1 = entry.1.max(request.memory_mib);
        }
        let mut types: Vec<_> = counts.into_iter().collect();
        types.sort_by(|(left, (left_count, _)), (right, (right_count, _))| {
            let key = |request: &Request| {
                let models: Vec<_> = request.models.iter().cloned().collect();
                let order = (request.cpu_milli, request.gpu_milli, request.gpus);
                (order, models.join("|"))
            };
            (right_count, key(right)).cmp(&(left_count, key(left)))
        });
        let total: u32 = self.0.values().sum();
        let enough = f64::from(total) * share;
        let mut sum = 0;
        let mut typical = Vec::new();
        for (mut request, (count, memory_mib)) in types {
            if f64::from(sum) >= enough {
                break;
            }
            sum += count;
            request.memory_mib = memory_mib;
            typical.push((request, count));
        }
        typical
    }
}

impl From<Vec<(Request, u32)>> for Workload {
    fn from(types: Vec<(Request, u32)>) -> Self {
        Self(types.into_iter().collect())
    }
}

impl From<Workload> for Vec<(Request, u32)> {
    fn from(workload: Workload) -> Self {
        workload.0.into_iter().collect()
    }
}
