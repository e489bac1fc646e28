use std::borrow::Cow;

use protocol::otlp::{
    Data, Gauge, Histogram, HistogramPoint, KeyValue, Metric, NumberPoint, Sum, Temporality,
};

use super::page::{Family, Labels, Sample, families};

/// Metrics that the conventions name: as they stand on a page of Prometheus, their own name, and their unit.
const STANDARD: [(&str, &str, &str); 7] = [
    (
        "gen_ai_client_operation_duration_seconds",
        "gen_ai.client.operation.duration",
        "s",
    ),
    (
        "gen_ai_client_token_usage",
        "gen_ai.client.token.usage",
        "{token}",
    ),
    (
        "gen_ai_server_request_duration_seconds",
        "gen_ai.server.request.duration",
        "s",
    ),
    (
        "gen_ai_server_time_to_first_token_seconds",
        "gen_ai.server.time_to_first_token",
        "s",
    ),
    (
        "gen_ai_server_time_per_output_token_seconds",
        "gen_ai.server.time_per_output_token",
        "s",
    ),
    (
        "http_server_request_duration_seconds",
        "http.server.request.duration",
        "s",
    ),
    (
        "http_client_request_duration_seconds",
        "http.client.request.duration",
        "s",
    ),
];

/// The labels of those, in the same two forms.
const ATTRIBUTES: [(&str, &str); 11] = [
    ("error_type", "error.type"),
    ("gen_ai_operation_name", "gen_ai.operation.name"),
    ("gen_ai_provider_name", "gen_ai.provider.name"),
    ("gen_ai_request_model", "gen_ai.request.model"),
    ("gen_ai_token_type", "gen_ai.token.type"),
    ("http_request_method", "http.request.method"),
    ("http_response_status_code", "http.response.status_code"),
    ("http_route", "http.route"),
    ("server_address", "server.address"),
    ("server_port", "server.port"),
    ("url_scheme", "url.scheme"),
];

/// Attributes that are numbers.
const NUMBERS: [&str; 2] = ["http.response.status_code", "server.port"];

/// Every metric of a page, with what was counted since `started`, up to `now`: both in nanoseconds since 1970. Names that
/// are no convention's stay as Prometheus has them.
pub fn metrics(page: &str, times: (u64, u64)) -> Vec<Metric> {
    let families = families(page);
    families
        .iter()
        .map(|family| metric(family, times))
        .collect()
}

/// How many points a metric has.
pub(super) fn points(metric: &Metric) -> usize {
    match &metric.data {
        None => 0,
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
    }
}

fn metric(family: &Family<'_>, times: (u64, u64)) -> Metric {
    let standard = STANDARD.iter().find(|(page, ..)| *page == family.name);
    let (name, unit) = match standard {
        Some((_, name, unit)) => (*name, *unit),
        None if family.name.trim_end_matches("_total").ends_with("_seconds") => (family.name, "s"),
        None if family.name.ends_with("_bytes") => (family.name, "By"),
        None => (family.name, ""),
    };
    let samples = &family.samples;
    Metric {
        name: name.to_owned(),
        // Prometheus' text form puts a full stop behind it.
        description: family.help.trim_end_matches('.').to_owned(),
        unit: unit.to_owned(),
        data: Some(match family.kind {
            "counter" => Data::Sum(Sum {
                data_points: samples.iter().map(|sample| number(sample, times)).collect(),
                aggregation_temporality: Temporality::Cumulative as i32,
                is_monotonic: true,
            }),
            "histogram" => Data::Histogram(Histogram {
                data_points: histograms(family, times),
                aggregation_temporality: Temporality::Cumulative as i32,
            }),
            _ => Data::Gauge(Gauge {
                // What is now has no beginning.
                data_points: samples
                    .iter()
                    .map(|sample| number(sample, (0, times.1)))
                    .collect(),
            }),
        }),
    }
}

fn number(sample: &Sample<'_>, (started, now): (u64, u64)) -> NumberPoint {
    NumberPoint {
        start_time_unix_nano: started,
        time_unix_nano: now,
        as_double: Some(sample.value),
        attributes: attributes(&sample.labels),
    }
}

