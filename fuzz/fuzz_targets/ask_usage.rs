//! Asking an upstream for usage, in a body that is otherwise the client's.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::openai::usage::fuzz_ask_usage(data));
