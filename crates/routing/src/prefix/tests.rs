use super::*;
use crate::testing::Given;

fn text(seed: u8, length: usize) -> Vec<u8> {
    let byte = |at: usize| u8::try_from(at / 7 % 251).expect("below 251") ^ seed;
    (0..length).map(byte).collect()
}

fn policy(members: usize, bytes: usize) -> Prefix {
    let ids = (1..=members)
        .map(|id| u32::try_from(id).expect("few"))
        .collect();
    Prefix::new(Arc::new(Index::new(bytes)), ids)
}

fn choose(policy: &Prefix, given: &Given, digest: &Digest, turn: u64) -> usize {
    let ask = Ask {
        turn,
        prompt: Some(digest),
        now_ms: 5,
        ..Ask::default()
    };
    policy
        .choose(given, &ask, &mut Notes::default())
        .expect("somebody")
}

#[test]
fn equal_beginnings_have_equal_hashes_and_no_others() {
    let long = text(0, 40_000);
    let whole = Digest::of_text(&[b"model"], &long);
    let part = Digest::of_text(&[b"model"], &long[..20_000]);
    let shared = part
        .beginnings
        .iter()
        .filter(|begin| whole.beginnings.contains(begin));
    assert_eq!(
        shared.count(),
        part.beginnings.len() - usize::from(!remembered_in(&whole, &part))
    );
    for other in [
        Digest::of_text(&[b"another"], &long),
        Digest::of_text(&[b"model", b"tools"], &long),
        Digest::of_text(&[b"model"], &text(1, 40_000)),
    ] {
        let any = other
            .beginnings
            .iter()
            .any(|begin| whole.beginnings.contains(begin));
        assert!(!any);
    }
    assert_eq!(Digest::of_text(&[], b"short").blocks(), 0);
}

/// Whether the end of the shorter one is among what is remembered of the longer.
fn remembered_in(whole: &Digest, part: &Digest) -> bool {
    let last = part.beginnings.last().expect("blocks");
    whole.beginnings.contains(last)
}

#[test]
fn what_is_remembered_grows_with_the_logarithm() {
    for (blocks, most) in [(32, 32), (64, 49), (1000, 112), (1_000_000, 272)] {
        let digest = Digest::of_blocks(0, 0..blocks);
        assert_eq!(u64::from(digest.blocks()), blocks);
        assert!(
            digest.beginnings.len() <= most,
            "{blocks}: {}",
            digest.beginnings.len()
        );
        let counts: Vec<u32> = digest.beginnings.iter().map(|(_, count)| *count).collect();
        let sparse = counts
            .windows(2)
            .all(|pair| pair[1] - pair[0] <= pair[0] / 15 + 1);
        assert!(sparse, "{counts:?}");
    }
}

#[test]
fn a_prompt_goes_where_its_beginning_is_known() {
    let (policy, given) = (policy(20, 1 << 20), Given::in_flight(&[0; 20]));
    let first = Digest::of_text(&[], &text(0, 30_000));
    let home = choose(&policy, &given, &first, 1);
    let longer = Digest::of_text(&[], &text(0, 36_000));
    for turn in 2..20 {
        assert_eq!(choose(&policy, &given, &longer, turn), home);
    }
    let down = given.clone().without(&[home]);
    let second = choose(&policy, &down, &longer, 30);
    assert_ne!(second, home);
}

/// However many want one prompt, nobody gets all of it.
#[test]
fn a_prompt_that_everybody_sends_is_spread_when_its_home_is_full() {
    let policy = policy(8, 1 << 20);
    let mut given = Given::in_flight(&[0; 8]);
    let digest = Digest::of_text(&[], &text(0, 30_000));
    for turn in 0..400 {
        let chosen = choose(&policy, &given, &digest, turn);
        given.loads[chosen].in_flight += 1;
    }
    let busiest = given.loads.iter().map(|load| load.in_flight).max();
    assert!(
        busiest <= Some(62),
        "1.25 times the mean of 50: {busiest:?}"
    );
}

#[test]
fn the_index_keeps_to_its_bytes_and_forgets_the_oldest() {
    for bytes in [0, 64, 1000, 4096, 1 << 20] {
        assert!(Index::new(bytes).bytes() <= bytes.max(64), "{bytes}");
    }
    let index = Index::new(64 << 10);
    let digest = |prompt: u64| Digest::of_blocks(prompt, 0..20);
    let knows = |prompt: u64| {
        let mut known = 0;
        index.find(&digest(prompt), |_, blocks| known = known.max(blocks));
        known
    };
    // Ten times what there is room for.
    for prompt in 0..4096 {
        index.insert(&digest(prompt), 3);
    }
    let recent: u32 = (4096 - 100..4096).map(knows).sum();
    let old: u32 = (0..100).map(knows).sum();
    assert!(recent > 1900, "{recent} of 2000");
    assert!(old < 100, "{old} of 2000");
}

#[test]
fn several_that_know_parts_are_found_longest_first() {
    let index = Index::new(1 << 16);
    for (member, blocks) in [(1, 10), (2, 30), (3, 20)] {
        index.insert(&Digest::of_blocks(0, 0..blocks), member);
    }
    let mut found = Vec::new();
    index.find(&Digest::of_blocks(0, 0..40), |member, blocks| {
        found.push((member, blocks))
    });
    assert_eq!(found[0], (2, 30));
    assert!(
        found
            .iter()
            .any(|(member, blocks)| *member == 3 && *blocks <= 20),
        "{found:?}"
    );
    index.find(&Digest::of_blocks(9, 0..40), |_, _| {
        panic!("nobody knows it")
    });
}
