//! Requests for an upstream that speaks the other form of the Open Inference Protocol: translated there and back.

use std::future::poll_fn;
use std::sync::Arc;

use base::ErrorKind;
use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, TE,
};
use http::{HeaderMap, Method, Request, StatusCode};
use prost::Message;
use protocol::oip::proto::{
    ModelConfig, ModelConfigRequest, ModelConfigResponse, ModelMetadataRequest, ModelReadyRequest,
    ModelReadyResponse,
};
use protocol::oip::{grpc as oip_grpc, rest};
use protocol::status::{kind_of_grpc, kind_of_http};
use protocol::{ApiError, InferRequest, InferResponse, ModelMetadata, config};

use crate::body::Payload;
use crate::exchange::Exchange;
use crate::grpc;
use crate::headers::{
    GRPC_ACCEPT_ENCODING, GRPC_ENCODING, GRPC_MESSAGE, GRPC_TIMEOUT, INFER_HEADER_LENGTH,
};
use crate::relay::{Outgoing, relay};
use crate::reply::{Failure, Reply};
use crate::snapshot::Snapshot;
use crate::upstream::{RequestBody, Upstream, Via};

const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// One request's way to an upstream in the form that it speaks: REST if it does, else gRPC.
pub(crate) struct Bridge<'a> {
    pub(crate) exchange: &'a mut Exchange,
    pub(crate) snapshot: &'a Arc<Snapshot>,
    pub(crate) upstream: &'a Arc<Upstream>,
    /// The client's own; what says how its body is written stays here.
    pub(crate) headers: &'a HeaderMap,
    pub(crate) ours_authorized: bool,
}

