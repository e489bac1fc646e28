use std::collections::BTreeSet;

use http::Method;

use super::*;
use crate::doors::operation_of;

/// Where people read it. Written anew by `curl localhost:8000/openapi.json`, or from the file that a failure names.
#[test]
fn the_page_is_what_is_served() {
    let page = include_str!("../../../../docs/openapi.json");
    let version: Value = serde_json::from_str(page).expect("JSON");
    let version = version["info"]["version"].as_str().expect("a version");
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    let served = document(version);
    if page != served {
        let file = std::env::temp_dir().join("kapok-openapi.json");
        std::fs::write(&file, served).expect("a temporary file");
        panic!(
            "docs/openapi.json is not what is served, which is now in {}",
            file.display()
        );
    }
}

#[test]
fn every_route_leads_to_its_call_and_every_call_has_a_route() {
    let mut described = BTreeSet::new();
    for route in ROUTES {
        let path = route.path.replace("{version}", "1").replace(['{', '}'], "");
        let method: Method = route.method.to_uppercase().parse().expect("a method");
        assert_eq!(
            operation_of(&method, &path),
            Some(route.operation),
            "{} {}",
            route.method,
            route.path
        );
        described.insert(route.operation.name());
    }
    // `unknown` and `admin` are not on this port over REST; from `GrpcUnknown` on it is gRPC.
    let rest = Operation::GrpcUnknown as usize - 2;
    assert_eq!(
        described.len(),
        rest,
        "a call has no route in ROUTES: {described:?}"
    );
}

#[test]
fn what_is_referred_to_is_there() {
    let text = document("1");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let mut references = 0;
    for part in text.split("\"$ref\": \"#").skip(1) {
        let pointer = part.split('"').next().expect("a quote follows");
        assert!(document.pointer(pointer).is_some(), "{pointer}");
        references += 1;
    }
    assert!(references > 100, "{references}");
}
