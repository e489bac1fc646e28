//! Reading usage from answers as they pass by, however they are cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::openai::usage::fuzz_usage(data));
