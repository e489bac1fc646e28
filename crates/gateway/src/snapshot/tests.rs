use std::sync::Arc;

use protocol::resource::{KeySpec, Metadata, NodeSpec, ProcessSpec, RouteTarget, Secret};

use super::*;

pub(crate) fn resource(name: &str, spec: Spec) -> Resource {
    Resource {
        metadata: Metadata {
            name: name.to_owned(),
            ..Metadata::default()
        },
        spec,
    }
}

/// An upstream from the fields a test cares about, as they would stand in the file.
pub(crate) fn upstream(name: &str, fields: serde_json::Value) -> Resource {
    let mut spec = serde_json::json!({"url": "http://127.0.0.1:9"});
    spec.as_object_mut()
        .expect("an object")
        .extend(fields.as_object().expect("an object").clone());
    let spec = serde_json::from_value(spec).expect("an upstream's fields");
    resource(name, Spec::Upstream(spec))
}

pub(crate) fn route(name: &str, models: &[&str], targets: &[(&str, u32)]) -> Resource {
    let spec = RouteSpec {
        models: models.iter().map(|model| (*model).to_owned()).collect(),
        targets: targets
            .iter()
            .map(|(upstream, weight)| RouteTarget {
                upstream: (*upstream).to_owned(),
                weight: *weight,
                model: None,
            })
            .collect(),
        ..RouteSpec::default()
    };
    resource(name, Spec::Route(spec))
}

fn any(name: &str) -> Resource {
    upstream(name, serde_json::json!({}))
}

fn key(name: &str, sha256: &str) -> Resource {
    let spec = KeySpec {
        sha256: sha256.to_owned(),
        models: None,
        ..KeySpec::default()
    };
    resource(name, Spec::Key(spec))
}

fn process() -> ProcessSpec {
    serde_json::from_value(serde_json::json!({"command": ["server"]})).expect("a process")
}

#[test]
fn what_cannot_be_routed_by_is_refused_with_its_name() {
    let digest = "ab".repeat(32);
    for (resources, expected) in [
        (vec![any("a"), any("a")], "Upstream `a`: there are two"),
        (vec![any("")], "Upstream ``: metadata.name is empty"),
        (vec![any("local")], "Upstream `local`: this name means"),
        (
            vec![upstream("a", serde_json::json!({"url": "localhost"}))],
            "Upstream `a`: url",
        ),
        (
            vec![upstream("a", serde_json::json!({"apiKey": {"env": "KEY"}}))],
            "Upstream `a`: apiKey was not looked up",
        ),
        (
            vec![any("gpu-one"), route("r", &["m"], &[("gpu-onw", 1)])],
            "Route `r`: no upstream is named `gpu-onw`; did you mean `gpu-one`?",
        ),
        (
            vec![route("r", &[], &[("local", 1)])],
            "Route `r`: models is empty",
        ),
        (vec![route("r", &["m"], &[])], "Route `r`: no target"),
        (
            vec![route("r", &["m"], &[("local", 0)])],
            "Route `r`: no target",
        ),
        (
            vec![route("r", &["a*b"], &[("local", 1)])],
            "Route `r`: `a*b`: a star",
        ),
        (
            vec![route("r", &["a**"], &[("local", 1)])],
            "Route `r`: `a**`: a star",
        ),
        (
            vec![
                route("r", &["m"], &[("local", 1)]),
                route("s", &["m"], &[("local", 1)]),
            ],
            "Route `s`: `m` is already routed",
        ),
        (
            vec![route("r", &["m*", "m*"], &[("local", 1)])],
            "Route `r`: `m*` is already routed",
        ),
        (vec![key("k", "short")], "Key `k`: sha256"),
        (
            vec![key("k", &digest), key("l", &digest)],
            "Key `l`: is the same key as `k`",
        ),
    ] {
        let error = Snapshot::build(&resources).expect_err(expected).to_string();
        assert!(
            error.starts_with(expected),
            "{error} should start with {expected}"
        );
    }
}

#[test]
fn a_route_may_stand_before_its_upstream() {
    let resources = [
        resource("node", Spec::Node(NodeSpec::default())),
        route(
            "r",
            &["long-name-*", "long-*", "exact"],
            &[("a", 1), ("local", 2)],
        ),
        any("a"),
    ];
    let snapshot = Snapshot::build(&resources).expect("a good set");
    let prefixes: Vec<_> = snapshot
        .wildcards
        .iter()
        .map(|(prefix, _)| prefix.as_str())
        .collect();
    assert_eq!(prefixes, ["long-name-", "long-"]);
    assert_eq!(snapshot.exact["exact"].plan.branches.len(), 2);
    assert_eq!(snapshot.catch_all.upstreams().count(), 1);
}

#[test]
fn what_is_alive_survives_as_long_as_the_server_is_the_same() {
    let build = |before: &Snapshot, fields| {
        before
            .successor(&[upstream("a", fields)])
            .expect("a good set")
    };
    let managed = serde_json::json!({"process": process()});
    let first = build(&Snapshot::default(), managed.clone());
    assert!(
        !first.upstreams["a"].ready(),
        "a process has to report first"
    );
    first.upstreams["a"]
        .live
        .set_readiness(crate::Readiness::Ready);

    let same = build(
        &first,
        serde_json::json!({"process": process(), "models": ["m"]}),
    );
    assert!(Arc::ptr_eq(
        &same.upstreams["a"].live,
        &first.upstreams["a"].live
    ));
    assert!(same.upstreams["a"].ready());
    assert_eq!(same.generation, first.generation + 1);

    let moved = build(
        &same,
        serde_json::json!({"process": process(), "url": "http://127.0.0.1:10"}),
    );
    assert!(!moved.upstreams["a"].ready());
    let unmanaged = build(&same, serde_json::json!({}));
    assert!(unmanaged.upstreams["a"].ready());
}

#[test]
fn a_secret_is_shown_nowhere() {
    let secret = Secret::Value("hunter2".to_owned());
    let resource = upstream("a", serde_json::json!({"apiKey": secret}));
    let snapshot = Snapshot::build(&[resource]).expect("a good set");
    let mut headers = http::HeaderMap::new();
    snapshot.upstreams["a"].authorize(&mut headers);
    let sent = &headers[http::header::AUTHORIZATION];
    assert!(sent.is_sensitive());
    let shown = format!("{headers:?} {:?}", snapshot.upstreams);
    assert!(!shown.contains("hunter2"), "{shown}");
}
