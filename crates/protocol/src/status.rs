//! One table from [`ErrorKind`] to what each protocol says. Doors call it; nobody else picks a status code.

use base::{ErrorKind, Retry};
use serde::Serialize;

use crate::ApiError;

/// gRPC codes, from <https://grpc.github.io/grpc/core/md_doc_statuscodes.html>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum GrpcCode {
    Ok = 0,
    Cancelled = 1,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// What one kind of error is called on each wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    pub http: u16,
    pub grpc: GrpcCode,
    /// OpenAI's `error.type`.
    pub openai_type: &'static str,
}

/// The whole table. 499 is nginx's "client closed request": it is seen in logs and metrics, never by the client.
pub fn of(kind: ErrorKind) -> Status {
    let (http, grpc, openai_type) = match kind {
        ErrorKind::Invalid => (400, GrpcCode::InvalidArgument, "invalid_request_error"),
        ErrorKind::Unauthenticated => (401, GrpcCode::Unauthenticated, "authentication_error"),
        ErrorKind::Denied => (403, GrpcCode::PermissionDenied, "permission_error"),
        ErrorKind::NotFound => (404, GrpcCode::NotFound, "invalid_request_error"),
        ErrorKind::Conflict => (409, GrpcCode::AlreadyExists, "invalid_request_error"),
        ErrorKind::Exhausted => (429, GrpcCode::ResourceExhausted, "rate_limit_error"),
        ErrorKind::Unavailable => (503, GrpcCode::Unavailable, "server_error"),
        ErrorKind::BadUpstream => (502, GrpcCode::Unavailable, "server_error"),
        ErrorKind::Timeout => (504, GrpcCode::DeadlineExceeded, "server_error"),
        ErrorKind::Cancelled => (499, GrpcCode::Cancelled, "server_error"),
        ErrorKind::Unsupported => (501, GrpcCode::Unimplemented, "invalid_request_error"),
        ErrorKind::Internal => (500, GrpcCode::Internal, "server_error"),
    };
    Status {
        http,
        grpc,
        openai_type,
    }
}

/// The HTTP status that says what a gRPC code says; 500 for one that is no code.
pub fn http_of_grpc(code: u16) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// The kind of error that a gRPC code tells of an upstream.
pub fn kind_of_grpc(code: u16) -> ErrorKind {
    match code {
        1 => ErrorKind::Cancelled,
        3 | 9 | 11 => ErrorKind::Invalid,
        4 => ErrorKind::Timeout,
        5 => ErrorKind::NotFound,
        6 | 10 => ErrorKind::Conflict,
        7 => ErrorKind::Denied,
        8 => ErrorKind::Exhausted,
        12 => ErrorKind::Unsupported,
        14 => ErrorKind::Unavailable,
        16 => ErrorKind::Unauthenticated,
        _ => ErrorKind::BadUpstream,
    }
}

/// The kind of error that an HTTP status tells of an upstream.
pub fn kind_of_http(status: u16) -> ErrorKind {
    match status {
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        408 | 504 => ErrorKind::Timeout,
        409 => ErrorKind::Conflict,
        429 => ErrorKind::Exhausted,
        501 => ErrorKind::Unsupported,
        503 => ErrorKind::Unavailable,
        400..=499 => ErrorKind::Invalid,
        _ => ErrorKind::BadUpstream,
    }
}

#[derive(Serialize)]
struct OpenAiBody<'a> {
    error: OpenAiError<'a>,
}

#[derive(Serialize)]
struct OpenAiError<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: Option<&'static str>,
}

#[derive(Serialize)]
struct OipBody<'a> {
    error: &'a str,
}

/// `{"error":{"message","type","param","code"}}`, as openai-python's error classes read it.
pub fn openai_body(error: &ApiError) -> Vec<u8> {
    let body = OpenAiBody {
        error: OpenAiError {
            message: &error.message,
            kind: of(error.kind).openai_type,
            param: error.param.as_deref(),
            code: error.code,
        },
    };
    serde_json::to_vec(&body).unwrap_or_else(|_| b"{\"error\":{}}".to_vec())
}

/// Anthropic's statuses: overload is 529 there.
pub fn anthropic_status(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::Unavailable => 529,
        kind => of(kind).http,
    }
}

fn anthropic_type(error: &ApiError) -> &'static str {
    match error.kind {
        ErrorKind::Invalid if error.code == Some("request_too_large") => "request_too_large",
        ErrorKind::Invalid | ErrorKind::Conflict | ErrorKind::Unsupported => {
            "invalid_request_error"
        }
        ErrorKind::Unauthenticated => "authentication_error",
        ErrorKind::Denied => "permission_error",
        ErrorKind::NotFound => "not_found_error",
        ErrorKind::Exhausted => "rate_limit_error",
        ErrorKind::Unavailable => "overloaded_error",
        ErrorKind::Timeout => "timeout_error",
        ErrorKind::BadUpstream | ErrorKind::Cancelled | ErrorKind::Internal => "api_error",
    }
}

#[derive(Serialize)]
struct AnthropicBody<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    error: AnthropicError<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

#[derive(Serialize)]
struct AnthropicError<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: &'a str,
}

/// `{"type":"error","error":{"type","message"},"request_id"}`, as the anthropic SDK reads it; in a stream without the id,
/// which its head has.
pub fn anthropic_body(error: &ApiError, request_id: Option<&str>) -> Vec<u8> {
    let body = AnthropicBody {
        kind: "error",
        error: AnthropicError {
            kind: anthropic_type(error),
            message: &error.message,
        },
        request_id,
    };
    serde_json::to_vec(&body).unwrap_or_else(|_| b"{\"type\":\"error\"}".to_vec())
}

/// `{"error":"…"}`, as the Open Inference Protocol has it.
pub fn oip_body(error: &ApiError) -> Vec<u8> {
    serde_json::to_vec(&OipBody {
        error: &error.message,
    })
    .unwrap_or_else(|_| b"{\"error\":\"\"}".to_vec())
}

/// `Retry-After` in whole seconds, rounded up, when the error says when to come back.
pub fn retry_after_seconds(error: &ApiError) -> Option<u64> {
    match error.retry {
        Retry::After(wait) => Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
        Retry::No | Retry::Now => None,
    }
}
