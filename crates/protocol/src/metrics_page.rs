//! An upstream's load, read from its metrics page (Prometheus' text format). The names are each server's own and differ in
//! their prefixes, so one table serves all kinds.
//!
//! vLLM, SGLang, TensorRT-LLM and Triton as in the Gateway API Inference Extension's proposal 003, llama.cpp's from
//! its server's README, kapok's from docs/metrics.md.

/// What a page tells; none is what it does not.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LoadReport {
    /// Requests in line.
    pub queued: Option<u32>,
    /// Requests being computed.
    pub running: Option<u32>,
    /// Share of the KV cache in use; of several caches the fullest one's.
    pub kv_use: Option<f32>,
    /// Over all GPUs.
    pub gpu_free_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Waiting,
    Running,
    KvUsed,
    GpuTotalBytes,
    GpuUsedBytes,
}

/// A metric, the label that it must carry, and what it says.
const NAMES: [(&str, Option<&str>, Meaning); 19] = {
    use Meaning::{GpuTotalBytes, GpuUsedBytes, KvUsed, Running, Waiting};
    [
        ("vllm:num_requests_waiting", None, Waiting),
        ("vllm:num_requests_running", None, Running),
        ("vllm:kv_cache_usage_perc", None, KvUsed),
        // Before vLLM 0.10.
        ("vllm:gpu_cache_usage_perc", None, KvUsed),
        ("sglang:num_queue_reqs", None, Waiting),
        ("sglang:num_running_reqs", None, Running),
        ("sglang:token_usage", None, KvUsed),
        ("trtllm_num_requests_waiting", None, Waiting),
        ("trtllm_num_requests_running", None, Running),
        ("trtllm_kv_cache_utilization", None, KvUsed),
        (
            "nv_trt_llm_request_metrics",
            Some("request_type=\"waiting\""),
            Waiting,
        ),
        (
            "nv_trt_llm_request_metrics",
            Some("request_type=\"scheduled\""),
            Running,
        ),
        (
            "nv_trt_llm_kv_cache_block_metrics",
            Some("kv_cache_block_type=\"fraction\""),
            KvUsed,
        ),
        ("nv_inference_pending_request_count", None, Waiting),
        ("nv_gpu_memory_total_bytes", None, GpuTotalBytes),
        ("nv_gpu_memory_used_bytes", None, GpuUsedBytes),
        ("llamacpp:requests_deferred", None, Waiting),
        ("llamacpp:requests_processing", None, Running),
        ("kapok_runtime_queue_depth", None, Waiting),
    ]
};

/// Reads what is known by name; other lines, and lines that cannot be read, are passed over.
pub fn read_load(page: &[u8]) -> LoadReport {
    let mut found = Found::default();
    for line in page.split(|byte| *byte == b'\n') {
        if let Ok(line) = std::str::from_utf8(line) {
            found.note(line.trim());
        }
    }
    found.report()
}

#[derive(Default)]
struct Found {
    waiting: Option<f64>,
    running: Option<f64>,
    kv_used: Option<f64>,
    gpu_total: Option<f64>,
    gpu_used: Option<f64>,
}

impl Found {
    fn note(&mut self, line: &str) {
        let name_end = line.find(['{', ' ', '\t']).unwrap_or(line.len());
        let (name, rest) = line.split_at(name_end);
        let named = || NAMES.iter().filter(|(known, ..)| *known == name);
        if named().next().is_none() {
            return;
        }
        let (labels, value) = labels_and_value(rest);
        let Some(value) = value.filter(|value| value.is_finite() && *value >= 0.0) else {
            return;
        };
        for (_, wanted, meaning) in named() {
            if wanted.is_some_and(|wanted| !labels.contains(wanted)) {
                continue;
            }
            let (sum, share) = match meaning {
                Meaning::Waiting => (&mut self.waiting, false),
                Meaning::Running => (&mut self.running, false),
                Meaning::KvUsed => (&mut self.kv_used, true),
                Meaning::GpuTotalBytes => (&mut self.gpu_total, false),
                Meaning::GpuUsedBytes => (&mut self.gpu_used, false),
            };
            let before = sum.unwrap_or(0.0);
            *sum = Some(if share {
                before.max(value)
            } else {
                before + value
            });
        }
    }

