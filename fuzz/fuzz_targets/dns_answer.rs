//! What a name server sends.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| discovery::fuzz_dns_answer(data));
