//! What changes a running server: load, unload, settings.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::oip::fuzz_admin(data));
