use super::*;

fn errors(text: &str) -> String {
    match parse_documents(text, "kapok.yaml") {
        Ok(_) => String::new(),
        Err(errors) => {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            errors.join("\n")
        }
    }
}

fn document(kind: &str, spec: &str) -> String {
    format!("apiVersion: kapok.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: llm}}\nspec:\n{spec}")
}

/// `spec` begins in line 5 of its document.
fn check(kind: &str, spec: &str, expected: &str) {
    assert_eq!(errors(&document(kind, spec)), expected, "{kind}\n{spec}");
}

#[test]
fn every_kind_is_read() {
    let text = r#"# laptop
apiVersion: kapok.dev/v1alpha1
kind: Node
metadata: {name: laptop, labels: {room: kitchen}}
spec: {modelRepositories: [./models], grpcAlias: 127.0.0.1:8001}
---
kind: Upstream
apiVersion: kapok.dev/v1alpha1
metadata:
  name: llm
spec:
  url: http://127.0.0.1:8101/prefix
  kind: vllm
  models: [a, b]
  apiKey: {env: KEY}
  process: {command: [vllm, serve]}
---
apiVersion: kapok.dev/v1alpha1
kind: Route
metadata: {name: canary}
spec:
  models: ["*"]
  targets: [{upstream: llm, weight: 0}, {upstream: local}]
---
apiVersion: kapok.dev/v1alpha1
kind: Key
metadata: {name: ci}
spec: {sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}
---
apiVersion: kapok.dev/v1alpha1
kind: Job
metadata: {name: train}
spec: {command: [python3, train.py]}
---
# nothing here
"#;
    let resources = parse_documents(text, "kapok.yaml").expect("legal");
    let kinds: Vec<_> = resources
        .iter()
        .map(|resource| resource.spec.kind())
        .collect();
    assert_eq!(kinds, Spec::KINDS);
    assert_eq!(resources[0].metadata.labels["room"], "kitchen");
    let Spec::Upstream(upstream) = &resources[1].spec else {
        panic!("the second is the upstream");
    };
    assert_eq!(upstream.kind, UpstreamKind::Vllm);
    assert_eq!(upstream.api_key, Some(Secret::Env("KEY".to_owned())));
    let json = serde_json::to_value(&resources[2]).expect("serialises");
    assert_eq!(json["apiVersion"], API_VERSION);
    assert_eq!(json["kind"], "Route");
    assert_eq!(json["spec"]["targets"][0]["weight"], 0);
}

#[test]
fn files_may_be_empty_marked_or_from_windows() {
    for text in [
        "",
        "# only\n",
        "---\n---\n...\n",
        "\u{feff}",
        "---",
        "%YAML 1.2\n---\n",
    ] {
        assert_eq!(
            parse_documents(text, "f").as_deref(),
            Ok(&[][..]),
            "{text:?}"
        );
    }
    let key = document("Route", "  models: [a]\n  targets: [{upstream: local}]\n");
    for text in [
        key.replace('\n', "\r\n"),
        format!("\u{feff}{key}"),
        format!("%YAML 1.2\n---\n{key}...\n"),
        format!("--- # first\n{key}\n---\r\n# second\n"),
        "--- {apiVersion: kapok.dev/v1alpha1, kind: Node, metadata: {name: n}, spec: {}}"
            .to_owned(),
    ] {
        let read = parse_documents(&text, "f").map(|resources| resources.len());
        assert_eq!(read, Ok(1), "{text:?}");
    }
}

#[test]
fn unknown_words_name_the_place_and_the_nearest_known_one() {
    check(
        "Upstream",
        "  url: http://h:1\n  modls: [a]\n",
        "kapok.yaml:6:3: unknown field `modls` in Upstream `llm`; did you mean `models`?",
    );
    check(
        "Upstream",
        "  url: http://h:1\n  process:\n    comand: [a]\n",
        "kapok.yaml:7:5: unknown field `comand` in Upstream `llm`; did you mean `command`?",
    );
    check(
        "Upstream",
        "  url: http://h:1\n  kind: openia\n",
        "kapok.yaml:6:9: unknown value `openia` in Upstream `llm`; did you mean `openai`?",
    );
    check(
        "Upstrem",
        "  {}\n",
        "kapok.yaml:2:7: unknown kind `Upstrem`; did you mean `Upstream`?",
    );
    check(
        "Banana",
        "  {}\n",
        "kapok.yaml:2:7: unknown kind `Banana`; known: `Node`, `Upstream`, `Route`, `Key`, `Job`",
    );
    assert_eq!(
        errors("apiVersion: v1\nkind: Node\n"),
        "kapok.yaml:1:13: unknown apiVersion `v1`; this build reads `kapok.dev/v1alpha1`"
    );
    assert_eq!(
        errors("apiVersion: kapok.dev/v1alpha1\nkind: Node\nmetdata: {name: n}\nspec: {}\n"),
        "kapok.yaml:3:1: unknown field `metdata` in Node; did you mean `metadata`?"
    );
}

