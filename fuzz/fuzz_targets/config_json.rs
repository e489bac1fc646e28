//! A configuration in JSON, as a load call carries it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::config::fuzz_config_json(data));
