//! An upstream's metrics page.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::metrics_page::fuzz_metrics_page(data));