    fn report(&self) -> LoadReport {
        let gpu_free = self.gpu_total.zip(self.gpu_used);
        LoadReport {
            queued: self.waiting.map(whole),
            running: self.running.map(whole),
            #[expect(clippy::cast_possible_truncation, reason = "a share from 0 to 1")]
            kv_use: self.kv_used.map(|share| share.min(1.0) as f32),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates, as it should for an absurd number"
            )]
            gpu_free_bytes: gpu_free.map(|(total, used)| (total - used) as u64),
        }
    }
}

/// Labels may hold anything in quotes, braces and spaces included.
fn labels_and_value(rest: &str) -> (&str, Option<f64>) {
    let mut quoted = false;
    let mut escaped = false;
    let mut end = 0;
    if rest.starts_with('{') {
        for (at, byte) in rest.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b'}' if !quoted => {
                    end = at + 1;
                    break;
                }
                _ => {}
            }
        }
        if end == 0 {
            return ("", None);
        }
    }
    let (labels, value) = rest.split_at(end);
    // A time may follow the value.
    let value = value.split_ascii_whitespace().next();
    (labels, value.and_then(|value| value.parse().ok()))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a conversion that saturates, which is what is wanted of an absurd number"
)]
fn whole(number: f64) -> u32 {
    number.round() as u32
}

/// For the fuzzer: no page breaks it, and no line of it changes what the lines before it said of other things.
pub fn fuzz_metrics_page(data: &[u8]) {
    let report = read_load(data);
    if let Some(share) = report.kv_use {
        assert!((0.0..=1.0).contains(&share), "a share of {share}");
    }
    let more = [data, b"\nvllm:num_requests_waiting 1\n"].concat();
    let grown = read_load(&more);
    assert_eq!(
        grown.queued,
        Some(report.queued.map_or(1, |waiting| waiting.saturating_add(1))),
        "another line changed a sum"
    );
    assert_eq!(grown.kv_use, report.kv_use);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_servers_page_is_read() {
        for (page, expected) in [
            (
                "# HELP vllm:num_requests_running Number of requests\n\
                 # TYPE vllm:num_requests_running gauge\n\
                 vllm:num_requests_running{engine=\"0\",model_name=\"a } b\"} 3.0\n\
                 vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 7.0 1700000000000\n\
                 vllm:num_requests_waiting{engine=\"1\",model_name=\"m\"} 2.0\n\
                 vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\n\
                 vllm:kv_cache_usage_perc{engine=\"1\"} 0.5\n\
                 vllm:num_requests_waiting_other 90\n",
                (Some(9), Some(3), Some(0.5), None),
            ),
            (
                "sglang:num_queue_reqs 4\r\nsglang:num_running_reqs 1\r\nsglang:token_usage 1.5\r\n",
                (Some(4), Some(1), Some(1.0), None),
            ),
            (
                "nv_gpu_memory_total_bytes{gpu_uuid=\"a\"} 16777216\n\
                 nv_gpu_memory_total_bytes{gpu_uuid=\"b\"} 16777216\n\
                 nv_gpu_memory_used_bytes{gpu_uuid=\"a\"} 4194304\n\
                 nv_gpu_memory_used_bytes{gpu_uuid=\"b\"} 0\n\
                 nv_inference_pending_request_count{model=\"m\",version=\"1\"} 5\n",
                (Some(5), None, None, Some(28 << 20)),
            ),
            (
                "nv_trt_llm_request_metrics{request_type=\"waiting\"} 2\n\
                 nv_trt_llm_request_metrics{request_type=\"scheduled\"} 6\n\
                 nv_trt_llm_request_metrics{request_type=\"max\"} 512\n\
                 nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\"} 0.125\n\
                 nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"max\"} 9000\n",
                (Some(2), Some(6), Some(0.125), None),
            ),
            (
                "llamacpp:requests_processing 1\nllamacpp:requests_deferred 0\n",
                (Some(0), Some(1), None, None),
            ),
            (
                "kapok_runtime_queue_depth{model=\"m\"} 12\n",
                (Some(12), None, None, None),
            ),
            ("", (None, None, None, None)),
            (
                "sglang:token_usage NaN\nsglang:num_queue_reqs -1\nsglang:num_running_reqs{a=\"b 4\n",
                (None, None, None, None),
            ),
        ] {
            let report = read_load(page.as_bytes());
            let found = (
                report.queued,
                report.running,
                report.kv_use,
                report.gpu_free_bytes,
            );
            assert_eq!(found, expected, "{page}");
        }
    }
}
