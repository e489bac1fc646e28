//! The gRPC wire of the Open Inference Protocol, without the transport.
//!
//! Reading order: [`decode_infer`] (frames in, message out: the hot path), `input` (measured before it is decoded),
//! [`infer_request`] (message → request), `contents` (typed lists → tensor bytes), [`encode_infer`] (response out, large tensors
//! by reference), `admin` (metadata, index). HTTP/2, the five-byte message prefix and status trailers are the gateway's.

mod admin;
mod client;
mod contents;
mod decode;
mod encode;
mod input;
mod parameters;
mod request;
mod scan;
#[cfg(test)]
mod tests;

pub use admin::{model_metadata, repository_index, server_metadata};
pub use client::{decode_metadata, decode_response};
pub use decode::decode_infer;
pub use encode::{encode_infer, encode_request, encode_stream_error, encode_streamed};
pub use request::{infer_request, shared_inputs};
pub use scan::{fuzz_grpc_scan, scan_model};

use crate::oip::proto::ModelInferRequest;
use crate::{ApiError, BufferPool, InferRequest};

/// Feeds arbitrary bytes to the request path; the second half goes through a different cut into frames.
pub fn fuzz_grpc_infer(data: &[u8]) {
    use bytes::Buf as _;
    let pool = BufferPool::new(0);
    let whole = decode_infer(data, &pool).and_then(read_as_if_shared);
    let (left, right) = data.split_at(data.len() / 2);
    let cut = decode_infer(left.chain(right), &pool).and_then(read_as_if_shared);
    assert_eq!(whole.is_ok(), cut.is_ok(), "framing changed the outcome");
    if let (Ok(whole), Ok(cut)) = (whole, cut) {
        // NaN parameters are unequal to themselves, so only what is compared bytewise is compared.
        assert_eq!(whole.inputs, cut.inputs, "framing changed the tensors");
    }
}

/// Gives each input in shared memory as many zeros as it claims to have there, up to a size that is worth it.
fn read_as_if_shared(message: ModelInferRequest) -> Result<InferRequest, ApiError> {
    const BYTES_MAX: u64 = 4096;
    let places = shared_inputs(&message)?;
    let read = places.iter().map(|place| {
        let bytes = usize::try_from(place.bytes.min(BYTES_MAX)).unwrap_or_default();
        bytes::Bytes::from(vec![0; bytes])
    });
    infer_request(message, read.collect()).map(|(request, _)| request)
}