#[test]
fn wrong_types_and_missing_fields_name_the_place() {
    let seconds = "  url: http://h:1\n  connectTimeoutMs: ";
    let number = "kapok.yaml:6:21: Upstream `llm`: `spec.connectTimeoutMs`: expected a whole number from 0 up";
    check("Upstream", &format!("{seconds}soon\n"), number);
    check("Upstream", &format!("{seconds}-1\n"), number);
    check(
        "Upstream",
        &format!("{seconds}99999999999999999999\n"),
        number,
    );
    check(
        "Upstream",
        "  url: [1]\n",
        "kapok.yaml:5:8: Upstream `llm`: `spec.url`: expected string scalar",
    );
    check(
        "Upstream",
        "  kind: vllm\n",
        "kapok.yaml:5:3: missing field `url` in Upstream `llm`",
    );
    check(
        "Node",
        "  listen: nowhere\n",
        "kapok.yaml:5:11: Node `llm`: `spec.listen`: invalid socket address syntax",
    );
    check(
        "Upstream",
        "  url: http://h:1\n  url: http://h:2\n",
        "kapok.yaml:6:3: field `url` is given twice",
    );
    for text in ["- a\n", "hello\n", "7\n"] {
        assert_eq!(
            errors(text),
            "kapok.yaml:1:1: a document is a mapping with `apiVersion`, `kind`, `metadata` and `spec`"
        );
    }
    assert_eq!(
        errors("apiVersion: x\n"),
        "kapok.yaml:1:1: the document has no `kind`; one of Node, Upstream, Route, Key, Job"
    );
}

#[test]
fn places_are_those_of_the_whole_file() {
    let good = document("Upstream", "  url: http://h:1\n");
    let bad = document("Upstream", "  url: http://h:1\n  modls: [a]\n");
    assert_eq!(
        errors(&format!("{good}---\n{bad}---\n{bad}")),
        "kapok.yaml:12:3: unknown field `modls` in Upstream `llm`; did you mean `models`?\n\
         kapok.yaml:19:3: unknown field `modls` in Upstream `llm`; did you mean `models`?"
    );
    assert_eq!(
        errors(&format!("{good}---\n{good}")),
        "kapok.yaml:9:18: Upstream `llm` is defined twice; the first is in line 3"
    );
    // The same name under another kind is another thing.
    let route = document("Route", "  models: [a]\n  targets: [{upstream: llm}]\n");
    assert_eq!(errors(&format!("{good}---\n{route}")), "");
    assert_eq!(
        errors(&format!("{good}---\n\"open\n---\n{bad}")),
        "kapok.yaml:7:1: unclosed quote\n\
         kapok.yaml:14:3: unknown field `modls` in Upstream `llm`; did you mean `models`?"
    );
}

#[test]
fn upstreams_must_make_sense() {
    for (url, message) in [
        ("ftp://h", "the URL must begin with `http://` or `https://`"),
        ("h:80", "the URL must begin with `http://` or `https://`"),
        ("not a url", "not a URL; write it as `http://host:port`"),
        ("http://", "not a URL; write it as `http://host:port`"),
        (
            "http://h:99999",
            "the port must be a number from 1 to 65535",
        ),
        ("http://h:0", "the port must be a number from 1 to 65535"),
        (
            "http://me:pw@h",
            "a URL with a password in it would be shown in logs; use `apiKey`",
        ),
        (
            "http://h/?a=b",
            "the URL takes a path but neither query nor fragment",
        ),
    ] {
        check(
            "Upstream",
            &format!("  url: {url}\n"),
            &format!("kapok.yaml:5:8: Upstream `llm`: `spec.url`: {message}"),
        );
    }
    for url in [
        "http://h",
        "https://h:1/v1",
        "http://[::1]:80",
        "http://10.0.0.1:65535/",
    ] {
        check("Upstream", &format!("  url: \"{url}\"\n"), "");
    }
    check(
        "Upstream",
        "  url: http://h\n  models: [ok, \"a*b\"]\n  process: {command: [], readyPath: health}\n",
        "kapok.yaml:6:16: Upstream `llm`: `spec.models.1`: a model of an upstream is an exact name; a `Route` takes prefixes\n\
         kapok.yaml:7:22: Upstream `llm`: `spec.process.command`: the program and its arguments, as a list\n\
         kapok.yaml:7:37: Upstream `llm`: `spec.process.readyPath`: a path begins with `/`",
    );
    let text = document("Upstream", "  url: http://h\n").replace("name: llm", "name: local");
    assert_eq!(
        errors(&text),
        "kapok.yaml:3:18: Upstream `local`: `metadata.name`: `local` means the models in this process; take another name"
    );
    for name in ["LLM", "-a", "a_b", "a b", "\"\"", &"a".repeat(64)] {
        let text = document("Upstream", "  url: http://h\n")
            .replace("name: llm", &format!("name: {name}"));
        assert!(errors(&text).contains("a name is 1 to 63 of"), "{name}");
    }
}

