use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use protocol::resource::UpstreamKind;
use telemetry::metrics::{EncodeLabelSet, Family, Histogram, Registry};

/// What a generative model is asked to do, in OpenTelemetry's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Task {
    Chat,
    TextCompletion,
    Embeddings,
}

impl Task {
    const COUNT: usize = Self::Embeddings as usize + 1;

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::TextCompletion => "text_completion",
            Self::Embeddings => "embeddings",
        }
    }
}

/// Who answers, in OpenTelemetry's words where it has one: what is asked as OpenAI's API counts as that.
pub(crate) fn provider(kind: UpstreamKind) -> &'static str {
    PROVIDERS[index(kind)]
}

/// By [`index`].
const PROVIDERS: [&str; 6] = ["openai", "vllm", "sglang", "anthropic", "triton", "kapok"];

fn index(kind: UpstreamKind) -> usize {
    match kind {
        UpstreamKind::OpenAi => 0,
        UpstreamKind::Vllm => 1,
        UpstreamKind::Sglang => 2,
        UpstreamKind::Anthropic => 3,
        UpstreamKind::Triton => 4,
        UpstreamKind::Kapok => 5,
    }
}

/// Models that have series of their own. Clients choose the names, so there is a bound: whatever comes after counts as
/// [`OTHER`], and so do names that nobody has answered for.
const MODELS_MAX: usize = 256;
const OTHER: &str = "_OTHER";

/// The metrics that OpenTelemetry's conventions have for generative AI, with their buckets
/// (<https://github.com/open-telemetry/semantic-conventions-genai>, `docs/gen-ai/gen-ai-metrics.md`).
#[derive(Debug)]
pub(crate) struct GenAiMetrics {
    client: Family<Outcome, Histogram, fn() -> Histogram>,
    server: Family<Outcome, Histogram, fn() -> Histogram>,
    first_token: Family<Labels, Histogram, fn() -> Histogram>,
    per_token: Family<Labels, Histogram, fn() -> Histogram>,
    tokens: Family<Tokens, Histogram, fn() -> Histogram>,
    /// Read by every request, written when a model is first answered for.
    models: ArcSwap<HashMap<Arc<str>, Arc<Model>>>,
    other: Arc<Model>,
}

/// One model's handles, each made when first needed.
#[derive(Debug)]
struct Model {
    name: Arc<str>,
    series: [[OnceLock<Box<Series>>; PROVIDERS.len()]; Task::COUNT],
}

#[derive(Debug)]
struct Series {
    labels: Labels,
    /// Of what went well.
    client: OnceLock<Histogram>,
    server: OnceLock<Histogram>,
    first_token: OnceLock<Histogram>,
    per_token: OnceLock<Histogram>,
    /// Input, output.
    tokens: [OnceLock<Histogram>; 2],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    gen_ai_operation_name: &'static str,
    gen_ai_provider_name: &'static str,
    gen_ai_request_model: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    #[prometheus(flatten)]
    labels: Labels,
    error_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tokens {
    #[prometheus(flatten)]
    labels: Labels,
    gen_ai_token_type: &'static str,
}

/// Who was asked for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) task: Task,
    pub(crate) kind: UpstreamKind,
    pub(crate) model: &'a str,
    /// Empty if all went well.
    pub(crate) error_type: &'static str,
    pub(crate) seconds: f64,
}

/// What a good answer told. None is what nobody knows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told {
    pub(crate) first_token: Option<f64>,
    pub(crate) per_token: Option<f64>,
    /// Input, output.
    pub(crate) tokens: Option<[u64; 2]>,
}

