//! Orders to the running server.

use protocol::resource::{KeySpec, ModelControl, Resource, Spec};

use super::Served;
use crate::Config;
use crate::snapshot::tests::resource;

/// The key `sesame`.
fn key(models: Option<&[&str]>) -> Resource {
    let spec = KeySpec {
        sha256: "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272".to_owned(),
        models: models.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
    };
    resource("team", Spec::Key(spec))
}

const LOAD: &str = "/v2/repository/models/echo/load";

#[tokio::test]
async fn models_are_loaded_and_unloaded_on_order() {
    let served = Served::start(&[]);
    for (path, body, status, part) in [
        (LOAD, "", 200, ""),
        (
            LOAD,
            r#"{"parameters": {"config": "{}", "file:1/m": "YQ=="}}"#,
            200,
            "",
        ),
        (
            LOAD,
            r#"{"parameters": {"config": "{}", "file:../m": "YQ=="}}"#,
            400,
            "must stay inside",
        ),
        (
            "/v2/repository/models/none/load",
            "",
            404,
            "'none' is not found",
        ),
        (
            "/v2/repository/mine/models/echo/load",
            "",
            501,
            "'repository_name' specification",
        ),
        ("/v2/repository/models/echo/unload", "", 200, ""),
        (
            "/v2/repository/models/echo/unload",
            r#"{"parameters": {"unload_dependents": true}}"#,
            200,
            "",
        ),
    ] {
        let got = served.post(path, body).await;
        assert_eq!(got.status, status, "{path} {body}: {}", got.text());
        assert!(got.text().contains(part), "{path} {body}: {}", got.text());
    }
    let wrong = served.get(LOAD).await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
}

#[tokio::test]
async fn who_may_load_depends_on_the_mode_the_port_and_the_key() {
    let polling = "explicit model load / unload is not allowed if polling is enabled";
    for (model_control, loopback, keyed, status, part) in [
        (ModelControl::Auto, true, false, 200, ""),
        (ModelControl::Auto, false, false, 403, "not loopback"),
        (ModelControl::Auto, false, true, 200, ""),
        (ModelControl::None, true, false, 503, polling),
        (ModelControl::Poll, true, true, 503, polling),
        (ModelControl::Explicit, false, false, 200, ""),
    ] {
        let config = Config {
            model_control,
            loopback,
            ..Config::default()
        };
        let keys = if keyed { vec![key(None)] } else { Vec::new() };
        let served = Served::with(config, &keys);
        let headers = if keyed {
            "authorization: Bearer sesame\r\n"
        } else {
            ""
        };
        let got = served.ask("POST", LOAD, headers, b"").await;
        assert_eq!(
            got.status,
            status,
            "{model_control:?} {loopback} {keyed}: {}",
            got.text()
        );
        assert!(got.text().contains(part), "{}", got.text());
    }
    let served = Served::start(&[key(Some(&["echo"]))]);
    let got = served
        .ask("POST", LOAD, "authorization: Bearer sesame\r\n", b"")
        .await;
    assert_eq!(got.status, 403, "{}", got.text());
}