#[test]
fn routes_keys_and_nodes_must_make_sense() {
    check(
        "Route",
        "  models: []\n  targets: []\n",
        "kapok.yaml:5:11: Route `llm`: `spec.models`: name at least one model, or `*`\n\
         kapok.yaml:6:12: Route `llm`: `spec.targets`: name at least one target",
    );
    check(
        "Route",
        "  models: [a]\n  targets:\n    - {upstream: x, weight: 0}\n    - {upstream: x, weight: 0}\n",
        "kapok.yaml:7:5: Route `llm`: `spec.targets`: every weight is 0, so nothing would be answered\n\
         kapok.yaml:8:18: Route `llm`: `spec.targets.1.upstream`: `x` is named twice; add up the weights",
    );
    check(
        "Key",
        "  sha256: secret\n",
        "kapok.yaml:5:11: Key `llm`: `spec.sha256`: the key's SHA-256 as 64 hexadecimal digits, as `printf %s KEY | sha256sum` prints it",
    );
    check(
        "Node",
        "  admin: 127.0.0.1:8000\n  queueMax: 0\n",
        "kapok.yaml:5:10: Node `llm`: `spec.admin`: `127.0.0.1:8000` is taken by an address above\n\
         kapok.yaml:6:13: Node `llm`: `spec.queueMax`: must be at least 1",
    );
}

#[test]
fn limits_scopes_and_classes_must_make_sense() {
    let digest = "  sha256: ".to_owned() + &"ab".repeat(32) + "\n";
    for (kind, spec, expected) in [
        (
            "Key",
            format!("{digest}  limits: {{windowMs: 5, tokens: 0}}\n"),
            "kapok.yaml:6:22: Key `llm`: `spec.limits.windowMs`: from 100 to 86400000, which is a day\n\
             kapok.yaml:6:33: Key `llm`: `spec.limits.tokens`: must be at least 1",
        ),
        (
            "Key",
            format!("{digest}  scopes: []\n"),
            "kapok.yaml:6:11: Key `llm`: `spec.scopes`: name at least one; without `scopes` a key opens everything",
        ),
        (
            "Key",
            format!("{digest}  models: [a]\n  scopes: [inference, orders]\n"),
            "kapok.yaml:7:23: Key `llm`: `spec.scopes.1`: `orders` concerns every model; leave out `models`, or give another key for it",
        ),
        (
            "Route",
            "  models: [a]\n  targets: [{upstream: x}]\n  queue: {waitMs: 0}\n".to_owned(),
            "kapok.yaml:7:19: Route `llm`: `spec.queue.waitMs`: must be at least 1",
        ),
        (
            "Upstream",
            "  url: http://h\n  maxInFlight: 0\n".to_owned(),
            "kapok.yaml:6:16: Upstream `llm`: `spec.maxInFlight`: must be at least 1",
        ),
        (
            "Key",
            format!(
                "{digest}  scopes: [inference, metrics]\n  priority: bulk\n  limits: {{requests: 100}}\n"
            ),
            "",
        ),
    ] {
        check(kind, &spec, expected);
    }
}

#[test]
fn secrets_are_named_and_never_shown() {
    let shape = "a secret is one of `env: NAME`, `file: PATH` or, in tests, `value: …`";
    for (secret, column) in [
        ("sk-hidden", 11),
        ("{value: sk-hidden, env: A}", 11),
        ("{}", 11),
        ("12345678", 11),
    ] {
        check(
            "Upstream",
            &format!("  url: http://h\n  apiKey: {secret}\n"),
            &format!("kapok.yaml:6:{column}: Upstream `llm`: `spec.apiKey`: {shape}"),
        );
    }
    for secret in [
        "{vaule: sk-hidden}",
        "[sk-hidden]",
        "{value: [sk-hidden]}",
        "{value: \"sk hidden\"}",
        "{env: $sk-hidden}",
    ] {
        let found = errors(&document(
            "Upstream",
            &format!("  url: http://h\n  apiKey: {secret}\n"),
        ));
        assert!(!found.is_empty() && !found.contains("hidden"), "{found}");
    }
    let text = document(
        "Upstream",
        "  url: http://h\n  apiKey: {value: sk-hidden}\n",
    );
    let resources = parse_documents(&text, "f").expect("legal");
    let shown = format!(
        "{resources:?} {}",
        serde_json::to_string(&resources[0]).expect("serialises")
    );
    assert!(
        shown.contains("(redacted)") && !shown.contains("hidden"),
        "{shown}"
    );
}

