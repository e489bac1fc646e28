//! What an upstream answers over HTTP/1.1.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateway::fuzz_http_answer(data));
