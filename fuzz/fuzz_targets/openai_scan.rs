//! The lazy scan of bodies that are relayed.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::openai::fuzz_openai_scan(data));
