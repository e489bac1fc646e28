//! Lists of nodes and of pods as CSV, in the columns of the Alibaba traces (cluster-trace-gpu-v2023).
//!
//! Nodes: `sn,cpu_milli,memory_mib,gpu,model` and if wanted `gpu_memory_mib,region,price_hour,idle_w,gpu_w`. Pods:
//! `name,cpu_milli,memory_mib,num_gpu,gpu_milli` and if wanted `gpu_spec,mig,region,creation_time,deletion_time`. Columns may
//! come in any order, others are passed over.

mod jobs;
mod table;

use std::collections::BTreeSet;

use crate::cluster::{Node, Power};
use crate::error::Error;
use crate::mig;
use crate::queue::qos::Level;
use crate::request::{MILLI, Request};
use crate::state::GPUS_MAX;
pub use jobs::jobs;
use table::{Row, Table};

/// A pod of a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Pod {
    pub name: String,
    pub request: Request,
    pub qos: Level,
    /// Seconds.
    pub created_s: Option<f64>,
    pub deleted_s: Option<f64>,
}

pub fn nodes(text: &str) -> Result<Vec<Node>, Error> {
    let table = Table::new(text, &["sn", "cpu_milli", "memory_mib", "gpu", "model"])?;
    let mut names = BTreeSet::new();
    table.rows(|row| {
        let name = row.text("sn")?;
        if !names.insert(name.to_owned()) {
            return Err(row.problem("sn", format!("`{name}` is there twice")));
        }
        let gpus = row.whole("gpu", GPUS_MAX as u64)?;
        let watts = |column| row.optional_whole(column, 1_000_000);
        let price = row.optional_number("price_hour")?.unwrap_or_default();
        if price > 1e9 {
            return Err(row.problem("price_hour", "at most 1000000000"));
        }
        Ok(Node {
            name: name.to_owned(),
            cpu_milli: row.whole("cpu_milli", u32::MAX.into())?,
            memory_mib: row.whole("memory_mib", u32::MAX.into())?,
            gpus,
            model: row.optional_text("model").to_owned(),
            gpu_memory_mib: row.optional_whole("gpu_memory_mib", u32::MAX.into())?,
            region: row.optional_text("region").to_owned(),
            labels: Default::default(),
            price_micros: micros(price),
            power: Power {
                idle_w: watts("idle_w")?,
                gpu_w: watts("gpu_w")?,
            },
        })
    })
}

pub fn pods(text: &str) -> Result<Vec<Pod>, Error> {
    let columns = ["name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli"];
    let table = Table::new(text, &columns)?;
    table.rows(|row| {
        let request = request(row)?;
        let created_s = row.optional_number("creation_time")?;
        let deleted_s = row.optional_number("deletion_time")?;
        if deleted_s.is_some_and(|deleted| created_s.is_some_and(|created| deleted < created)) {
            return Err(row.problem("deletion_time", "is before `creation_time`"));
        }
        Ok(Pod {
            name: row.text("name")?.to_owned(),
            request,
            qos: level(row)?,
            created_s,
            deleted_s,
        })
    })
}

/// A level's number, or a class of Alibaba's traces: latency-sensitive (`LS`) and best effort (`BE`) beside Kubernetes' own.
fn level(row: &Row<'_>) -> Result<Level, Error> {
    let number = match row.optional_text("qos") {
        "" => return Ok(Level::default()),
        "BE" | "BestEffort" => 1,
        "Burstable" => 2,
        "LS" => 4,
        "Guaranteed" => 5,
        _ => row.whole("qos", 5)?,
    };
    Level::try_from(number).map_err(|_| row.problem("qos", "is at least 1"))
}

fn request(row: &Row<'_>) -> Result<Request, Error> {
    let gpus: u8 = row.whole("num_gpu", GPUS_MAX as u64)?;
    let gpu_milli: u16 = row.whole("gpu_milli", MILLI.into())?;
    if gpus > 0 && gpu_milli == 0 {
        return Err(row.problem("gpu_milli", "is 0 although `num_gpu` is not"));
    }
    if gpus > 1 && gpu_milli < MILLI {
        return Err(row.problem("gpu_milli", "is less than 1000 with more than one GPU"));
    }
    let mig = Some(row.optional_text("mig")).filter(|profile| !profile.is_empty());
    if let Some(profile) = mig {
        if !mig::known().contains(&profile) {
            let known = mig::known().join(", ");
            return Err(row.problem("mig", format!("`{profile}` is not one of {known}")));
        }
        if gpus != 1 || gpu_milli != MILLI {
            return Err(row.problem("mig", "needs `num_gpu` 1 and `gpu_milli` 1000"));
        }
    }
    let mig = mig.map(str::to_owned);
    let list = |column| -> BTreeSet<String> {
        let names = row.optional_text(column).split('|');
        names
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    };
    Ok(Request {
        cpu_milli: row.whole("cpu_milli", u32::MAX.into())?,
        memory_mib: row.whole("memory_mib", u32::MAX.into())?,
        gpus,
        gpu_milli: if gpus == 0 { 0 } else { gpu_milli },
        mig,
        models: list("gpu_spec"),
        regions: list("region"),
        labels: Default::default(),
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked: neither negative nor above 10^9"
)]
fn micros(price: f64) -> u64 {
    (price * 1e6).round() as u64
}

/// Any bytes; for the fuzzer and its corpus.
pub fn fuzz(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        // All parsers must come to an end without a panic; what they say is not of interest here.
        drop(nodes(text));
        drop(pods(text));
        drop(jobs(text));
    }
}

#[cfg(test)]
mod tests;
