//! The request for the rest of an answer that was cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::openai::fuzz_openai_resume(data));
