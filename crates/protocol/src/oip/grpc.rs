//! The gRPC wire of the Open Inference Protocol, without the transport.
//!
//! Reading order: [`decode_infer`] (frames in, request out: the hot path), `input` (measured before it is decoded),
//! `request` (message → request), `contents` (typed lists → tensor bytes), [`encode_infer`] (response out, large tensors
//! by reference), `admin` (metadata, index). HTTP/2, the five-byte message prefix and status trailers are the gateway's.

mod admin;
mod contents;
mod decode;
mod encode;
mod input;
mod parameters;
mod request;
#[cfg(test)]
mod tests;

pub use admin::{model_metadata, repository_index, server_metadata};
pub use decode::{decode_infer, decode_infer_message};
pub use encode::encode_infer;
pub use request::infer_request;

use crate::BufferPool;

/// Feeds arbitrary bytes to the request path; the second half goes through a different cut into frames.
pub fn fuzz_grpc_infer(data: &[u8]) {
    use bytes::Buf as _;
    let pool = BufferPool::new(0);
    let whole = decode_infer(data, &pool);
    let (left, right) = data.split_at(data.len() / 2);
    let cut = decode_infer(left.chain(right), &pool);
    assert_eq!(whole.is_ok(), cut.is_ok(), "framing changed the outcome");
    if let (Ok(whole), Ok(cut)) = (whole, cut) {
        // NaN parameters are unequal to themselves, so only what is compared bytewise is compared.
        assert_eq!(whole.inputs, cut.inputs, "framing changed the tensors");
    }
}
