//! Registrations of shared memory regions.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::oip::rest::fuzz_rest_region(data));
