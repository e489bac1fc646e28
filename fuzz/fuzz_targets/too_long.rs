//! What a refusal says.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::openai::fuzz_too_long(data));
