//! `kapok.yaml`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::resource::fuzz_resource_yaml(data));