/// An answer that has come whole.
struct Whole {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

/// A model and perhaps a version.
pub(crate) type Named<'n> = (&'n str, Option<&'n str>);

impl Bridge<'_> {
    pub(crate) async fn infer(&mut self, request: InferRequest) -> Result<InferResponse, Failure> {
        let pool = self.exchange.gateway.shared().pool.clone();
        if !self.upstream.speaks_oip_rest() {
            let message = oip_grpc::encode_request(request);
            let answer = self.call("ModelInfer", message).await?;
            return oip_grpc::decode_response(answer).map_err(|error| self.unreadable(error));
        }
        let path = path_of((&request.model, request.version.as_deref()), "/infer");
        let encoded = rest::encode_request(&request);
        let mut parts = std::collections::VecDeque::with_capacity(encoded.binary.len() + 1);
        parts.push_back(Bytes::from(encoded.json));
        parts.extend(encoded.binary.into_iter().filter(|data| !data.is_empty()));
        let mut headers = self.plain_headers();
        headers.insert(CONTENT_TYPE, BINARY);
        if let Some(bytes) = encoded.header_length {
            headers.insert(INFER_HEADER_LENGTH, HeaderValue::from(bytes));
        }
        let body = RequestBody::Parts(parts);
        let answer = self.ask((Method::POST, path), headers, body).await?;
        let length = answer.headers.get(INFER_HEADER_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        rest::decode_response(&answer.body, length, &pool).map_err(|error| self.unreadable(error))
    }

    pub(crate) async fn metadata(&mut self, named: Named<'_>) -> Result<ModelMetadata, Failure> {
        if self.upstream.speaks_oip_rest() {
            let answer = self.get(path_of(named, "")).await?;
            return rest::decode_metadata(&answer.body).map_err(|error| self.unreadable(error));
        }
        let request = ModelMetadataRequest {
            name: named.0.to_owned(),
            version: named.1.unwrap_or_default().to_owned(),
        };
        let message = vec![Bytes::from(request.encode_to_vec())];
        let answer = self.call("ModelMetadata", message).await?;
        oip_grpc::decode_metadata(answer).map_err(|error| self.unreadable(error))
    }

    pub(crate) async fn ready(&mut self, named: Named<'_>) -> Result<bool, Failure> {
        if self.upstream.speaks_oip_rest() {
            return match self.get(path_of(named, "/ready")).await {
                Ok(_) => Ok(true),
                // Triton's word for a model that it does not have, or not ready.
                Err(failure)
                    if matches!(failure.error.kind, ErrorKind::Invalid | ErrorKind::NotFound) =>
                {
                    Ok(false)
                }
                Err(failure) => Err(failure),
            };
        }
        let request = ModelReadyRequest {
            name: named.0.to_owned(),
            version: named.1.unwrap_or_default().to_owned(),
        };
        let message = vec![Bytes::from(request.encode_to_vec())];
        let answer: ModelReadyResponse = self.decoded("ModelReady", message).await?;
        Ok(answer.ready)
    }

    pub(crate) async fn config(&mut self, named: Named<'_>) -> Result<ModelConfig, Failure> {
        if self.upstream.speaks_oip_rest() {
            let answer = self.get(path_of(named, "/config")).await?;
            let text = std::str::from_utf8(&answer.body).unwrap_or_default();
            let read = config::from_json(text);
            return read
                .map(|file| file.config)
                .map_err(|error| self.unreadable(ApiError::invalid(error.to_string())));
        }
        let request = ModelConfigRequest {
            name: named.0.to_owned(),
            version: named.1.unwrap_or_default().to_owned(),
        };
        let message = vec![Bytes::from(request.encode_to_vec())];
        let answer: ModelConfigResponse = self.decoded("ModelConfig", message).await?;
        Ok(answer.config.unwrap_or_default())
    }

    async fn decoded<M: Message + Default>(
        &mut self,
        method: &str,
        message: Vec<Bytes>,
    ) -> Result<M, Failure> {
        let answer = self.call(method, message).await?;
        M::decode(answer).map_err(|error| self.unreadable(ApiError::invalid(error.to_string())))
    }

    async fn get(&mut self, path: String) -> Result<Whole, Failure> {
        let headers = self.plain_headers();
        self.ask((Method::GET, path), headers, RequestBody::empty())
            .await
    }

    /// The client's headers without those about its body.
    fn plain_headers(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        for name in [
            CONTENT_TYPE,
            CONTENT_LENGTH,
            CONTENT_ENCODING,
            ACCEPT_ENCODING,
            TE,
            INFER_HEADER_LENGTH,
            GRPC_ENCODING,
            GRPC_ACCEPT_ENCODING,
            GRPC_TIMEOUT,
        ] {
            headers.remove(name);
        }
        headers
    }

    /// One REST call; an error status is an error.
    async fn ask(
        &mut self,
        (method, path): (Method, String),
        headers: HeaderMap,
        body: RequestBody,
    ) -> Result<Whole, Failure> {
        let answer = self
            .send((method, path), headers, (body, Via::Http))
            .await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let status = answer.status.as_u16();
        let message = rest::error_of(&answer.body)
            .unwrap_or_else(|| format!("upstream `{}` answered {status}", self.upstream.name));
        Err(ApiError::new(kind_of_http(status), message).into())
    }

    /// One unary call: the answer's message.
    async fn call(&mut self, method: &str, message: Vec<Bytes>) -> Result<Bytes, Failure> {
        let path = format!("/inference.GRPCInferenceService/{method}");
        let parts = grpc::message(message, None).await;
        let mut headers = self.plain_headers();
        headers.insert(CONTENT_TYPE, GRPC);
        let body = RequestBody::Parts(parts.into());
        let answer = self
            .send((Method::POST, path), headers, (body, Via::Grpc))
            .await?;
        let ended = answer.trailers.as_ref().unwrap_or(&answer.headers);
        let code = grpc::status(ended).unwrap_or_default();
        if code != 0 {
            let message = ended.get(GRPC_MESSAGE).map_or_else(
                || {
                    format!(
                        "upstream `{}` answered gRPC status {code}",
                        self.upstream.name
                    )
                },
                |text| grpc::percent_decode(text.as_bytes()),
            );
            return Err(ApiError::new(kind_of_grpc(code), message).into());
        }
        let mut body = answer.body;
        if body.len() < 5 || body.get_u8() != 0 {
            return Err(self.unreadable(ApiError::invalid("it has no message")));
        }
        let bytes = body.get_u32() as usize;
        if body.len() != bytes {
            return Err(self.unreadable(ApiError::invalid("its message is cut")));
        }
        Ok(body)
    }

    async fn send(
        &mut self,
        (method, path): (Method, String),
        headers: HeaderMap,
        (body, via): (RequestBody, Via),
    ) -> Result<Whole, Failure> {
        let request = Request::builder().method(method).uri(path).body(());
        let request = request.map_err(|error| {
            ApiError::invalid(format!("the model cannot be asked for: {error}"))
        })?;
        let mut head = request.into_parts().0;
        head.headers = headers;
        let outgoing = Outgoing {
            ours_authorized: self.ours_authorized,
            head: Box::new(head),
            body,
            via,
        };
        let reply = relay(self.exchange, self.snapshot, self.upstream, outgoing).await?;
        self.whole(reply).await
    }

    async fn whole(&mut self, reply: Reply) -> Result<Whole, Failure> {
        let bytes_max = self.exchange.gateway.shared().config.body_bytes_max;
        let (head, payload) = reply.response.into_parts();
        let mut body = BytesMut::new();
        let mut trailers = None;
        if let Payload::Relayed(mut relayed) = payload {
            while !relayed.ended() {
                // Cancel-safe: the answer is dropped with us.
                let frame = poll_fn(|cx| relayed.poll_frame(cx, self.exchange)).await;
                let Some(frame) = frame else { break };
                let frame = frame.map_err(|cut| self.bad(cut.to_string()))?;
                match frame.into_data() {
                    Ok(data) if body.len() + data.len() > bytes_max => {
                        return Err(
                            self.bad(format!("its answer is larger than {bytes_max} bytes"))
                        );
                    }
                    Ok(data) => body.extend_from_slice(&data),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                }
            }
        }
        Ok(Whole {
            status: head.status,
            headers: head.headers,
            body: body.freeze(),
            trailers,
        })
    }

    fn unreadable(&self, error: ApiError) -> Failure {
        self.bad(error.message)
    }

    fn bad(&self, why: String) -> Failure {
        let message = format!("upstream `{}`: {why}", self.upstream.name);
        ApiError::new(ErrorKind::BadUpstream, message)
            .with_code("upstream_error")
            .into()
    }
}

/// `/v2/models/…`, whatever characters the names have.
fn path_of((model, version): Named<'_>, call: &str) -> String {
    let mut path = "/v2/models/".to_owned();
    escape(model, &mut path);
    if let Some(version) = version {
        path.push_str("/versions/");
        escape(version, &mut path);
    }
    path.push_str(call);
    path
}

fn escape(text: &str, path: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_the_model_whatever_it_is_called() {
        for (named, expected) in [
            (("m", None), "/v2/models/m/infer"),
            (("org/m", Some("3")), "/v2/models/org%2Fm/versions/3/infer"),
            (("a b?", None), "/v2/models/a%20b%3F/infer"),
        ] {
            assert_eq!(path_of(named, "/infer"), expected);
        }
    }
}
