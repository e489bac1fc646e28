//! The doors on one port: health, OIP v2 REST, OpenAI's model list, metrics.

use e2e::repository::Builtin;
use e2e::{Kapok, Repository, Running};
use serde_json::{Value, json};

fn builtins() -> Repository {
    let batched = Builtin {
        dims: "3",
        max_batch: 8,
        ..Builtin::default()
    };
    let strings = Builtin {
        dtype: "BYTES",
        ..Builtin::default()
    };
    Repository::new()
        .builtin("identity", &Builtin::default())
        .builtin("batched", &batched)
        .builtin("strings", &strings)
}

fn serve(repository: &Repository) -> Running {
    Kapok::new().model_repo(repository.path()).start()
}

pub(crate) fn infer_body(shape: &[i64], data: &Value) -> Vec<u8> {
    let input = json!({"name": "INPUT0", "datatype": "FP32", "shape": shape, "data": data});
    json!({"inputs": [input]}).to_string().into_bytes()
}

#[test]
fn health_tells_clients_of_every_kind() {
    let repository = builtins();
    let kapok = serve(&repository);
    for (path, field) in [
        ("/v2/health/live", "live"),
        ("/v2/health/ready", "ready"),
        ("/v2/models/identity/ready", "ready"),
        ("/v2/models/identity/versions/1/ready", "ready"),
    ] {
        let answer = kapok.http().get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        // KServe's client reads the body, tritonclient only the status.
        assert_eq!(answer.json()[field], json!(true), "{path}");
    }
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(kapok.http().get(path).status, 200, "{path}");
    }
    assert_eq!(kapok.http().get("/v2/models/nope/ready").status, 404);
}

#[test]
fn metadata_describes_server_and_models() {
    let repository = builtins();
    let kapok = serve(&repository);
    let server = kapok.http().get("/v2").json();
    assert_eq!(server["name"], "kapok");
    let extensions = server["extensions"].as_array().expect("a list").clone();
    for extension in ["binary_tensor_data", "model_configuration"] {
        assert!(extensions.contains(&json!(extension)), "{extensions:?}");
    }
    let model = kapok.http().get("/v2/models/batched").json();
    assert_eq!(model["name"], "batched");
    assert_eq!(model["versions"], json!(["1"]));
    let input = json!({"name": "INPUT0", "datatype": "FP32", "shape": [-1, 3]});
    assert_eq!(model["inputs"], json!([input]));
    assert_eq!(model["outputs"][0]["name"], "OUTPUT0");
    let version = kapok.http().get("/v2/models/batched/versions/1").json();
    assert_eq!(version["name"], "batched");
}

#[test]
fn the_configuration_has_tritons_field_names() {
    let repository = builtins();
    let kapok = serve(&repository);
    let config = kapok.http().get("/v2/models/batched/config").json();
    assert_eq!(config["name"], "batched");
    assert_eq!(config["max_batch_size"], 8);
    assert_eq!(config["input"][0]["data_type"], "TYPE_FP32");
    assert_eq!(config["backend"], "identity");
}

#[test]
fn the_index_lists_every_model() {
    let repository = builtins();
    let kapok = serve(&repository);
    let index = kapok.http().post("/v2/repository/index", "{}").json();
    let names: Vec<_> = index
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| (entry["name"].clone(), entry["state"].clone()))
        .collect();
    let ready = |name: &str| (json!(name), json!("READY"));
    assert_eq!(
        names,
        [ready("batched"), ready("identity"), ready("strings")]
    );
    // tritonclient and people send no body at all.
    assert_eq!(kapok.http().post("/v2/repository/index", "").json(), index);
}

