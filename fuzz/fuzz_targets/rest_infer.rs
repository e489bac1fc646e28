//! Inference over REST: JSON, then binary tensors after the first line feed.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::oip::rest::fuzz_rest_infer(data));