impl GenAiMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        let metrics = Self {
            client: Family::new_with_constructor(seconds),
            server: Family::new_with_constructor(seconds),
            first_token: Family::new_with_constructor(first_token_seconds),
            per_token: Family::new_with_constructor(per_token_seconds),
            tokens: Family::new_with_constructor(tokens),
            models: ArcSwap::default(),
            other: Arc::new(Model::new(OTHER)),
        };
        registry.register(
            "gen_ai_client_operation_duration_seconds",
            "Duration of one attempt to have an upstream answer (`gen_ai.client.operation.duration`)",
            metrics.client.clone(),
        );
        registry.register(
            "gen_ai_server_request_duration_seconds",
            "From a request's head to the end of its answer (`gen_ai.server.request.duration`)",
            metrics.server.clone(),
        );
        registry.register(
            "gen_ai_server_time_to_first_token_seconds",
            "From a request's head to the first part of a streamed answer (`gen_ai.server.time_to_first_token`)",
            metrics.first_token.clone(),
        );
        registry.register(
            "gen_ai_server_time_per_output_token_seconds",
            "Time between two tokens of a streamed answer (`gen_ai.server.time_per_output_token`)",
            metrics.per_token.clone(),
        );
        registry.register(
            "gen_ai_client_token_usage",
            "Tokens of a request and of its answer, as its upstream tells them (`gen_ai.client.token.usage`)",
            metrics.tokens.clone(),
        );
        metrics
    }

    /// An upstream was asked.
    pub(crate) fn asked(&self, call: Call<'_>) {
        self.with(call, |series| {
            if call.error_type.is_empty() {
                let good = || self.client.get_or_create_owned(&series.outcome(""));
                series.client.get_or_init(good).observe(call.seconds);
            } else {
                let failed = series.outcome(call.error_type);
                self.client
                    .get_or_create_owned(&failed)
                    .observe(call.seconds);
            }
        });
    }

    /// A request was answered, or was not.
    pub(crate) fn served(&self, call: Call<'_>, told: Told) {
        self.with(call, |series| {
            if !call.error_type.is_empty() {
                let failed = series.outcome(call.error_type);
                self.server
                    .get_or_create_owned(&failed)
                    .observe(call.seconds);
                return;
            }
            let good = || self.server.get_or_create_owned(&series.outcome(""));
            series.server.get_or_init(good).observe(call.seconds);
            if let Some(seconds) = told.first_token {
                let new = || self.first_token.get_or_create_owned(&series.labels);
                series.first_token.get_or_init(new).observe(seconds);
            }
            if let Some(seconds) = told.per_token {
                let new = || self.per_token.get_or_create_owned(&series.labels);
                series.per_token.get_or_init(new).observe(seconds);
            }
            let counts = told.tokens.into_iter().flatten().zip(&series.tokens);
            for ((count, handle), kind) in counts.zip(["input", "output"]) {
                let new = || self.tokens.get_or_create_owned(&series.tokens(kind));
                handle.get_or_init(new).observe(count as f64);
            }
        });
    }

    /// The handles of a call's series.
    fn with(&self, call: Call<'_>, record: impl FnOnce(&Series)) {
        let models = self.models.load();
        if let Some(known) = models.get(call.model) {
            return record(known.series(call));
        }
        let room = models.len() < MODELS_MAX;
        drop(models);
        if !room || !call.error_type.is_empty() || call.model.is_empty() {
            return record(self.other.series(call));
        }
        let new = Arc::new(Model::new(call.model));
        self.models.rcu(|models| {
            let mut models = HashMap::clone(models);
            models
                .entry(Arc::clone(&new.name))
                .or_insert_with(|| Arc::clone(&new));
            models
        });
        // Somebody else may have been quicker.
        let models = self.models.load();
        record(models.get(call.model).unwrap_or(&new).series(call));
    }
}

impl Model {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            series: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())),
        }
    }

    fn series(&self, call: Call<'_>) -> &Series {
        let provider = index(call.kind);
        self.series[call.task as usize][provider].get_or_init(|| {
            Box::new(Series {
                labels: Labels {
                    gen_ai_operation_name: call.task.name(),
                    gen_ai_provider_name: PROVIDERS[provider],
                    gen_ai_request_model: Arc::clone(&self.name),
                },
                client: OnceLock::new(),
                server: OnceLock::new(),
                first_token: OnceLock::new(),
                per_token: OnceLock::new(),
                tokens: [OnceLock::new(), OnceLock::new()],
            })
        })
    }
}

impl Series {
    fn outcome(&self, error_type: &'static str) -> Outcome {
        Outcome {
            labels: self.labels.clone(),
            error_type,
        }
    }