/// One point for each set of labels; its parts follow each other on the page.
fn histograms(family: &Family<'_>, (started, now): (u64, u64)) -> Vec<HistogramPoint> {
    let mut points: Vec<(Labels<'_>, HistogramPoint)> = Vec::new();
    for sample in &family.samples {
        let (limits, labels): (Labels<'_>, Labels<'_>) = sample
            .labels
            .iter()
            .cloned()
            .partition(|(name, _)| *name == "le");
        if points.last().is_none_or(|(before, _)| *before != labels) {
            let point = HistogramPoint {
                start_time_unix_nano: started,
                time_unix_nano: now,
                attributes: attributes(&labels),
                ..HistogramPoint::default()
            };
            points.push((labels, point));
        }
        let Some((_, point)) = points.last_mut() else {
            continue;
        };
        match sample.name.strip_prefix(family.name) {
            Some("_sum") => point.sum = Some(sample.value),
            Some("_count") => point.count = whole(sample.value),
            Some("_bucket") => {
                let Some((_, limit)) = limits.first() else {
                    continue;
                };
                if let Some(bound) = limit.parse().ok().filter(|bound: &f64| bound.is_finite()) {
                    point.explicit_bounds.push(bound);
                }
                // On the page each bucket counts what the ones before it have, too.
                let before: u64 = point.bucket_counts.iter().sum();
                let count = whole(sample.value).saturating_sub(before);
                point.bucket_counts.push(count);
            }
            _ => {}
        }
    }
    points.into_iter().map(|(_, point)| point).collect()
}

fn attributes(labels: &[(&str, Cow<'_, str>)]) -> Vec<KeyValue> {
    let said = labels.iter().filter(|(_, value)| !value.is_empty());
    said.map(|(label, value)| {
        let known = ATTRIBUTES.iter().find(|(page, _)| page == label);
        let name = known.map_or(*label, |(_, name)| *name);
        match value.parse::<i64>() {
            Ok(number) if NUMBERS.contains(&name) => KeyValue::new(name, number),
            _ => KeyValue::new(name, &**value),
        }
    })
    .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count; beyond 2^53 a page has no exact numbers either"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use protocol::otlp::Value;

    use super::*;
    use crate::metrics::{Counter, EncodeLabelSet, Family as Labelled, Gauge, Histogram, Registry};

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct Called {
        gen_ai_request_model: &'static str,
        error_type: &'static str,
        http_response_status_code: u16,
    }

    fn shown(attributes: &[KeyValue]) -> Vec<String> {
        let text =
            |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
                Some(Value::Text(text)) => format!("{}={text}", pair.key),
                Some(Value::Int(number)) => format!("{}=#{number}", pair.key),
                other => format!("{}={other:?}", pair.key),
            };
        attributes.iter().map(text).collect()
    }

    /// Two series of durations, a counter and a gauge.
    fn registry() -> Registry {
        let registry = Registry::new();
        let seconds: Labelled<Called, Histogram, fn() -> Histogram> =
            Labelled::new_with_constructor(|| Histogram::new([0.1, 1.0]));
        registry.register(
            "http_server_request_duration_seconds",
            "Duration",
            seconds.clone(),
        );
        let counts: Labelled<[(&str, &str); 1], Counter> = Labelled::default();
        registry.register("kapok_things_total", "Things", counts.clone());
        let gauge: Gauge = Gauge::default();
        registry.register("kapok_now_bytes", "Now", gauge.clone());
        for (error_type, status) in [("", 200), ("500", 500)] {
            let labels = Called {
                gen_ai_request_model: "a \"b\"",
                error_type,
                http_response_status_code: status,
            };
            let series = seconds.get_or_create_owned(&labels);
            for value in [0.05, 0.5, 0.6, 7.0] {
                series.observe(value);
            }
        }
        counts.get_or_create_owned(&[("x", "1")]).add(3);
        gauge.set(0);
        registry
    }

    #[test]
    fn what_the_registry_has_is_exported_under_opentelemetrys_names() {
        let metrics = metrics(&registry().encode(), (1, 2));
        let [http, things, now] = &metrics[..] else {
            panic!("{metrics:?}")
        };
        assert_eq!(
            (
                http.name.as_str(),
                http.unit.as_str(),
                http.description.as_str()
            ),
            ("http.server.request.duration", "s", "Duration")
        );
        let Some(Data::Histogram(histogram)) = &http.data else {
            panic!("{http:?}")
        };
        assert_eq!(
            histogram.aggregation_temporality,
            Temporality::Cumulative as i32
        );
        let mut points = histogram.data_points.clone();
        points.sort_by_key(|point| point.attributes.len());
        let [good, bad] = &points[..] else {
            panic!("{points:?}")
        };
        assert_eq!(
            shown(&good.attributes),
            [
                "gen_ai.request.model=a \"b\"",
                "http.response.status_code=#200"
            ],
            "what is empty is not said"
        );
        assert!(shown(&bad.attributes).contains(&"error.type=500".to_owned()));
        assert_eq!((good.count, good.sum), (4, Some(8.15)));
        assert_eq!(good.explicit_bounds, [0.1, 1.0]);
        assert_eq!(good.bucket_counts, [1, 2, 1], "each bucket has its own");
        assert_eq!((good.start_time_unix_nano, good.time_unix_nano), (1, 2));

        let Some(Data::Sum(sum)) = &things.data else {
            panic!("{things:?}")
        };
        assert!(sum.is_monotonic && things.name == "kapok_things_total");
        assert_eq!(sum.data_points[0].as_double, Some(3.0));
        let Some(Data::Gauge(gauge)) = &now.data else {
            panic!("{now:?}")
        };
        assert_eq!(
            (now.unit.as_str(), gauge.data_points[0].as_double),
            ("By", Some(0.0))
        );
    }

    #[test]
    fn an_empty_page_has_no_metrics() {
        assert_eq!(metrics("", (0, 0)), []);
        assert_eq!(metrics("# EOF\n", (0, 0)), []);
    }
}
