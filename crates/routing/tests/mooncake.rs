//! Recorded prompts of a public service (Mooncake) before servers with caches of a given size.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use routing::replay::{Outcome, Prompt, Router, replay};
use routing::{Index, Prefix, RoundRobin};

fn trace() -> Vec<Prompt> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/data/traces/mooncake/synthetic_trace.jsonl.gz");
    let packed = std::fs::read(file).expect("the shared traces");
    let mut text = String::new();
    let mut unpacked = flate2::read::GzDecoder::new(&*packed);
    unpacked.read_to_string(&mut text).expect("gzip");
    routing::replay::read_mooncake(&text).expect("the trace's form")
}

fn by_prefix(
    prompts: &[Prompt],
    servers: usize,
    cache_blocks: usize,
    index_bytes: usize,
) -> Outcome {
    let ids = (0..servers)
        .map(|id| u32::try_from(id).expect("few"))
        .collect();
    let index = Arc::new(Index::new(index_bytes));
    assert!(index.bytes() <= index_bytes);
    let policy = Prefix::new(index, ids);
    replay(prompts, servers, cache_blocks, &Router::Policy(&policy))
}

#[test]
fn prefix_routing_comes_near_an_oracle_and_keeps_servers_even() {
    let prompts = trace();
    assert_eq!(prompts.len(), 3993);
    for (servers, cache_blocks) in [
        (4, 2000),
        (8, 1000),
        (8, 4000),
        (10, 5000),
        (16, 2000),
        (16, 100_000),
    ] {
        let oracle = replay(&prompts, servers, cache_blocks, &Router::Oracle);
        let turns = replay(
            &prompts,
            servers,
            cache_blocks,
            &Router::Policy(&RoundRobin),
        );
        let found = by_prefix(&prompts, servers, cache_blocks, 4 << 20);
        let case = format!(
            "{servers} × {cache_blocks}: {found:?}, oracle {oracle:?}, round robin {turns:?}"
        );
        assert!(found.hit_rate >= oracle.hit_rate * 0.95, "{case}");
        assert!(found.requests_peak <= 1.25, "{case}");
        assert!(found.computed_peak <= 1.25, "{case}");
        assert!(found.hit_rate > turns.hit_rate * 1.5, "{case}");
    }
}

/// A table too small for the trace costs hits, never memory.
#[test]
fn a_small_index_still_helps() {
    let prompts = trace();
    let turns = replay(&prompts, 8, 4000, &Router::Policy(&RoundRobin));
    let small = by_prefix(&prompts, 8, 4000, 64 << 10);
    assert!(
        small.hit_rate > turns.hit_rate * 1.5,
        "{small:?}, round robin {turns:?}"
    );
}
