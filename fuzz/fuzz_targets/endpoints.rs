//! Lists of servers, and one server as a registry holds it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::resource::fuzz_endpoints(data));
