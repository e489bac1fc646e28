//! Triton's `config.pbtxt`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::config::fuzz_pbtxt(data));
