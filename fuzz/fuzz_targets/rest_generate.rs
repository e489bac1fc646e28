//! Generate requests for a model with an input of each type.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::oip::rest::fuzz_rest_generate(data));
