use serde_json::json;

use super::*;
use crate::snapshot::tests::{route, upstream};

struct Given<'a> {
    turn: u64,
    down: &'a [&'a str],
}

impl Now for Given<'_> {
    fn turn(&self, _: &Turns) -> u64 {
        self.turn
    }

    fn load(&self, _: &Upstream) -> Load {
        Load::default()
    }

    fn now_ms(&self) -> u32 {
        0
    }

    fn sound(&self, _: &Upstream) -> bool {
        true
    }

    fn ready(&self, upstream: &Upstream) -> bool {
        !self.down.contains(&&*upstream.name)
    }
}

fn snapshot() -> Snapshot {
    Snapshot::build(&[
        upstream("a", json!({"models": ["listed", "both", "shared"]})),
        upstream("b", json!({"models": ["shared"]})),
        upstream("any", json!({})),
        upstream(
            "triton",
            json!({"kind": "triton", "models": ["listed", "detector"]}),
        ),
        route("exact", &["chat"], &[("a", 1)]),
        route("wide", &["ch*"], &[("b", 1)]),
        route("wider", &["c*"], &[("any", 1)]),
        route("canary", &["canary"], &[("a", 3), ("b", 1)]),
        route("here", &["here"], &[("local", 1)]),
        route("here-or-there", &["mixed"], &[("local", 1), ("a", 1)]),
        route("never", &["never"], &[("a", 0), ("b", 1)]),
    ])
    .expect("a good set")
}

fn describe(picked: Result<Pick, NoRoute>) -> String {
    match picked {
        Ok(pick) => format!("{}: {}", pick.decision.chosen, pick.decision),
        Err(NoRoute::UnknownModel { nearest: None }) => "unknown".to_owned(),
        Err(NoRoute::UnknownModel {
            nearest: Some(name),
        }) => format!("unknown, perhaps {name}"),
        Err(NoRoute::NotReady(names)) => {
            let names: Vec<_> = names.into_iter().map(|(name, _)| name).collect();
            format!("not ready: {}", names.join(" "))
        }
    }
}

/// Model, wire, what is here, what is down, and who is picked and why.
type Case = (
    &'static str,
    Wire,
    Local,
    &'static [&'static str],
    &'static str,
);

fn check(cases: &[Case]) {
    let snapshot = snapshot();
    for (model, wire, local, down, expected) in cases {
        let facts = RequestFacts {
            model,
            wire: *wire,
            local: *local,
            hints: &Hints::default(),
            longer: false,
            tried: &[],
            keeper: None,
        };
        let found = describe(pick(&snapshot, &facts, &Given { turn: 0, down }));
        assert_eq!(
            found, *expected,
            "{model} over {wire:?}, {local:?} here, down {down:?}"
        );
    }
}

use Local::{Absent, NotReady, Ready};
use Wire::{Oip, OpenAi};

#[rustfmt::skip]
#[test]
fn the_most_specific_claim_wins_and_says_why() {
    check(&[
        ("chat", OpenAi, Ready, &[], "a: route `exact` sends it to `a`"),
        ("chart", OpenAi, Absent, &[], "b: route `wide` sends it to `b`"),
        ("cold", OpenAi, Absent, &[], "any: route `wider` sends it to `any`"),
        ("both", OpenAi, Ready, &[], "local: the model is in this process"),
        ("both", OpenAi, Absent, &[], "a: upstream `a` lists the model"),
        ("else", OpenAi, Absent, &[], "any: nobody lists the model, and upstream `any` takes any"),
        ("here", Oip, Ready, &[], "local: route `here` sends it to `local`"),
        ("here", Oip, NotReady, &[], "local: route `here` sends it to `local`"),
        ("here", Oip, Absent, &[], "local: route `here` sends it to `local`"),
    ]);
}

/// A route is kept to, and a model that somebody lists is not asked of a catch-all.
#[rustfmt::skip]
#[test]
fn a_target_that_is_down_is_passed_over_within_its_claim() {
    check(&[
        ("both", OpenAi, NotReady, &[], "a: the model here is not ready, and upstream `a` lists it"),
        ("both", OpenAi, NotReady, &["a"], "local: the model is in this process, though not ready"),
        ("both", OpenAi, Absent, &["a"], "not ready: a"),
        ("chat", OpenAi, Ready, &["a"], "not ready: a"),
        ("shared", OpenAi, Absent, &["a"], "b: upstream `b` lists the model; the only one that can be used"),
        ("shared", OpenAi, Absent, &["a", "b"], "not ready: a b"),
        ("else", OpenAi, Absent, &["any"], "not ready: any"),
        ("mixed", OpenAi, Absent, &["a"], "not ready: a"),
        ("never", OpenAi, Absent, &["b"], "not ready: b"),
    ]);
}

/// An OpenAI server is not asked for OIP, nor Triton for OpenAI.
#[rustfmt::skip]
#[test]
fn only_upstreams_that_speak_the_protocol_are_asked() {
    check(&[
        ("detector", Oip, Absent, &[], "triton: upstream `triton` lists the model"),
        ("listed", Oip, Absent, &[], "triton: upstream `triton` lists the model; the only one that can be used"),
        ("listed", OpenAi, Absent, &[], "a: upstream `a` lists the model; the only one that can be used"),
        ("detector", OpenAi, Absent, &[], "any: nobody lists the model, and upstream `any` takes any"),
        ("else", Oip, Absent, &[], "unknown"),
        ("lised", Oip, Absent, &[], "unknown, perhaps listed"),
    ]);
}

fn shares(model: &str, local: Local, down: &[&str], turns: u64) -> Vec<(String, usize)> {
    let snapshot = snapshot();
    let mut counts = std::collections::BTreeMap::new();
    for turn in 0..turns {
        let facts = RequestFacts {
            model,
            wire: Wire::OpenAi,
            local,
            hints: &Hints::default(),
            longer: false,
            tried: &[],
            keeper: None,
        };
        let pick = pick(&snapshot, &facts, &Given { turn, down }).expect("somebody");
        *counts.entry(pick.decision.chosen.to_string()).or_default() += 1;
    }
    counts.into_iter().collect()
}

#[test]
fn weights_are_exact_over_a_cycle_and_the_down_give_theirs_away() {
    let count = |name: &str, count| (name.to_owned(), count);
    assert_eq!(
        shares("canary", Local::Absent, &[], 4),
        [count("a", 3), count("b", 1)]
    );
    assert_eq!(
        shares("canary", Local::Absent, &[], 4000),
        [count("a", 3000), count("b", 1000)]
    );
    assert_eq!(shares("canary", Local::Absent, &["a"], 4), [count("b", 4)]);
    assert_eq!(
        shares("mixed", Local::Ready, &[], 10),
        [count("a", 5), count("local", 5)]
    );
    assert_eq!(shares("mixed", Local::NotReady, &[], 10), [count("a", 10)]);
    assert_eq!(shares("never", Local::Absent, &[], 10), [count("b", 10)]);
}

mod pools;
