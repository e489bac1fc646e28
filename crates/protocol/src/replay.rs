//! Every seed of the fuzz targets, and every seed cut short, in each test run; libFuzzer itself runs out of band.

use std::path::Path;

/// Cuts per seed: enough for each byte of a small one, bounded for the large ones.
const CUTS_MAX: usize = 200;

/// Runs the target on `fuzz/corpus/<name>`.
fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(name);
    let mut seeds = 0;
    for entry in std::fs::read_dir(&folder).expect("the corpus is part of the repository") {
        let data = std::fs::read(entry.expect("readable").path()).expect("readable");
        target(&data);
        let step = data.len().div_ceil(CUTS_MAX).max(1);
        for cut in (0..data.len()).step_by(step) {
            target(&data[..cut]);
            target(&data[cut..]);
        }
        seeds += 1;
    }
    assert!(seeds >= 20, "{name} has only {seeds} seeds");
}

#[test]
fn rest_inference() {
    replay("rest_infer", crate::oip::rest::fuzz_rest_infer);
}

#[test]
fn models_of_messages() {
    replay("grpc_scan", crate::oip::grpc::fuzz_grpc_scan);
}

#[test]
fn openai_bodies() {
    replay("openai_scan", crate::openai::fuzz_openai_scan);
}

#[test]
fn ids_of_what_is_kept() {
    replay("openai_kept", crate::openai::fuzz_openai_kept);
}

#[test]
fn multipart_forms() {
    replay("openai_form", crate::openai::fuzz_openai_form);
}

#[test]
fn metrics_pages() {
    replay("metrics_page", crate::metrics_page::fuzz_metrics_page);
}

#[test]
fn openai_chunks() {
    replay("openai_chunk", crate::openai::fuzz_openai_chunk);
}

#[test]
fn openai_requests_for_the_rest() {
    replay("openai_resume", crate::openai::fuzz_openai_resume);
}

#[test]
fn bodies_that_are_asked_for_usage() {
    replay("ask_usage", crate::openai::usage::fuzz_ask_usage);
}

#[test]
fn answers_that_tell_usage() {
    replay("usage", crate::openai::usage::fuzz_usage);
}

#[test]
fn refusals_of_what_is_too_long() {
    replay("too_long", crate::openai::fuzz_too_long);
}

#[test]
fn resource_files() {
    replay("resource_yaml", crate::resource::fuzz_resource_yaml);
}

#[test]
fn lists_of_servers() {
    replay("endpoints", crate::resource::fuzz_endpoints);
}

#[test]
fn sidecar_files() {
    replay("sidecar", crate::sidecar::fuzz_sidecar);
}

#[test]
fn configurations_in_json() {
    replay("config_json", crate::config::fuzz_config_json);
}

#[test]
fn administration() {
    replay("admin", crate::oip::fuzz_admin);
}

#[test]
fn generate_requests() {
    replay("rest_generate", crate::oip::rest::fuzz_rest_generate);
}

#[test]
fn shared_memory_registrations() {
    replay("rest_region", crate::oip::rest::fuzz_rest_region);
}