    fn tokens(&self, kind: &'static str) -> Tokens {
        Tokens {
            labels: self.labels.clone(),
            gen_ai_token_type: kind,
        }
    }
}

/// 10 ms to 82 s, each twice the one before.
fn seconds() -> Histogram {
    Histogram::new((0..14).map(|step| 0.01 * f64::from(1_u32 << step)))
}

fn first_token_seconds() -> Histogram {
    Histogram::new([
        0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    ])
}

fn per_token_seconds() -> Histogram {
    Histogram::new([
        0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
    ])
}

/// 1 to 67,108,864, each four times the one before.
fn tokens() -> Histogram {
    Histogram::new((0..14).map(|step| f64::from(1_u32 << (2 * step))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call<'a>(model: &'a str, error_type: &'static str) -> Call<'a> {
        Call {
            task: Task::Chat,
            kind: UpstreamKind::Vllm,
            model,
            error_type,
            seconds: 0.03,
        }
    }

    #[test]
    fn a_request_is_counted_under_the_standard_names_and_buckets() {
        let registry = Registry::new();
        let metrics = GenAiMetrics::register(&registry);
        let told = Told {
            first_token: Some(0.02),
            per_token: Some(0.03),
            tokens: Some([20, 70]),
        };
        metrics.served(call("m", ""), told);
        metrics.served(call("m", "503"), told);
        metrics.asked(call("m", ""));
        let page = registry.encode();
        let of =
            r#"gen_ai_operation_name="chat",gen_ai_provider_name="vllm",gen_ai_request_model="m""#;
        for line in [
            format!("gen_ai_client_operation_duration_seconds_count{{{of},error_type=\"\"}} 1"),
            format!(
                "gen_ai_server_request_duration_seconds_bucket{{le=\"0.02\",{of},error_type=\"\"}} 0"
            ),
            format!(
                "gen_ai_server_request_duration_seconds_bucket{{le=\"0.04\",{of},error_type=\"\"}} 1"
            ),
            format!(
                "gen_ai_server_request_duration_seconds_bucket{{le=\"81.92\",{of},error_type=\"\"}} 1"
            ),
            format!("gen_ai_server_request_duration_seconds_count{{{of},error_type=\"503\"}} 1"),
            format!("gen_ai_server_time_to_first_token_seconds_bucket{{le=\"0.02\",{of}}} 1"),
            format!("gen_ai_server_time_per_output_token_seconds_count{{{of}}} 1"),
            format!("gen_ai_client_token_usage_sum{{{of},gen_ai_token_type=\"input\"}} 20.0"),
            format!(
                "gen_ai_client_token_usage_bucket{{le=\"64.0\",{of},gen_ai_token_type=\"output\"}} 0"
            ),
            format!(
                "gen_ai_client_token_usage_bucket{{le=\"256.0\",{of},gen_ai_token_type=\"output\"}} 1"
            ),
            format!(
                "gen_ai_client_token_usage_bucket{{le=\"67108864.0\",{of},gen_ai_token_type=\"output\"}} 1"
            ),
        ] {
            assert!(
                page.lines().any(|have| have == line),
                "{line} is missing in:\n{page}"
            );
        }
    }

    #[test]
    fn clients_cannot_make_series_without_end() {
        let registry = Registry::new();
        let metrics = GenAiMetrics::register(&registry);
        for number in 0..MODELS_MAX {
            metrics.served(call(&format!("unknown-{number}"), "404"), Told::default());
        }
        metrics.served(call("good", ""), Told::default());
        for number in 0..2 * MODELS_MAX {
            metrics.served(call(&format!("m-{number}"), ""), Told::default());
        }
        let page = registry.encode();
        let series = |part: &str| {
            let counts = page
                .lines()
                .filter(|line| line.contains("duration_seconds_count"));
            counts.filter(|line| line.contains(part)).count()
        };
        assert_eq!(series("unknown-"), 0, "nobody has answered for those");
        assert_eq!(series("\"good\""), 1);
        assert_eq!(series("\"m-"), MODELS_MAX - 1);
        assert_eq!(
            series("\"_OTHER\""),
            2,
            "the failures, and what came too late"
        );
    }
}
