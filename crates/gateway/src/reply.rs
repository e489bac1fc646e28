//! Answers and refusals, in the shape of the protocol that asked.

use base::{ErrorKind, Retry};
use http::header::{
    ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use protocol::ApiError;
use protocol::status;
use serde::Serialize;
use telemetry::Stage;

use crate::body::{Body, Payload};
use crate::coding::Coding;
use crate::exchange::Exchange;
use crate::grpc;
use crate::headers::{REQUEST_ID, RETRY_AFTER_MS, SERVER_TIMING, SHOULD_RETRY};

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer on its way out.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) response: Response<Payload>,
    pub(crate) trailers: Option<HeaderMap>,
    /// What is counted and remembered instead of the HTTP status: a gRPC error travels under 200.
    pub(crate) counted_as: Option<u16>,
}

/// A refusal before it has a shape.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: ApiError,
    /// Where HTTP has a finer word than the error's kind.
    status: Option<StatusCode>,
    allow: Option<&'static str>,
    /// Whether others were asked as often as is good: the client should not begin again.
    spent: bool,
}

/// Whose error format to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    OpenAi,
    Anthropic,
    Oip,
    Grpc,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self {
            error,
            status: None,
            allow: None,
            spent: false,
        }
    }
}

impl Failure {
    pub(crate) fn no_such_path(path: &str) -> Self {
        let message = format!("there is nothing at `{path}`");
        ApiError::new(ErrorKind::NotFound, message)
            .with_code("unknown_url")
            .into()
    }

    pub(crate) fn wrong_method(method: &Method, allow: &'static str) -> Self {
        let message = format!("`{method}` is not possible here; use {allow}");
        Self {
            error: ApiError::invalid(message).with_code("method_not_supported"),
            status: Some(StatusCode::METHOD_NOT_ALLOWED),
            allow: Some(allow),
            spent: false,
        }
    }

    pub(crate) fn with_status(error: ApiError, status: StatusCode) -> Self {
        Self {
            error,
            status: Some(status),
            allow: None,
            spent: false,
        }
    }

    pub(crate) fn final_if(mut self, spent: bool) -> Self {
        self.spent = spent;
        self
    }
}

impl Reply {
    pub(crate) fn new(status: StatusCode, content_type: HeaderValue, payload: Payload) -> Self {
        let mut response = Response::new(payload);
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response.into()
    }

    /// JSON that is already written.
    pub(crate) fn json(body: impl Into<bytes::Bytes>) -> Self {
        Self::new(StatusCode::OK, JSON, Payload::full(body))
    }

    pub(crate) fn serialised(status: StatusCode, body: &impl Serialize) -> Result<Self, ApiError> {
        let text = serde_json::to_vec(body).map_err(|error| {
            ApiError::new(
                ErrorKind::Internal,
                format!("cannot write the answer: {error}"),
            )
        })?;
        Ok(Self::new(status, JSON, Payload::full(text)))
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.response.headers_mut().insert(name, value.into());
        self
    }

    /// The same, packed as the client likes it best. What fits one part has its length said.
    pub(crate) fn packed(mut self, coding: Option<Coding>) -> Self {
        let Some(coding) = coding else { return self };
        let payload = std::mem::take(self.response.body_mut());
        *self.response.body_mut() = payload.packed(coding);
        let name = HeaderValue::from_static(coding.name());
        self.with_header(CONTENT_ENCODING, name)
    }

    /// The refusal in the protocol's own words; `HEAD` aside, every one has a body.
    pub(crate) fn refusal(failure: &Failure, shape: Shape, request_id: &str) -> Self {
        let error = &failure.error;
        if shape == Shape::Grpc {
            return grpc::refusal(error);
        }
        let status = failure.status.unwrap_or_else(|| {
            let usual = match shape {
                Shape::Anthropic => status::anthropic_status(error.kind),
                _ => status::of(error.kind).http,
            };
            let code = error.http.unwrap_or(usual);
            StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        });
        let body = match shape {
            Shape::OpenAi => status::openai_body(error),
            Shape::Anthropic => status::anthropic_body(error, Some(request_id)),
            Shape::Oip | Shape::Grpc => status::oip_body(error),
        };
        let mut reply = Self::new(status, JSON, Payload::full(body));
        let headers = reply.response.headers_mut();
        if let Some(seconds) = status::retry_after_seconds(error) {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        // To the millisecond for those who read it, as OpenAI's clients do.
        if let Retry::After(wait) = error.retry {
            let ms = u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(ms));
        }
        if failure.spent {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if let Some(allow) = failure.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        reply
    }

    /// Closes the ledger up to here, writes it and the request's id into the head, and hands the exchange to the body.
    pub(crate) fn seal(self, mut exchange: Box<Exchange>, method: &Method) -> Response<Body> {
        exchange.mark(Stage::Encode);
        let (mut head, mut payload) = self.response.into_parts();
        if let Ok(id) = HeaderValue::from_str(exchange.id.as_str()) {
            head.headers.insert(REQUEST_ID, never_again(id));
        }
        if let Some(permit) = &exchange.permit {
            permit.tell(&mut head.headers);
        }
        if let Ok(timing) = HeaderValue::try_from(exchange.ledger.server_timing()) {
            head.headers.append(SERVER_TIMING, never_again(timing));
        }
        if *method == Method::HEAD {
            if let Payload::Full(bytes) = &payload {
                head.headers
                    .insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            }
            payload = Payload::Empty;
        }
        exchange.head_ready(self.counted_as.unwrap_or_else(|| head.status.as_u16()));
        let body = Body::new(payload, self.trailers, exchange);
        Response::from_parts(head, body)
    }
}

/// Keeps a value that no other answer has out of HPACK's table, where each would push out what all answers have, and cost an
/// entry on both sides.
fn never_again(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

impl From<Response<Payload>> for Reply {
    fn from(response: Response<Payload>) -> Self {
        Self {
            response,
            trailers: None,
            counted_as: None,
        }
    }
}
