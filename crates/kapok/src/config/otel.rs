//! OpenTelemetry's own environment variables, as its specification has them
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).

use std::str::FromStr;

use protocol::resource::{NodeSpec, OtlpProtocol, OtlpSpec, Secret, Share};

use super::Environment;
use crate::exit::{Failure, Outcome};

const SERVICE_NAME: &str = "service.name";

pub(super) fn from_environment(node: &mut NodeSpec, environment: &Environment) -> Outcome {
    let otlp = &mut node.otlp;
    let get = |name| environment.variable(name);
    if let Some(endpoint) = get("OTEL_EXPORTER_OTLP_ENDPOINT") {
        // gRPC's may come without a scheme.
        let scheme = if endpoint.contains("://") {
            ""
        } else {
            "http://"
        };
        otlp.endpoint = Some(format!("{scheme}{endpoint}"));
    }
    if let Some(protocol) = get("OTEL_EXPORTER_OTLP_PROTOCOL") {
        otlp.protocol = match protocol {
            "http/protobuf" => OtlpProtocol::Http,
            "grpc" => OtlpProtocol::Grpc,
            other => return Err(wrong("OTEL_EXPORTER_OTLP_PROTOCOL", other, "grpc")),
        };
    }
    for (name, value) in pairs("OTEL_EXPORTER_OTLP_HEADERS", environment)? {
        otlp.headers.insert(name, Secret::Value(value));
    }
    for (name, value) in pairs("OTEL_RESOURCE_ATTRIBUTES", environment)? {
        if name == SERVICE_NAME {
            otlp.service_name = value;
        } else {
            otlp.attributes.insert(name, value);
        }
    }
    if let Some(name) = get("OTEL_SERVICE_NAME") {
        name.clone_into(&mut otlp.service_name);
    }
    if let Some(ms) = number::<u64>("OTEL_EXPORTER_OTLP_TIMEOUT", environment)? {
        otlp.timeout_ms = ms;
    }
    if let Some(ms) = number::<u64>("OTEL_METRIC_EXPORT_INTERVAL", environment)? {
        otlp.interval_seconds = ms.div_ceil(1000);
    }
    if let Some(max) = number::<usize>("OTEL_BSP_MAX_QUEUE_SIZE", environment)? {
        otlp.queue_max = max;
    }
    sampler(otlp, environment)?;
    otlp.traces &= get("OTEL_TRACES_EXPORTER") != Some("none");
    otlp.metrics &= get("OTEL_METRICS_EXPORTER") != Some("none");
    if get("OTEL_SDK_DISABLED").is_some_and(|said| said.eq_ignore_ascii_case("true")) {
        otlp.endpoint = None;
    }
    Ok(())
}

fn sampler(otlp: &mut OtlpSpec, environment: &Environment) -> Outcome {
    let Some(name) = environment.variable("OTEL_TRACES_SAMPLER") else {
        return Ok(());
    };
    let rule = name.strip_prefix("parentbased_");
    otlp.follow_parent = rule.is_some();
    otlp.sample = Share(match rule.unwrap_or(name) {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => number::<f64>("OTEL_TRACES_SAMPLER_ARG", environment)?.unwrap_or(1.0),
        _ => {
            return Err(wrong(
                "OTEL_TRACES_SAMPLER",
                name,
                "parentbased_traceidratio",
            ));
        }
    });
    Ok(())
}

fn number<T: FromStr>(name: &'static str, environment: &Environment) -> Outcome<Option<T>> {
    let Some(text) = environment.variable(name) else {
        return Ok(None);
    };
    let read = text.trim().parse().map(Some);
    read.map_err(|_| wrong(name, text, "1"))
}

/// `name=value,name=value`, values percent-encoded. The values stay out of messages: they may be keys.
fn pairs(name: &'static str, environment: &Environment) -> Outcome<Vec<(String, String)>> {
    let text = environment.variable(name).unwrap_or_default();
    let items = text.split(',').filter(|item| !item.trim().is_empty());
    items
        .map(|item| {
            let (key, value) = item.split_once('=')?;
            let value = unescaped(value.trim())?;
            Some((key.trim().to_owned(), value)).filter(|(key, _)| !key.is_empty())
        })
        .collect::<Option<_>>()
        .ok_or_else(|| {
            Failure::usage(format!(
                "`{name}` is no list of `name=value` with commas between"
            ))
            .hint(format!("{name}=name=value,other=value"))
        })
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

fn wrong(name: &str, value: &str, instead: &str) -> Failure {
    Failure::usage(format!(
        "`{name}` is `{value}`, which kapok does not understand"
    ))
    .hint(format!("{name}={instead}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<OtlpSpec, String> {
        let pairs = pairs.iter();
        let environment =
            Environment::of(pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let mut node = NodeSpec::default();
        from_environment(&mut node, &environment)
            .map(|()| node.otlp)
            .map_err(|failure| failure.error.to_string())
    }

    #[test]
    fn opentelemetrys_variables_are_obeyed() {
        let otlp = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "x-api-key=a%20b, x-team = red ",
            ),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=from-list,zone=eu"),
            ("OTEL_SERVICE_NAME", "front"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1500"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_METRICS_EXPORTER", "none"),
        ])
        .expect("all of it is right");
        assert_eq!(otlp.endpoint.as_deref(), Some("http://collector:4317"));
        assert_eq!(otlp.protocol, OtlpProtocol::Grpc);
        let header = |name: &str| otlp.headers.get(name).cloned();
        assert_eq!(
            header("x-api-key"),
            Some(Secret::Value("a b".to_owned())),
            "percent-encoded"
        );
        assert_eq!(header("x-team"), Some(Secret::Value("red".to_owned())));
        assert_eq!(otlp.service_name, "front");
        assert_eq!(otlp.attributes.get("zone").map(String::as_str), Some("eu"));
        assert_eq!((otlp.interval_seconds, otlp.sample), (2, Share(0.25)));
        assert!(otlp.follow_parent && otlp.traces && !otlp.metrics);
    }

    #[test]
    fn every_sampler_of_the_specification_is_known() {
        for (name, share, follows) in [
            ("always_on", 1.0, false),
            ("always_off", 0.0, false),
            ("traceidratio", 0.5, false),
            ("parentbased_always_on", 1.0, true),
            ("parentbased_always_off", 0.0, true),
            ("parentbased_traceidratio", 0.5, true),
        ] {
            let otlp = read(&[
                ("OTEL_TRACES_SAMPLER", name),
                ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
            ])
            .expect(name);
            assert_eq!(
                (otlp.sample, otlp.follow_parent),
                (Share(share), follows),
                "{name}"
            );
        }
    }

    #[test]
    fn what_cannot_be_understood_is_refused_by_name() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "no-value"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=%zz"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ] {
            let error = read(&[(name, value)]).expect_err(name);
            assert!(error.contains(name), "{error}");
        }
        let off = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
            ("OTEL_SDK_DISABLED", "TRUE"),
        ]);
        assert_eq!(off.expect("valid").endpoint, None);
    }
}
