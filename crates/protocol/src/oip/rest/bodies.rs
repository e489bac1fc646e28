//! The small answers: health, metadata, index, statistics.

use serde::Serialize;
use serde_json::{Value, json};

use crate::model::{IndexEntry, ModelMetadata};
use crate::oip::proto::{
    InferBatchStatistics, InferResponseStatistics, InferStatistics, ModelStatistics,
    StatisticDuration,
};

/// Triton's names for what this build answers, and nothing beyond it.
pub const EXTENSIONS: [&str; 12] = [
    "classification",
    "sequence",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
];

fn body<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("names and numbers always serialise")
}

/// `GET /v2`
pub fn server_metadata(version: &str) -> Vec<u8> {
    body(&json!({"name": "kapok", "version": version, "extensions": EXTENSIONS}))
}

/// `GET /v2/health/live`. Triton answers without a body; KServe's client reads this one.
pub fn live(live: bool) -> Vec<u8> {
    body(&json!({ "live": live }))
}

/// `GET /v2/health/ready`
pub fn ready(ready: bool) -> Vec<u8> {
    body(&json!({ "ready": ready }))
}

/// `GET /v2/models/{name}/ready`
pub fn model_ready(name: &str, ready: bool) -> Vec<u8> {
    body(&json!({"name": name, "ready": ready}))
}

/// `GET /v2/models/{name}`
pub fn metadata(metadata: &ModelMetadata) -> Vec<u8> {
    body(metadata)
}

/// `POST /v2/repository/index`
pub fn index(entries: &[IndexEntry]) -> Vec<u8> {
    body(entries)
}

/// `GET /v2/models/{name}/stats`, with plain numbers where Protobuf's JSON would have strings: perf_analyzer reads numbers.
pub fn statistics(models: &[ModelStatistics]) -> Vec<u8> {
    let models: Vec<_> = models.iter().map(model_statistics).collect();
    body(&json!({ "model_stats": models }))
}

fn model_statistics(model: &ModelStatistics) -> Value {
    let responses: serde_json::Map<String, Value> = model
        .response_stats
        .iter()
        .map(|(index, statistics)| (index.clone(), response_statistics(statistics)))
        .collect();
    let memory: Vec<_> = model
        .memory_usage
        .iter()
        .map(
            |memory| json!({"type": memory.r#type, "id": memory.id, "byte_size": memory.byte_size}),
        )
        .collect();
    json!({
        "name": model.name,
        "version": model.version,
        "last_inference": model.last_inference,
        "inference_count": model.inference_count,
        "execution_count": model.execution_count,
        "inference_stats": inference_statistics(&model.inference_stats.unwrap_or_default()),
        "response_stats": responses,
        "batch_stats": model.batch_stats.iter().map(batch_statistics).collect::<Vec<_>>(),
        "memory_usage": memory,
    })
}

fn inference_statistics(statistics: &InferStatistics) -> Value {
    json!({
        "success": duration(statistics.success),
        "fail": duration(statistics.fail),
        "queue": duration(statistics.queue),
        "compute_input": duration(statistics.compute_input),
        "compute_infer": duration(statistics.compute_infer),
        "compute_output": duration(statistics.compute_output),
        "cache_hit": duration(statistics.cache_hit),
        "cache_miss": duration(statistics.cache_miss),
    })
}

fn response_statistics(statistics: &InferResponseStatistics) -> Value {
    json!({
        "compute_infer": duration(statistics.compute_infer),
        "compute_output": duration(statistics.compute_output),
        "success": duration(statistics.success),
        "fail": duration(statistics.fail),
        "empty_response": duration(statistics.empty_response),
        "cancel": duration(statistics.cancel),
    })
}

fn batch_statistics(statistics: &InferBatchStatistics) -> Value {
    json!({
        "batch_size": statistics.batch_size,
        "compute_input": duration(statistics.compute_input),
        "compute_infer": duration(statistics.compute_infer),
        "compute_output": duration(statistics.compute_output),
    })
}

fn duration(duration: Option<StatisticDuration>) -> Value {
    let StatisticDuration { count, ns } = duration.unwrap_or_default();
    json!({"count": count, "ns": ns})
}
