//! `kapok.toml` beside a model.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::sidecar::fuzz_sidecar(data));
