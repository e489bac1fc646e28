//! One event of a relayed stream.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::openai::fuzz_openai_chunk(data));
