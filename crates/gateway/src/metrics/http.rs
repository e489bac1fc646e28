use std::sync::{Arc, OnceLock};

use telemetry::metrics::{EncodeLabelSet, Family, Histogram, Registry};

use crate::operation::Operation;

/// Requests in HTTP's words, as OpenTelemetry's conventions have them
/// (<https://opentelemetry.io/docs/specs/semconv/http/http-metrics/>).
#[derive(Debug)]
pub(crate) struct HttpMetrics {
    server: Family<Served, Histogram, fn() -> Histogram>,
    client: Family<Asked, Histogram, fn() -> Histogram>,
    /// Of requests with their call's own method that were answered with 200.
    usual: [OnceLock<Histogram>; Operation::COUNT],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Served {
    http_request_method: &'static str,
    url_scheme: &'static str,
    http_route: &'static str,
    http_response_status_code: u16,
    error_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    http_request_method: &'static str,
    server_address: Arc<str>,
    server_port: u16,
    http_response_status_code: Option<u16>,
    error_type: &'static str,
}

impl HttpMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        let metrics = Self {
            server: Family::new_with_constructor(seconds),
            client: Family::new_with_constructor(seconds),
            usual: std::array::from_fn(|_| OnceLock::new()),
        };
        registry.register(
            "http_server_request_duration_seconds",
            "From a request's head to the end of its answer (`http.server.request.duration`)",
            metrics.server.clone(),
        );
        registry.register(
            "http_client_request_duration_seconds",
            "Duration of one attempt to have an upstream answer (`http.client.request.duration`)",
            metrics.client.clone(),
        );
        metrics
    }

    pub(crate) fn served(
        &self,
        operation: Operation,
        method: &'static str,
        (status, error_type): (u16, &'static str),
        seconds: f64,
    ) {
        let (own_method, route) = operation.route();
        let handle = || {
            self.server.get_or_create_owned(&Served {
                http_request_method: method,
                url_scheme: "http",
                http_route: route,
                http_response_status_code: status,
                error_type,
            })
        };
        if status == 200 && error_type.is_empty() && method == own_method {
            self.usual[operation as usize]
                .get_or_init(handle)
                .observe(seconds);
        } else {
            handle().observe(seconds);
        }
    }

    /// `usual` keeps the handle of this server's usual answers.
    pub(crate) fn asked(
        &self,
        attempt: &telemetry::Attempt,
        method: &'static str,
        usual: &OnceLock<Histogram>,
    ) {
        let error_type = attempt.error_type();
        let handle = || {
            self.client.get_or_create_owned(&Asked {
                http_request_method: method,
                server_address: Arc::clone(&attempt.server),
                server_port: attempt.port,
                http_response_status_code: attempt.status,
                error_type,
            })
        };
        let seconds = attempt.total_ms / 1e3;
        if attempt.status == Some(200) && error_type.is_empty() && method == "POST" {
            usual.get_or_init(handle).observe(seconds);
        } else {
            handle().observe(seconds);
        }
    }
}

/// 5 ms to 10 s, as the convention wants them.
fn seconds() -> Histogram {
    Histogram::new([
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    ])
}
