//! What becomes of each of Triton's flags.

use std::path::PathBuf;

use protocol::oip::settings::LogFormat;
use serde_json::json;

use super::plan::{Plan, number};

#[derive(Debug)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) takes: Takes,
    pub(super) does: Does,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// It stands alone.
    Nothing,
    /// True when it stands alone.
    Bool,
    Value,
}

/// What it does, or why not.
#[derive(Debug, Clone, Copy)]
pub(super) enum Does {
    Act(fn(&mut Plan, &str) -> Result<(), String>),
    /// Accepted, said once, and without meaning here: the reason.
    Nothing(&'static str),
    /// Refused unless it has this value, which is what happens anyway: the reason.
    Refuse(&'static str, &'static str),
}

use Does::{Act, Nothing, Refuse};

const fn flag(name: &'static str, takes: Takes, does: Does) -> Flag {
    Flag { name, takes, does }
}

const NO_GPU: &str = "there is no pool of GPU memory";
const THREADS: &str = "threads follow the cores";
const NO_TLS: &str = "kapok does not speak TLS to clients; put a proxy in front";
const KEYS: &str = "kapok restricts calls by a `Key` in kapok.yaml";
const BACKENDS: &str = "engines are built in or named by ORT_DYLIB_PATH";
const H2: &str = "connections are watched by kapok's own limits";
const METRICS: &str = "every metric is always there";

pub(super) static FLAGS: &[Flag] = &[
    flag("id", Takes::Value, Nothing("the server's name is kapok")),
    flag(
        "exit-timeout-secs",
        Takes::Value,
        Act(|plan, value| {
            plan.set(
                "drainTimeoutMs",
                json!(number::<u64>(value)?.saturating_mul(1000)),
            )
        }),
    ),
    flag("model-repository", Takes::Value, Act(Plan::repository)),
    flag("model-store", Takes::Value, Act(Plan::repository)),
    flag(
        "exit-on-error",
        Takes::Bool,
        Act(|plan, value| {
            plan.exit_on_error = value == "true";
            Ok(())
        }),
    ),
    flag(
        "disable-auto-complete-config",
        Takes::Nothing,
        Act(|plan, value| {
            plan.completion.off = value == "true";
            Ok(())
        }),
    ),
    flag(
        "strict-model-config",
        Takes::Bool,
        Act(|plan, value| {
            plan.completion.strict = Some(value == "true");
            Ok(())
        }),
    ),
    flag(
        "strict-readiness",
        Takes::Bool,
        Act(|plan, value| plan.set("strictReadiness", json!(value == "true"))),
    ),
    flag("model-control-mode", Takes::Value, Act(Plan::control_mode)),
    flag(
        "repository-poll-secs",
        Takes::Value,
        Act(|plan, value| {
            plan.set(
                "modelPollMs",
                json!(number::<u64>(value)?.saturating_mul(1000)),
            )
        }),
    ),
    flag(
        "load-model",
        Takes::Value,
        Act(|plan, value| {
            plan.load.push(value.to_owned());
            Ok(())
        }),
    ),
    flag("model-load-thread-count", Takes::Value, Nothing(THREADS)),
    flag(
        "model-load-retry-count",
        Takes::Value,
        Nothing("a model is tried again when its files change"),
    ),
    flag(
        "model-namespacing",
        Takes::Bool,
        Refuse("false", "a name means one model in all repositories"),
    ),
    flag(
        "allow-http",
        Takes::Bool,
        Act(|plan, value| {
            plan.http.on = value == "true";
            Ok(())
        }),
    ),
    flag(
        "http-address",
        Takes::Value,
        Act(|plan, value| plan.http.address(value)),
    ),
    flag(
        "http-port",
        Takes::Value,
        Act(|plan, value| plan.http.port(value)),
    ),
    flag(
        "reuse-http-port",
        Takes::Bool,
        Refuse("false", "a port belongs to one process"),
    ),
    flag(
        "http-header-forward-pattern",
        Takes::Value,
        Nothing("no engine reads headers"),
    ),
    flag("http-thread-count", Takes::Value, Nothing(THREADS)),
    flag(
        "http-max-input-size",
        Takes::Value,
        Act(|plan, value| plan.set("bodyBytesMax", json!(number::<u64>(value)?))),
    ),
    flag("http-restricted-api", Takes::Value, Refuse("", KEYS)),
    flag(
        "allow-grpc",
        Takes::Bool,
        Act(|plan, value| {
            plan.grpc.on = value == "true";
            Ok(())
        }),
    ),
    flag(
        "grpc-address",
        Takes::Value,
        Act(|plan, value| plan.grpc.address(value)),
    ),
    flag(
        "grpc-port",
        Takes::Value,
        Act(|plan, value| plan.grpc.port(value)),
    ),
    flag(
        "reuse-grpc-port",
        Takes::Bool,
        Refuse("false", "a port belongs to one process"),
    ),
    flag(
        "grpc-header-forward-pattern",
        Takes::Value,
        Nothing("no engine reads headers"),
    ),
    flag(
        "grpc-infer-allocation-pool-size",
        Takes::Value,
        Nothing("requests are not pooled"),
    ),
    flag("grpc-infer-thread-count", Takes::Value, Nothing(THREADS)),
    flag("grpc-use-ssl", Takes::Bool, Refuse("false", NO_TLS)),
    flag("grpc-use-ssl-mutual", Takes::Bool, Refuse("false", NO_TLS)),
    flag("grpc-server-cert", Takes::Value, Refuse("", NO_TLS)),
    flag("grpc-server-key", Takes::Value, Refuse("", NO_TLS)),
    flag("grpc-root-cert", Takes::Value, Refuse("", NO_TLS)),
    flag(
        "grpc-infer-response-compression-level",
        Takes::Value,
        Nothing("an answer is packed as its request was"),
    ),
    flag("grpc-keepalive-time", Takes::Value, Nothing(H2)),
    flag("grpc-keepalive-timeout", Takes::Value, Nothing(H2)),
    flag(
        "grpc-keepalive-permit-without-calls",
        Takes::Bool,
        Nothing(H2),
    ),
    flag(
        "grpc-http2-max-pings-without-data",
        Takes::Value,
        Nothing(H2),
    ),
    flag(
        "grpc-http2-min-recv-ping-interval-without-data",
        Takes::Value,
        Nothing(H2),
    ),
    flag("grpc-http2-max-ping-strikes", Takes::Value, Nothing(H2)),
    flag("grpc-max-connection-age", Takes::Value, Nothing(H2)),
    flag("grpc-max-connection-age-grace", Takes::Value, Nothing(H2)),
    flag("grpc-restricted-protocol", Takes::Value, Refuse("", KEYS)),
    flag(
        "log-verbose",
        Takes::Value,
        Act(|plan, value| {
            // Triton's own scripts write both 1 and true.
            let level = if value == "true" {
                Ok(1)
            } else {
                number(value)
            };
            plan.log.settings.verbose_level = level?;
            Ok(())
        }),
    ),
    flag(
        "log-info",
        Takes::Bool,
        Act(|plan, value| {
            plan.log.settings.info = value == "true";
            Ok(())
        }),
    ),
    flag(
        "log-warning",
        Takes::Bool,
        Act(|plan, value| {
            plan.log.settings.warning = value == "true";
            Ok(())
        }),
    ),
    flag(
        "log-error",
        Takes::Bool,
        Act(|plan, value| {
            plan.log.settings.error = value == "true";
            Ok(())
        }),
    ),
    flag(
        "log-format",
        Takes::Value,
        Act(|plan, value| {
            plan.log.settings.format = LogFormat::of(value)
                .ok_or_else(|| format!("it is `default` or `ISO8601`, not `{value}`"))?;
            Ok(())
        }),
    ),
    flag(
        "log-file",
        Takes::Value,
        Act(|plan, value| {
            plan.log.file = (!value.is_empty()).then(|| PathBuf::from(value));
            Ok(())
        }),
    ),
    flag(
        "allow-sagemaker",
        Takes::Bool,
        Refuse("false", "this door does not exist here"),
    ),
    flag(
        "sagemaker-port",
        Takes::Value,
        Nothing("this door does not exist here"),
    ),
    flag(
        "sagemaker-safe-port-range",
        Takes::Value,
        Nothing("this door does not exist here"),
    ),
    flag(
        "sagemaker-thread-count",
        Takes::Value,
        Nothing("this door does not exist here"),
    ),
    flag(
        "allow-vertex-ai",
        Takes::Bool,
        Refuse("false", "this door does not exist here"),
    ),
    flag(
        "vertex-ai-port",
        Takes::Value,
        Nothing("this door does not exist here"),
    ),
    flag(
        "vertex-ai-thread-count",
        Takes::Value,
        Nothing("this door does not exist here"),
    ),
    flag(
        "vertex-ai-default-model",
        Takes::Value,
        Nothing("this door does not exist here"),
    ),
    flag(
        "allow-metrics",
        Takes::Bool,
        Act(|plan, value| {
            plan.metrics.on = value == "true";
            Ok(())
        }),
    ),
    flag("allow-gpu-metrics", Takes::Bool, Nothing(METRICS)),
    flag("allow-cpu-metrics", Takes::Bool, Nothing(METRICS)),
    flag(
        "metrics-address",
        Takes::Value,
        Act(|plan, value| plan.metrics.address(value)),
    ),
    flag(
        "metrics-port",
        Takes::Value,
        Act(|plan, value| plan.metrics.port(value)),
    ),
    flag(
        "metrics-interval-ms",
        Takes::Value,
        Nothing("figures are read when they are asked for"),
    ),
    flag("metrics-config", Takes::Value, Nothing(METRICS)),
    flag(
        "trace-file",
        Takes::Value,
        Act(|plan, value| plan.set("trace.file", json!(value))),
    ),
    flag("trace-level", Takes::Value, Act(Plan::trace_level)),
    flag(
        "trace-rate",
        Takes::Value,
        Act(|plan, value| plan.set("trace.rate", json!(number::<u32>(value)?))),
    ),
    flag(
        "trace-count",
        Takes::Value,
        Act(|plan, value| plan.set("trace.count", json!(number::<i32>(value)?))),
    ),
    flag(
        "trace-log-frequency",
        Takes::Value,
        Act(|plan, value| plan.set("trace.logFrequency", json!(number::<u32>(value)?))),
    ),
    flag("trace-config", Takes::Value, Act(Plan::trace_config)),
    flag("backend-directory", Takes::Value, Nothing(BACKENDS)),
    flag("backend-config", Takes::Value, Act(Plan::backend_config)),
    flag(
        "repoagent-directory",
        Takes::Value,
        Nothing("there are no repository agents"),
    ),
    flag("cache-config", Takes::Value, Act(Plan::cache_config)),
    flag(
        "cache-directory",
        Takes::Value,
        Nothing("the response cache is built in"),
    ),
    flag(
        "response-cache-byte-size",
        Takes::Value,
        Act(Plan::cache_bytes),
    ),
    flag("rate-limit", Takes::Value, Act(Plan::rate_limit)),
    flag(
        "rate-limit-resource",
        Takes::Value,
        Act(Plan::rate_limit_resource),
    ),
    flag(
        "pinned-memory-pool-byte-size",
        Takes::Value,
        Nothing(NO_GPU),
    ),
    flag("cuda-memory-pool-byte-size", Takes::Value, Nothing(NO_GPU)),
    flag("cuda-virtual-address-size", Takes::Value, Nothing(NO_GPU)),
    flag(
        "min-supported-compute-capability",
        Takes::Value,
        Nothing("the engine's library decides which GPUs it uses"),
    ),
    flag("model-load-gpu-limit", Takes::Value, Nothing(NO_GPU)),
    flag(
        "buffer-manager-thread-count",
        Takes::Value,
        Nothing(THREADS),
    ),
    flag(
        "host-policy",
        Takes::Value,
        Nothing("the cores are those of the cgroup"),
    ),
    flag("enable-peer-access", Takes::Bool, Nothing(NO_GPU)),
    flag(
        "allow-client-shm",
        Takes::Bool,
        Act(|plan, value| {
            let switch = if value == "true" { "on" } else { "off" };
            plan.set("sharedMemory", json!(switch))
        }),
    ),
];

/// Every flag and what becomes of it.
pub(super) fn help() -> String {
    let mut text = String::from(
        "Serves a model repository with Triton's command line. Flags are written `--flag=value` or `--flag value`.\n\n\
         Examples:\n  kapok tritonserver --model-repository=/models\n\
         \x20 kapok tritonserver --model-store=/models --http-port=8080 --model-control-mode=explicit --load-model=*\n",
    );
    for (title, wanted) in [
        ("Acted on", 0),
        ("Accepted, without meaning here", 1),
        ("Refused, unless the value changes nothing", 2),
    ] {
        text.push_str(&format!("\n{title}:\n"));
        for flag in FLAGS {
            let (kind, reason) = match flag.does {
                Act(_) => (0, ""),
                Nothing(reason) => (1, reason),
                Refuse(_, reason) => (2, reason),
            };
            if kind == wanted {
                let line = format!("  --{:<48} {reason}", flag.name);
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
    }
    text
}
