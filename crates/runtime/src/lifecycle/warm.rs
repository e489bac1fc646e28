//! The first calls of a model, made before anybody waits for them: every batch size it will be given, and the samples
//! that its owner asks for.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use protocol::config::data_type;
use protocol::oip::proto::model_config::SchedulingChoice;
use protocol::oip::proto::model_warmup::Input;
use protocol::oip::proto::model_warmup::input::InputDataType;
use protocol::oip::proto::{ModelConfig, ModelWarmup};
use protocol::sidecar::Sidecar;
use protocol::tensor::{element_count, encode_bytes_elements};
use protocol::{DataType, InferRequest, Tensor, TensorSpec, stays_inside};

use crate::choose::Tools;
use crate::definition::Definition;
use crate::engine::{Lane, Loaded};
use crate::request::{Fitted, Interface};
use crate::warmup::guesses;

/// Batches are run in ascending order until so much time is spent; larger ones are warmed by their first requests.
const TIME_MAX: Duration = Duration::from_secs(3);

/// The largest file of a sample.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// What a model is warmed with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Warm<'a> {
    pub(crate) tools: &'a Tools,
    pub(crate) threads: usize,
    pub(crate) definition: &'a Definition,
    pub(crate) config: &'a ModelConfig,
    pub(crate) interface: &'a Interface,
}

/// Runs all of it on one lane, for lanes share what is slow to come by. A sample that fails is an error, because its
/// owner gave it; a guess of ours that fails is not.
pub(crate) fn warm(loaded: &Arc<dyn Loaded>, warm: Warm<'_>) -> Result<(), String> {
    let samples = &warm.config.model_warmup;
    let sizes = sizes(warm.config, &warm.definition.sidecar);
    // A built-in has nothing to warm, and perhaps an artificial delay.
    let quick = loaded.inline_bytes_max() > 0;
    if samples.is_empty() && (quick || sizes.is_empty()) {
        return Ok(());
    }
    let mut lane = Some(loaded.lane().map_err(|error| error.to_string())?);
    for sample in samples {
        let failed =
            |reason: String| format!("failed to run warmup sample '{}': {reason}", sample.name);
        let fitted = request(sample, &warm).and_then(|request| {
            warm.interface
                .fit(request)
                .map_err(|error| error.to_string())
        });
        let Fitted { call, .. } = fitted.map_err(failed)?;
        for _ in 0..sample.count.max(1) {
            let inputs = call.inputs.clone();
            run(&mut lane, loaded, warm, inputs).map_err(failed)?;
        }
    }
    if !quick {
        batches(&mut lane, loaded, warm, &sizes);
    }
    Ok(())
}

