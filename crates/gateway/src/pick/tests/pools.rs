//! Pools, colours, regions, fallback, and attempts after the first.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use protocol::resource::{NodeSpec, Resource, Spec};
use routing::Load;
use serde_json::json;

use super::*;
use crate::snapshot::tests::{resource, upstream};

/// Who is down, and how many requests are where.
#[derive(Default)]
struct World {
    down: Vec<&'static str>,
    in_flight: BTreeMap<&'static str, u32>,
}

impl Now for World {
    fn turn(&self, turns: &Turns) -> u64 {
        turns.next()
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

    fn load(&self, upstream: &Upstream) -> Load {
        Load {
            in_flight: self.in_flight.get(&*upstream.name).copied().unwrap_or(0),
            ..Load::default()
        }
    }
}

fn route(fields: serde_json::Value) -> Resource {
    let mut spec = json!({"models": ["m"]});
    let spec_fields = spec.as_object_mut().expect("an object");
    spec_fields.extend(fields.as_object().expect("an object").clone());
    let spec = serde_json::from_value(spec).expect("a route's fields");
    resource("r", Spec::Route(spec))
}

fn build(resources: Vec<Resource>) -> Snapshot {
    Snapshot::build(&resources).expect("a good set")
}

fn said(snapshot: &Snapshot, headers: &[(&'static str, &'static str)]) -> Hints {
    let named = headers.iter().map(|(name, value)| {
        let value = HeaderValue::from_static(value);
        (HeaderName::from_static(name), value)
    });
    Hints::read(snapshot, &HeaderMap::from_iter(named))
}

fn ask(snapshot: &Snapshot, hints: &Hints, tried: &[Arc<Upstream>], world: &World) -> String {
    let facts = RequestFacts {
        model: "m",
        wire: Wire::OpenAi,
        local: Local::Absent,
        hints,
        longer: false,
        tried,
        keeper: None,
    };
    describe(pick(snapshot, &facts, world))
}

/// How often each was chosen.
fn counted(snapshot: &Snapshot, hints: &Hints, world: &World) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for _ in 0..1000 {
        let name = ask(snapshot, hints, &[], world);
        let name = name.split(": ").next().unwrap_or_default();
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    counts
}

fn names(counts: &BTreeMap<String, u32>) -> Vec<&str> {
    counts.keys().map(String::as_str).collect()
}

#[test]
fn a_canary_pool_gets_its_weight_whatever_its_size() {
    let member = |name, pool| upstream(name, json!({"pool": pool}));
    let snapshot = build(vec![
        member("a1", "stable"),
        member("a2", "stable"),
        member("a3", "stable"),
        member("b1", "canary"),
        route(json!({"targets": [
            {"upstream": "stable", "weight": 95},
            {"upstream": "canary", "weight": 5, "model": "m-new"},
        ]})),
    ]);
    let mut world = World::default();
    let counts = counted(&snapshot, &Hints::default(), &world);
    assert_eq!(counts["b1"], 50, "{counts:?}");
    assert!(
        counts["a1"] > 200 && counts["a2"] > 200 && counts["a3"] > 200,
        "{counts:?}"
    );

    world.down = vec!["a1", "a2", "a3"];
    let facts = RequestFacts {
        model: "m",
        wire: Wire::OpenAi,
        local: Local::Absent,
        hints: &Hints::default(),
        longer: false,
        tried: &[],
        keeper: None,
    };
    let pick = pick(&snapshot, &facts, &world).expect("the canary");
    assert_eq!(pick.model.as_deref(), Some("m-new"));
    let reason = pick.decision.to_string();
    let expected = "route `r`: `canary` had its turn among 2 targets and sends it to `b1`";
    assert_eq!(reason, expected);
}

#[test]
fn a_pool_takes_turns_if_told_to() {
    let member = |name| upstream(name, json!({"pool": "p"}));
    let snapshot = build(vec![
        member("a"),
        member("b"),
        member("c"),
        route(json!({"targets": [{"upstream": "p"}], "policy": "roundRobin"})),
    ]);
    let mut world = World::default();
    let in_turn = |world: &World| -> Vec<String> {
        let asked = (0..3).map(|_| ask(&snapshot, &Hints::default(), &[], world));
        asked.collect()
    };
    let mut met = in_turn(&world);
    assert_eq!(met, in_turn(&world), "the order is always the same");
    met.sort();
    let expected = ["a", "b", "c"]
        .map(|name| format!("{name}: route `r` sends it to `{name}`; round robin: its turn"));
    assert_eq!(met, expected);
    world.down = vec!["b"];
    let passed = "c: route `r` sends it to `c`; round robin: its turn: `b` cannot be used, `c`";
    assert!(in_turn(&world).iter().any(|answer| answer == passed));
}

#[test]
fn each_attempt_meets_somebody_else_then_the_fallback_chain() {
    let snapshot = build(vec![
        upstream("a", json!({"pool": "p"})),
        upstream("b", json!({"pool": "p"})),
        upstream("small", json!({})),
        upstream("last", json!({})),
        route(json!({
            "targets": [{"upstream": "p"}],
            "fallback": [{"upstream": "small", "model": "m-small"}, {"upstream": "last"}],
        })),
    ]);
    let world = World::default();
    let mut tried = Vec::new();
    let mut met = Vec::new();
    let hints = Hints::default();
    loop {
        let facts = RequestFacts {
            model: "m",
            wire: Wire::OpenAi,
            local: Local::Absent,
            hints: &hints,
            longer: false,
            tried: &tried,
            keeper: None,
        };
        match pick(&snapshot, &facts, &world) {
            Ok(Pick {
                target: Target::Upstream(upstream),
                model,
                ..
            }) => {
                met.push((
                    upstream.name.to_string(),
                    model.map(|model| model.to_string()),
                ));
                tried.push(upstream);
            }
            Ok(pick) => panic!("{pick:?}"),
            Err(refused) => {
                assert_eq!(refused, NoRoute::NotReady(Vec::new()));
                break;
            }
        }
    }
    met[..2].sort();
    let met: Vec<(&str, Option<&str>)> = met
        .iter()
        .map(|(name, model)| (name.as_str(), model.as_deref()))
        .collect();
    assert_eq!(
        met,
        [
            ("a", None),
            ("b", None),
            ("small", Some("m-small")),
            ("last", None)
        ]
    );
    let reason = ask(&snapshot, &hints, &tried[..2], &world);
    assert_eq!(
        reason,
        "small: route `r`: no target can answer, and fallback 1 is `small`"
    );
}

#[test]
fn a_colour_stays_among_its_own_on_every_attempt() {
    let fields = |colour| json!({"pool": "p", "colour": colour});
    let snapshot = |strict| {
        build(vec![
            upstream("plain", json!({"pool": "p"})),
            upstream("blue-1", fields("blue")),
            upstream("blue-2", fields("blue")),
            upstream("green", fields("green")),
            route(json!({"targets": [{"upstream": "p"}], "colour": {"strict": strict}})),
        ])
    };
    let open = snapshot(false);
    let mut world = World::default();
    let blue = said(&open, &[("x-kapok-colour", "blue")]);
    assert_eq!(names(&counted(&open, &blue, &world)), ["blue-1", "blue-2"]);
    assert_eq!(names(&counted(&open, &Hints::default(), &world)), ["plain"]);

    let tried = [Arc::clone(&open.upstreams["blue-1"])];
    let again = ask(&open, &blue, &tried, &world);
    assert!(
        again.starts_with("blue-2: route `r` sends it to `blue-2`; of colour `blue`"),
        "{again}"
    );
    let red = said(&open, &[("x-kapok-colour", "red")]);
    let red = ask(&open, &red, &[], &world);
    assert_eq!(
        red,
        "plain: route `r` sends it to `plain`; nobody of colour `red` can be used"
    );

    world.down = vec!["blue-1", "blue-2"];
    assert_eq!(names(&counted(&open, &blue, &world)), ["plain"]);
    let strict = snapshot(true);
    let refused = ask(&strict, &blue, &[], &world);
    assert!(refused.starts_with("not ready: "), "{refused}");
}

#[test]
fn the_own_region_is_left_only_when_it_is_full() {
    let node = NodeSpec {
        region: Some("eu".to_owned()),
        ..NodeSpec::default()
    };
    let member = |name, region| upstream(name, json!({"pool": "p", "region": region}));
    let snapshot = build(vec![
        member("eu-1", "eu"),
        member("eu-2", "eu"),
        member("us-1", "us"),
        member("us-2", "us"),
        route(json!({"targets": [{"upstream": "p"}], "region": {"spillDepth": 8}})),
        resource("node", Spec::Node(node)),
    ]);
    let hints = Hints::default();
    let mut world = World {
        in_flight: BTreeMap::from([("eu-1", 7), ("eu-2", 50)]),
        ..World::default()
    };
    assert_eq!(names(&counted(&snapshot, &hints, &world)), ["eu-1"]);
    world.in_flight = BTreeMap::from([("eu-1", 8), ("eu-2", 50)]);
    assert_eq!(names(&counted(&snapshot, &hints, &world)), ["us-1", "us-2"]);
    let reason = ask(&snapshot, &hints, &[], &world);
    assert!(
        reason.contains("its own region has 8 requests at its best"),
        "{reason}"
    );
    world.in_flight = BTreeMap::from([("eu-1", 8), ("eu-2", 8), ("us-1", 9), ("us-2", 9)]);
    let full = counted(&snapshot, &hints, &world);
    assert_eq!(names(&full), ["eu-1", "eu-2"], "nobody elsewhere has less");
    world.down = vec!["eu-1", "eu-2"];
    assert_eq!(names(&counted(&snapshot, &hints, &world)), ["us-1", "us-2"]);
}

#[test]
fn a_request_stays_in_the_region_that_it_names() {
    let member = |name, region| upstream(name, json!({"pool": "p", "region": region}));
    let pool = || {
        let mut resources = vec![
            member("eu-1", "eu"),
            member("us-1", "us"),
            member("us-2", "us"),
            upstream("any", json!({"pool": "p"})),
        ];
        resources.push(route(json!({"targets": [{"upstream": "p"}]})));
        resources
    };
    let node = NodeSpec {
        region: Some("eu".to_owned()),
        ..NodeSpec::default()
    };
    let mut placed = pool();
    placed.push(resource("node", Spec::Node(node)));
    let (placed, nowhere) = (build(placed), build(pool()));
    let everybody = vec!["any", "eu-1", "us-1", "us-2"];
    let cases = [
        (&placed, None, vec!["any", "eu-1"]),
        (&placed, Some("us"), vec!["any", "us-1", "us-2"]),
        (&placed, Some("eu"), vec!["any", "eu-1"]),
        (&placed, Some("mars"), vec!["any", "eu-1"]),
        (&nowhere, Some("us"), vec!["any", "us-1", "us-2"]),
        (&nowhere, Some("mars"), everybody.clone()),
        (&nowhere, None, everybody),
    ];
    for (snapshot, region, expected) in cases {
        let headers: Vec<_> = region
            .map(|at| ("x-kapok-region", at))
            .into_iter()
            .collect();
        let hints = said(snapshot, &headers);
        let world = World::default();
        assert_eq!(
            names(&counted(snapshot, &hints, &world)),
            expected,
            "{region:?}"
        );
    }
    let hints = said(&placed, &[("x-kapok-region", "us")]);
    let world = World {
        in_flight: BTreeMap::from([("any", 50), ("us-1", 16), ("us-2", 16)]),
        ..World::default()
    };
    assert_eq!(
        names(&counted(&placed, &hints, &world)),
        ["eu-1"],
        "it is full"
    );
}

#[test]
fn what_a_route_names_must_be_one_thing() {
    let target = json!({"targets": [{"upstream": "pol"}]});
    for (resources, expected) in [
        (
            vec![upstream("a", json!({"pool": "pool"})), route(target)],
            "Route `r`: no upstream is named `pol`; did you mean `pool`?",
        ),
        (
            vec![
                upstream("a", json!({"pool": "b"})),
                upstream("b", json!({})),
            ],
            "Upstream `a`: pool `b` has the name of an upstream",
        ),
    ] {
        let error = Snapshot::build(&resources).expect_err(expected).to_string();
        assert_eq!(error, expected);
    }
}

/// What a request of this body and these headers is sent to.
fn sent(snapshot: &Snapshot, headers: &[(&'static str, &'static str)], body: &str) -> String {
    let mut hints = said(snapshot, headers);
    let facts = protocol::openai::scan(body.as_bytes()).expect("a body");
    let group = snapshot.route("m").expect("a route");
    hints.complete(&group.plan.rules, Some(&facts));
    let answer = ask(snapshot, &hints, &[], &World::default());
    let name = answer.split(": ").next().unwrap_or_default();
    name.to_owned()
}

fn pool_of_eight(route_fields: serde_json::Value) -> Snapshot {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut resources: Vec<Resource> = names
        .iter()
        .map(|name| upstream(name, json!({"pool": "p"})))
        .collect();
    resources.push(route(route_fields));
    build(resources)
}

#[test]
fn a_session_stays_where_it_is_whatever_names_it() {
    let by_default = json!({"targets": [{"upstream": "p"}], "policy": "affinity"});
    let snapshot = pool_of_eight(by_default);
    let plain = r#"{"model": "m"}"#;
    for (headers, body) in [
        (&[("x-session-id", "s-1")][..], plain),
        (&[], r#"{"model": "m", "user": "s-1"}"#),
        (
            &[],
            r#"{"model": "m", "user": "other", "prompt_cache_key": "s-1"}"#,
        ),
    ] {
        let homes: Vec<String> = (0..20).map(|_| sent(&snapshot, headers, body)).collect();
        let expected = sent(&snapshot, &[("x-session-id", "s-1")], plain);
        assert!(
            homes.iter().all(|home| *home == expected),
            "{body}: {homes:?}"
        );
    }
    let mut homes: Vec<String> = (0..50).map(|_| sent(&snapshot, &[], plain)).collect();
    homes.sort();
    homes.dedup();
    assert!(homes.len() > 4, "nobody's requests are spread: {homes:?}");
}

#[test]
fn a_conversation_goes_back_to_the_cache_that_knows_it() {
    let by_prefix = json!({"targets": [{"upstream": "p"}], "policy": "prefix"});
    let snapshot = pool_of_eight(by_prefix);
    let turn = |who: &str, turns: usize| {
        let said = format!("{who} says something. ").repeat(40);
        let messages: Vec<_> = (0..turns)
            .map(|turn| json!({"role": "user", "content": format!("{turn}: {said}")}))
            .collect();
        json!({"model": "m", "stream": true, "messages": messages}).to_string()
    };
    for who in ["ann", "bob", "cleo"] {
        let home = sent(&snapshot, &[], &turn(who, 2));
        for turns in 3..8 {
            assert_eq!(
                sent(&snapshot, &[], &turn(who, turns)),
                home,
                "{who}, turn {turns}"
            );
        }
    }
}

/// A change of configuration keeps what is known of prompts.
#[test]
fn what_is_known_of_prompts_survives_a_change() {
    let resources = |weight: u32| {
        let mut all: Vec<Resource> = ["a", "b", "c", "d", "e", "f", "g", "h"]
            .iter()
            .map(|name| upstream(name, json!({"pool": "p"})))
            .collect();
        let fields = json!({"targets": [{"upstream": "p", "weight": weight}], "policy": "prefix"});
        all.push(route(fields));
        all
    };
    let content = "a long system prompt ".repeat(100);
    let body = json!({"model": "m", "messages": [{"role": "system", "content": content}]});
    let mut snapshot = build(resources(1));
    let home = sent(&snapshot, &[], &body.to_string());
    for weight in 2..10 {
        snapshot = snapshot.successor(&resources(weight)).expect("a good set");
        assert_eq!(sent(&snapshot, &[], &body.to_string()), home);
    }
}
