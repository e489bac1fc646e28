//! Lists of nodes and pods of `kapok simulate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scheduler::trace::fuzz(data));