/// Powers of two, the sizes that the owner prefers, those that batches may be filled up to, and the largest; nothing for
/// models that take one item at a time.
fn sizes(config: &ModelConfig, sidecar: &Sidecar) -> Vec<usize> {
    let max = usize::try_from(config.max_batch_size).unwrap_or(0);
    let preferred = match &config.scheduling_choice {
        Some(SchedulingChoice::DynamicBatching(batching)) => &batching.preferred_batch_size[..],
        // The batcher is on without it where there is a target.
        _ if sidecar.slo.target().is_some() => &[],
        _ => return Vec::new(),
    };
    let preferred = preferred.iter();
    let mut sizes: Vec<usize> = preferred
        .filter_map(|size| usize::try_from(*size).ok())
        .chain(sidecar.batch.buckets.iter().copied())
        .collect();
    sizes.extend(
        std::iter::successors(Some(1), |size| Some(size * 2)).take_while(|size| *size <= max),
    );
    sizes.push(max);
    sizes.retain(|size| (2..=max).contains(size));
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

fn batches(
    lane: &mut Option<Box<dyn Lane>>,
    loaded: &Arc<dyn Loaded>,
    warm: Warm<'_>,
    sizes: &[usize],
) {
    let specs = loaded.inputs();
    let working = guesses(specs, &warm.definition.sidecar.warmup)
        .find(|guess| run(lane, loaded, warm, guess.clone()).is_ok());
    let Some(guess) = working else { return };
    let began = warm.tools.clock.now();
    for size in sizes {
        let Some(batch) = specs
            .iter()
            .zip(&guess)
            .map(|(spec, one)| repeated(spec, one, *size))
            .collect()
        else {
            return;
        };
        let spent = warm.tools.clock.now().saturating_duration_since(began);
        if spent > TIME_MAX {
            tracing::info!(
                from = size,
                "larger batches are not warmed: it takes too long"
            );
            return;
        }
        if let Err(reason) = run(lane, loaded, warm, batch) {
            tracing::debug!(size, reason, "a batch of this size cannot be warmed");
            return;
        }
    }
}

/// One row, so many times; none when the input has no rows to repeat.
fn repeated(spec: &TensorSpec, one: &Tensor, size: usize) -> Option<Tensor> {
    let open = spec.shape.first().is_some_and(|dim| *dim < 0);
    if !open || one.shape.first() != Some(&1) {
        return None;
    }
    let mut shape = one.shape.clone();
    *shape.first_mut()? = size;
    Tensor::new(&one.name, one.dtype, shape, one.data.repeat(size).into()).ok()
}

/// On a compute thread, as every call will be.
fn run(
    lane: &mut Option<Box<dyn Lane>>,
    loaded: &Arc<dyn Loaded>,
    warm: Warm<'_>,
    inputs: Vec<Tensor>,
) -> Result<(), String> {
    let mut taken = match lane.take() {
        Some(lane) => lane,
        None => loaded.lane().map_err(|error| error.to_string())?,
    };
    let wanted: Vec<usize> = (0..loaded.outputs().len()).collect();
    let done = warm.tools.compute.run_blocking(warm.threads, move || {
        let outcome = taken.once(&inputs, &wanted);
        (taken, outcome.map(drop))
    });
    let (back, outcome) = done.map_err(|_| "the engine panicked".to_owned())?;
    *lane = Some(back);
    outcome.map_err(|error| error.to_string())
}

/// A sample as a client would send it.
fn request(sample: &ModelWarmup, warm: &Warm<'_>) -> Result<InferRequest, String> {
    let batch = usize::try_from(sample.batch_size).unwrap_or(usize::MAX);
    let mut inputs = Vec::new();
    for (name, input) in &sample.inputs {
        inputs.push(tensor(name, input, (batch, warm))?);
    }
    Ok(InferRequest {
        inputs,
        ..InferRequest::default()
    })
}

fn tensor(name: &str, input: &Input, (batch, warm): (usize, &Warm<'_>)) -> Result<Tensor, String> {
    let dtype =
        data_type(input.data_type).ok_or_else(|| format!("input '{name}' has no data type"))?;
    let dims = input.dims.iter().map(|dim| usize::try_from(*dim));
    let mut shape: Vec<usize> = dims
        .collect::<Result<_, _>>()
        .map_err(|_| format!("input '{name}': every dimension of a sample is fixed"))?;
    if warm.config.max_batch_size > 0 {
        shape.insert(0, batch.max(1));
    }
    let large = || format!("input '{name}' is too large");
    let count = element_count(&shape).ok_or_else(large)?;
    let bytes = count
        .checked_mul(dtype.size().unwrap_or(1))
        .ok_or_else(large)?;
    if bytes as u64 > FILE_BYTES_MAX {
        return Err(large());
    }
    let data = match &input.input_data_type {
        Some(InputDataType::InputDataFile(file)) => read(&warm.definition.folder, file)?,
        Some(InputDataType::RandomData(true)) if dtype != DataType::Bytes => noise(bytes, dtype),
        Some(InputDataType::ZeroData(true) | InputDataType::RandomData(true)) => match dtype {
            DataType::Bytes => encode_bytes_elements((0..count).map(|_| b"")).ok_or_else(large)?,
            _ => vec![0; bytes],
        },
        _ => {
            return Err(format!(
                "input '{name}' says neither zero_data, random_data nor input_data_file"
            ));
        }
    };
    Tensor::new(name, dtype, shape, data.into()).map_err(|error| error.to_string())
}

/// Small positive numbers of any type: valid as data, and as most indices.
fn noise(bytes: usize, dtype: DataType) -> Vec<u8> {
    let size = dtype.size().unwrap_or(1);
    let one = |index: usize| -> Vec<u8> {
        // A step that visits all of 0..256 in no visible order.
        let draw = u8::try_from(index.wrapping_mul(167) % 256).unwrap_or(0);
        let unit = f32::from(draw) / 256.0;
        match dtype {
            DataType::Fp32 => unit.to_le_bytes().to_vec(),
            DataType::Fp64 => f64::from(unit).to_le_bytes().to_vec(),
            DataType::Fp16 => half::f16::from_f32(unit).to_le_bytes().to_vec(),
            DataType::Bf16 => half::bf16::from_f32(unit).to_le_bytes().to_vec(),
            _ => {
                let mut number = vec![0; size];
                number[0] = draw % 2;
                number
            }
        }
    };
    (0..bytes / size).flat_map(one).collect()
}

/// Samples' files are in the model's `warmup` folder.
fn read(folder: &Path, file: &str) -> Result<Vec<u8>, String> {
    let inside = Path::new(file);
    if !stays_inside(inside) {
        return Err(format!(
            "the file `{file}` is outside of the model's `warmup` folder"
        ));
    }
    let path = folder.join("warmup").join(inside);
    let failed = |error: std::io::Error| format!("cannot read `warmup/{file}`: {error}");
    if fs::metadata(&path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(format!("`warmup/{file}` is larger than 1 GiB"));
    }
    fs::read(&path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_that_batches_are_likely_to_have_is_warmed() {
        let cases: [(&str, &str, &[usize]); 5] = [
            ("max_batch_size: 8 dynamic_batching { }", "", &[2, 4, 8]),
            (
                "max_batch_size: 12 dynamic_batching { preferred_batch_size: [ 6 ] }",
                "",
                &[2, 4, 6, 8, 12],
            ),
            (
                "max_batch_size: 12 dynamic_batching { }",
                "[batch]\nbuckets = [3, 10]",
                &[2, 3, 4, 8, 10, 12],
            ),
            ("max_batch_size: 4", "", &[]),
            ("max_batch_size: 4", "[slo]\np99_ms = 20", &[2, 4]),
        ];
        for (config, sidecar, expected) in cases {
            let config = protocol::config::parse("config.pbtxt", config)
                .expect("valid")
                .config;
            let sidecar = Sidecar::parse(sidecar, "kapok.toml").expect("valid");
            assert_eq!(sizes(&config, &sidecar), expected);
        }
    }
}