#[test]
fn the_environment_of_a_process_is_read_back_and_not_logged() {
    let text = document(
        "Upstream",
        "  url: http://h\n  process: {command: [a], env: {HF_TOKEN: hf-hidden}}\n",
    );
    let resources = parse_documents(&text, "f").expect("legal");
    let shown = format!("{resources:?}");
    assert!(
        shown.contains("HF_TOKEN") && !shown.contains("hidden"),
        "{shown}"
    );
    let written = serde_json::to_string(&resources[0]).expect("serialises");
    assert_eq!(parse_documents(&written, "f"), Ok(resources));
}

#[test]
fn deep_and_self_multiplying_files_are_refused_early() {
    let deep = document("Node", &format!("  x: {}", "[".repeat(100_000)));
    assert!(!errors(&deep).is_empty());
    let deep: String = (0..5000)
        .map(|depth| format!("{}a:\n", " ".repeat(depth)))
        .collect();
    assert!(!errors(&deep).is_empty());
    let mut laughs = "a0: &a0 [x]\n".to_owned();
    for level in 1..12 {
        let before = vec![format!("*a{}", level - 1); 9].join(",");
        laughs += &format!("a{level}: &a{level} [{before}]\n");
    }
    assert!(
        errors(&laughs).contains("total_replayed_events"),
        "{}",
        errors(&laughs)
    );
}

#[test]
fn a_fallback_says_what_it_is_for() {
    let route = |fallback: &str| {
        format!("  models: [m]\n  targets: [{{upstream: a}}]\n  fallback: [{fallback}]\n")
    };
    for (fallback, path, expected) in [
        (
            "{upstream: b, for: []}",
            "spec.fallback.0.for",
            "say what it is asked for: `failure`, `contextLength` or both",
        ),
        (
            "{upstream: local, for: [contextLength]}",
            "spec.fallback.0.upstream",
            "what an upstream refused as too long cannot be answered by `local`; name an Upstream or a pool",
        ),
        (
            "{upstream: a, model: long, for: [contextLength]}",
            "spec.fallback.0.upstream",
            "no upstream sees a request twice, and `a` is a target; name another Upstream, perhaps with the same url",
        ),
    ] {
        let found = errors(&document("Route", &route(fallback)));
        assert!(
            found.contains(&format!("`{path}`: {expected}")),
            "{fallback}: {found}"
        );
    }
    for fallback in [
        "{upstream: b, for: [failure, contextLength]}",
        "{upstream: a}",
    ] {
        assert_eq!(
            errors(&document("Route", &route(fallback))),
            "",
            "{fallback}"
        );
    }
}

#[test]
fn an_etcd_is_asked_as_it_wants_to_be() {
    let errors_of = |etcd: &str| {
        let spec = format!("  url: http://llm\n  discovery:\n    etcd: {etcd}\n");
        errors(&document("Upstream", &spec))
    };
    for (etcd, expected) in [
        (
            "{endpoints: [\"http://a:1\"], tls: {caFile: ca.pem}}",
            "`spec.discovery.etcd.endpoints.0`: `tls` is for `https` endpoints",
        ),
        (
            "{endpoints: [\"https://a:1\"], tls: {certFile: a.pem}}",
            "`spec.discovery.etcd.tls`: a certificate needs its key: name both `certFile` and `keyFile`",
        ),
        (
            "{endpoints: [\"https://a:1\"], user: kapok}",
            "`spec.discovery.etcd.user`: name both `user` and `password`",
        ),
        (
            "{endpoints: [\"https://a:1\"], user: kapok, password: sesame}",
            "a secret is one of `env: NAME`, `file: PATH`",
        ),
    ] {
        let found = errors_of(etcd);
        assert!(found.contains(expected), "{etcd}: {found}");
    }
    for etcd in [
        "{endpoints: [\"https://a:1\", \"https://b:1\"]}",
        "{endpoints: [\"https://a:1\"], tls: {caFile: a, certFile: b, keyFile: c}, user: u, password: {env: P}}",
    ] {
        assert_eq!(errors_of(etcd), "", "{etcd}");
    }
}
