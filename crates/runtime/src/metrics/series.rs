//! What a configuration says of a model's series: `metric_tags` are labels, `model_metrics` sets a histogram's buckets.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use protocol::oip::proto::ModelConfig;
use protocol::oip::proto::model_metrics::metric_control::MetricOptions;
use telemetry::metrics::{Family, Histogram, MetricConstructor, Registry};

use super::Failure;

/// Keys are from closed sets or a model's `metric_tags`, values are names from the repository.
pub(super) type Labels = Vec<(Cow<'static, str>, String)>;

/// A family's name to the buckets that a model wants there.
pub(super) type Asked = BTreeMap<String, Vec<f64>>;

/// The labels of all of a model's series. A tag's name stands behind `_`, as with Triton.
pub(super) fn labels(model: &str, version: &str, config: &ModelConfig) -> Labels {
    let mut labels: Labels = vec![
        (Cow::Borrowed("model"), model.to_owned()),
        (Cow::Borrowed("version"), version.to_owned()),
    ];
    let tags: BTreeMap<_, _> = config.metric_tags.iter().collect();
    let tags = tags.into_iter();
    labels.extend(tags.map(|(name, value)| (Cow::Owned(format!("_{name}")), value.clone())));
    labels
}

pub(super) fn with_reason(labels: &Labels, failure: Failure) -> Labels {
    let mut labels = labels.clone();
    labels.push((Cow::Borrowed("reason"), failure.name().to_owned()));
    labels
}

/// The buckets that a configuration sets; of a family named twice the last counts.
pub(super) fn asked(config: &ModelConfig) -> Asked {
    let mut asked = Asked::new();
    let metrics = config.model_metrics.iter();
    for control in metrics.flat_map(|metrics| &metrics.metric_control) {
        let family = control.metric_identifier.as_ref();
        let (Some(family), Some(MetricOptions::HistogramOptions(options))) =
            (family, &control.metric_options)
        else {
            continue;
        };
        asked.insert(family.family.clone(), options.buckets.clone());
    }
    asked
}

/// What is published of one version: with these labels, for nobody else knows them once it is gone.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub(super) labels: BTreeSet<Labels>,
    pub(super) asked: Asked,
}

/// A histogram a model.
#[derive(Debug, Clone)]
pub(super) struct Histograms {
    name: &'static str,
    family: Family<Labels, Histogram, Buckets>,
    buckets: Buckets,
}

/// What the family's next histogram is made with.
#[derive(Debug, Clone)]
struct Buckets {
    usual: &'static [f64],
    asked: Arc<Mutex<Option<Vec<f64>>>>,
}

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        match self.asked.lock().as_deref() {
            Some(asked) => Histogram::new(asked.iter().copied()),
            None => Histogram::new(self.usual.iter().copied()),
        }
    }
}

impl Histograms {
    pub(super) fn register(
        registry: &Registry,
        (name, help): (&'static str, &str),
        usual: &'static [f64],
    ) -> Self {
        let buckets = Buckets {
            usual,
            asked: Arc::default(),
        };
        let family = Family::new_with_constructor(buckets.clone());
        registry.register(name, help, family.clone());
        Self {
            name,
            family,
            buckets,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// One caller at a time.
    pub(super) fn of(&self, labels: &Labels, asked: &Asked) -> Histogram {
        *self.buckets.asked.lock() = asked.get(self.name).cloned();
        self.family.get_or_create_owned(labels)
    }

    pub(super) fn remove(&self, labels: &Labels) {
        self.family.remove(labels);
    }
}
