//! Ids of what an upstream keeps, in answers and requests.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::openai::fuzz_openai_kept(data));