#[test]
fn json_in_json_out() {
    let repository = builtins();
    let kapok = serve(&repository);
    let body = infer_body(&[3], &json!([1.5, -2.0, 0.25]));
    let answer = kapok.http().post("/v2/models/identity/infer", body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.header("x-request-id").is_some());
    let answer = answer.json();
    assert_eq!(answer["model_name"], "identity");
    assert_eq!(answer["model_version"], "1");
    let output = &answer["outputs"][0];
    assert_eq!(output["name"], "OUTPUT0");
    assert_eq!(output["shape"], json!([3]));
    assert_eq!(output["data"], json!([1.5, -2.0, 0.25]));

    // Nested rows, an id, a named output.
    let input = json!({"name": "INPUT0", "datatype": "FP32", "shape": [2, 3],
        "data": [[1, 2, 3], [4, 5, 6]]});
    let body = json!({"id": "mine", "inputs": [input], "outputs": [{"name": "OUTPUT0"}]});
    let answer = kapok
        .http()
        .post("/v2/models/batched/versions/1/infer", body.to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["id"], "mine");
    assert_eq!(
        answer.json()["outputs"][0]["data"],
        json!([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    );

    let input = json!({"name": "INPUT0", "datatype": "BYTES", "shape": [2], "data": ["木棉", ""]});
    let body = json!({"inputs": [input]}).to_string();
    let answer = kapok.http().post("/v2/models/strings/infer", body);
    assert_eq!(answer.json()["outputs"][0]["data"], json!(["木棉", ""]));
}

#[test]
fn binary_in_binary_out() {
    let repository = builtins();
    let kapok = serve(&repository);
    let data: Vec<u8> = (0..1000_u16)
        .flat_map(|i| f32::from(i).to_le_bytes())
        .collect();
    let input = json!({"name": "INPUT0", "datatype": "FP32", "shape": [1000],
        "parameters": {"binary_data_size": data.len()}});
    let wanted = json!({"name": "OUTPUT0", "parameters": {"binary_data": true}});
    let head = json!({"inputs": [input], "outputs": [wanted]}).to_string();
    let mut body = head.clone().into_bytes();
    body.extend_from_slice(&data);
    let answer = kapok
        .http()
        .header("inference-header-content-length", &head.len().to_string())
        .header("content-type", "application/octet-stream")
        .post("/v2/models/identity/infer", body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let head_length: usize = answer
        .header("inference-header-content-length")
        .and_then(|length| length.parse().ok())
        .expect("a binary answer says where its JSON ends");
    let (head, tail) = answer.body.split_at(head_length);
    let head: Value = serde_json::from_slice(head).expect("JSON");
    assert_eq!(
        head["outputs"][0]["parameters"]["binary_data_size"],
        data.len()
    );
    assert_eq!(tail, data);
}

#[test]
fn openai_clients_see_the_same_models() {
    let repository = builtins();
    let kapok = serve(&repository);
    let list = kapok.http().get("/v1/models").json();
    assert_eq!(list["object"], "list");
    let ids: Vec<_> = list["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|model| model["id"].as_str().expect("a name").to_owned())
        .collect();
    assert!(ids.contains(&"identity".to_owned()), "{ids:?}");
    let one = kapok.http().get("/v1/models/identity").json();
    assert_eq!(one["id"], "identity");
    assert_eq!(one["object"], "model");
}

/// `name{label="value",…} number`, as Prometheus reads it.
fn parse_metrics(text: &str) -> Vec<(String, f64)> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.split('{').next().expect("a name");
            let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
            assert!(name.chars().all(valid), "{line}");
            assert_eq!(series.contains('{'), series.ends_with('}'), "{line}");
            let value = match value {
                "+Inf" => f64::INFINITY,
                number => number.parse().unwrap_or_else(|_| panic!("{line}")),
            };
            (series.to_owned(), value)
        })
        .collect()
}

#[test]
fn metrics_have_tritons_names_and_ours() {
    let repository = builtins();
    let kapok = serve(&repository);
    for _ in 0..3 {
        let body = infer_body(&[1], &json!([1]));
        assert_eq!(
            kapok.http().post("/v2/models/identity/infer", body).status,
            200
        );
    }
    let wrong = infer_body(&[2], &json!([1]));
    assert_eq!(
        kapok.http().post("/v2/models/identity/infer", wrong).status,
        400
    );
    for client in [kapok.http(), kapok.admin()] {
        let answer = client.get("/metrics");
        assert_eq!(answer.status, 200);
        let series = parse_metrics(&answer.text());
        let identity = |name: &str| {
            let found = series.iter().find(|(series, _)| {
                series.starts_with(&format!("{name}{{")) && series.contains("model=\"identity\"")
            });
            found
                .unwrap_or_else(|| panic!("no {name}:\n{}", answer.text()))
                .1
        };
        assert_eq!(identity("nv_inference_request_success"), 3.0);
        assert_eq!(identity("nv_inference_count"), 3.0);
        assert_eq!(identity("nv_inference_exec_count"), 3.0);
        assert!(identity("nv_inference_request_duration_us") > 0.0);
        let has = |part: &str| series.iter().any(|(series, _)| series.contains(part));
        assert!(has("kapok_"), "{}", answer.text());
        assert!(has("_bucket{"), "histograms are always on");
    }
}
