//! The model that a gRPC message is about.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol::oip::grpc::fuzz_grpc_scan(data));
