//! Orders to the running server.

use protocol::resource::{KeySpec, ModelControl, Resource, SettingsControl, Spec};

use super::Served;
use super::client::Client;
use crate::Config;
use crate::snapshot::tests::resource;

/// The key `sesame`.
fn key(models: Option<&[&str]>) -> Resource {
    let spec = KeySpec {
        sha256: "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272".to_owned(),
        models: models.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        ..KeySpec::default()
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
            400,
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

#[tokio::test]
async fn trace_settings_are_shown_changed_and_refused() {
    let served = Served::start(&[]);
    for path in ["/v2/trace/setting", "/v2/models/echo/trace/setting"] {
        let got = served.get(path).await;
        assert_eq!(got.json()["trace_level"], serde_json::json!(["OFF"]));
        let got = served
            .post(path, r#"{"trace_rate": "5", "trace_count": 7}"#)
            .await;
        assert_eq!((got.status, &got.json()["trace_rate"]), (200, &"5".into()));
    }
    for (path, body, status, part) in [
        (
            "/v2/trace/setting",
            r#"{"trace_level": ["TIMESTAMPS"]}"#,
            400,
            "trace file name is not given",
        ),
        (
            "/v2/trace/setting",
            r#"{"trace_level": ["TENSORS"]}"#,
            501,
            "TENSORS",
        ),
        (
            "/v2/trace/setting",
            r#"{"trace_file": "/tmp/x"}"#,
            501,
            "can not be updated",
        ),
        (
            "/v2/models/none/trace/setting",
            "{}",
            400,
            "Request for unknown model : none",
        ),
    ] {
        let got = served.post(path, body).await;
        assert_eq!(got.status, status, "{path} {body}: {}", got.text());
        assert!(got.text().contains(part), "{}", got.text());
    }
}

#[tokio::test]
async fn log_settings_are_shown_and_changed_by_who_may() {
    let served = Served::start(&[]);
    let got = served.get("/v2/logging").await;
    assert_eq!(
        (&got.json()["log_info"], &got.json()["log_file"]),
        (&true.into(), &"".into())
    );
    let got = served
        .post(
            "/v2/logging",
            r#"{"log_verbose_level": 1, "log_info": false}"#,
        )
        .await;
    assert_eq!(
        (&got.json()["log_verbose_level"], &got.json()["log_info"]),
        (&1.into(), &false.into())
    );
    for (settings_control, loopback, status) in [
        (SettingsControl::Auto, false, 403),
        (SettingsControl::On, false, 200),
        (SettingsControl::Off, true, 403),
    ] {
        let config = Config {
            settings_control,
            loopback,
            ..Config::default()
        };
        let served = Served::with(config, &[]);
        for path in ["/v2/logging", "/v2/trace/setting"] {
            assert_eq!(served.get(path).await.status, 200);
            let got = served.post(path, "{}").await;
            assert_eq!(got.status, status, "{settings_control:?}: {}", got.text());
        }
    }
}

/// What a browser lets a page send to a server on its visitor's machine: no preflight, but an `Origin`.
#[tokio::test]
async fn a_web_page_gives_no_orders_without_a_key() {
    let page = "origin: https://example.org\r\ncontent-type: text/plain\r\n";
    let open = Served::start(&[]);
    for path in [
        LOAD,
        "/v2/repository/models/echo/unload",
        "/v2/logging",
        "/v2/systemsharedmemory/region/r/register",
        "/v2/systemsharedmemory/unregister",
    ] {
        let got = open.ask("POST", path, page, b"{}").await;
        assert_eq!(got.status, 403, "{path}: {}", got.text());
        assert!(got.text().contains("web page"), "{path}: {}", got.text());
    }
    // With a key the page must know it.
    let keyed = Served::start(&[key(None)]);
    let headers = format!("{page}authorization: Bearer sesame\r\n");
    let got = keyed.ask("POST", LOAD, &headers, b"{}").await;
    assert_eq!(got.status, 200, "{}", got.text());
}

#[tokio::test]
async fn a_key_for_some_models_has_no_say_in_shared_memory() {
    let served = Served::start(&[key(Some(&["echo"]))]);
    let headers = "authorization: Bearer sesame\r\n";
    for (method, path) in [
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/r/register"),
        ("POST", "/v2/systemsharedmemory/unregister"),
    ] {
        let got = served.ask(method, path, headers, b"{}").await;
        assert_eq!(got.status, 403, "{path}: {}", got.text());
    }
}

#[tokio::test]
async fn operators_roll_models_back_and_clients_do_not() {
    for (admin_loopback, keyed, model, bearer, status, part) in [
        (true, false, "echo", "", 200, "{}"),
        (true, false, "vectors", "", 409, "nothing served before"),
        (true, false, "none", "", 404, "'none' is not found"),
        (false, false, "echo", "", 403, "admin port is not loopback"),
        (false, true, "echo", "", 401, "key"),
        (
            false,
            true,
            "echo",
            "authorization: Bearer sesame\r\n",
            200,
            "{}",
        ),
    ] {
        let config = Config {
            admin_loopback,
            ..Config::default()
        };
        let resources: Vec<_> = keyed.then(|| key(None)).into_iter().collect();
        let served = Served::with(config, &resources);
        let path = format!("/admin/v1/models/{model}/rollback");
        let mut client = Client::connect(served.admin).await;
        let got = client.ask("POST", &path, bearer, b"").await;
        assert_eq!(got.status, status, "{model}: {}", got.text());
        assert!(got.text().contains(part), "{model}: {}", got.text());
        assert_eq!(served.post(&path, "").await.status, 404);
    }
}
