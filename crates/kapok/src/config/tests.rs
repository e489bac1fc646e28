use std::fs;
use std::net::SocketAddr;

use tempfile::TempDir;

use super::*;
use crate::cli::Switch;

/// A folder with a `kapok.yaml` of this text, and the flags that name it.
fn file(text: &str) -> (TempDir, UpArgs) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("kapok.yaml");
    fs::write(&path, text).expect("the folder is ours");
    let args = UpArgs {
        config: Some(path),
        ..UpArgs::default()
    };
    (folder, args)
}

fn variables(pairs: &[(&str, &str)]) -> Environment {
    Environment::of(
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

const NODE: &str = "\
apiVersion: kapok.dev/v1alpha1
kind: Node
metadata: {name: here}
spec:
  listen: 127.0.0.1:7001
  admin: 127.0.0.1:7002
  queueMax: 5
  modelRepositories: [models]
  otlp: {headers: {x-key: {env: LLM_KEY}}}
---
apiVersion: kapok.dev/v1alpha1
kind: Upstream
metadata: {name: llm}
spec:
  url: http://127.0.0.1:7003
  apiKey: {env: LLM_KEY}
  process:
    command: [llama-server]
    workingDir: work
";

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let (folder, mut args) = file(NODE);
    let key = ("LLM_KEY", "secret");
    let from_file = Config::load(&args, &variables(&[key])).expect("a good file");
    assert_eq!(from_file.node.listen, address("127.0.0.1:7001"));
    assert_eq!(from_file.node.admin, address("127.0.0.1:7002"));
    assert_eq!(from_file.node.queue_max, 5);
    assert_eq!(
        from_file.node.model_repositories,
        [folder.path().join("models")]
    );

    let environment = variables(&[
        key,
        ("KAPOK_LISTEN", "127.0.0.1:7011"),
        ("KAPOK_ADMIN", "127.0.0.1:7012"),
        ("KAPOK_MODEL_REPO", "/a:/b"),
    ]);
    let from_environment = Config::load(&args, &environment).expect("good variables");
    assert_eq!(from_environment.node.listen, address("127.0.0.1:7011"));
    assert_eq!(from_environment.node.admin, address("127.0.0.1:7012"));
    assert_eq!(from_environment.node.model_repositories.len(), 2);

    args.listen = Some(address("127.0.0.1:7021"));
    args.model_repo = vec!["/c".into()];
    args.set = vec![
        "node.admin=127.0.0.1:7032".to_owned(),
        "node.queueMax=9".to_owned(),
    ];
    let from_flags = Config::load(&args, &environment).expect("good flags");
    assert_eq!(from_flags.node.listen, address("127.0.0.1:7021"));
    assert_eq!(from_flags.node.admin, address("127.0.0.1:7032"));
    assert_eq!(from_flags.node.queue_max, 9);
    assert_eq!(from_flags.node.model_repositories, [PathBuf::from("/c")]);
}

#[test]
fn shorthands_are_the_same_resources_as_the_file() {
    let (folder, mut args) = file(
        "apiVersion: kapok.dev/v1alpha1\nkind: Node\nmetadata: {name: node}\nspec:\n  modelRepositories: [/models]\n  \
         listen: 127.0.0.1:7001\n---\napiVersion: kapok.dev/v1alpha1\nkind: Upstream\nmetadata: {name: a}\nspec: {url: \
         http://h:1}\n",
    );
    let environment = variables(&[]);
    let written = Config::load(&args, &environment).expect("a good file");
    let empty = folder.path().join("empty.yaml");
    fs::write(&empty, "").expect("the folder is ours");
    args = UpArgs {
        config: Some(empty),
        model_repo: vec!["/models".into()],
        listen: Some(address("127.0.0.1:7001")),
        upstream: vec!["a=http://h:1".to_owned()],
        ..UpArgs::default()
    };
    let short = Config::load(&args, &environment).expect("good flags");
    assert_eq!(short.resources, written.resources);
}

#[test]
fn a_shorthand_moves_an_upstream_and_keeps_the_rest_of_it() {
    let (folder, mut args) = file(NODE);
    args.upstream = vec!["llm=http://127.0.0.1:9".to_owned()];
    args.set = vec![
        "upstream.llm.process.startTimeoutMs=7".to_owned(),
        "upstream.llm.process.env.OMP_NUM_THREADS=\"1\"".to_owned(),
    ];
    let config = Config::load(&args, &variables(&[("LLM_KEY", "k")])).expect("good flags");
    let (name, upstream) = config.upstreams().next().expect("one upstream");
    let process = upstream.process.as_ref().expect("a process");
    assert_eq!((name, upstream.url.as_str()), ("llm", "http://127.0.0.1:9"));
    assert_eq!(process.start_timeout_ms, 7);
    assert_eq!(process.env["OMP_NUM_THREADS"], "1");
    assert_eq!(process.working_dir, Some(folder.path().join("work")));
    assert_eq!(
        upstream.api_key,
        Some(protocol::resource::Secret::Value("k".to_owned()))
    );
}

#[test]
fn tritons_ports_come_with_port_8000_and_can_be_switched() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let empty = folder.path().join("empty.yaml");
    fs::write(&empty, "").expect("the folder is ours");
    let aliases = |listen: &str, switch| {
        let args = UpArgs {
            config: Some(empty.clone()),
            listen: Some(address(listen)),
            triton_ports: switch,
            ..UpArgs::default()
        };
        let node = Config::load(&args, &variables(&[]))
            .expect("good flags")
            .node;
        (node.grpc_alias.address(), node.metrics_alias.address())
    };
    let both = (
        Some(address("127.0.0.1:8001")),
        Some(address("127.0.0.1:8002")),
    );
    assert_eq!(aliases("127.0.0.1:8000", None), both);
    assert_eq!(aliases("127.0.0.1:9000", None), (None, None));
    assert_eq!(aliases("127.0.0.1:9000", Some(Switch::On)), both);
    assert_eq!(aliases("127.0.0.1:8000", Some(Switch::Off)), (None, None));
}

#[test]
fn an_alias_that_is_null_stays_off_and_one_with_an_address_stays_there() {
    let (_folder, mut args) = file(
        "apiVersion: kapok.dev/v1alpha1\nkind: Node\nmetadata: {name: node}\nspec:\n  grpcAlias: null\n  metricsAlias: \
         127.0.0.1:7002\n",
    );
    let aliases = |args: &UpArgs| {
        let node = Config::load(args, &variables(&[]))
            .expect("a good file")
            .node;
        (node.grpc_alias.address(), node.metrics_alias.address())
    };
    let metrics = Some(address("127.0.0.1:7002"));
    assert_eq!(aliases(&args), (None, metrics));
    // A flag wins over the file, and `--set` over the flag.
    args.triton_ports = Some(Switch::On);
    assert_eq!(aliases(&args), (Some(address("127.0.0.1:8001")), metrics));
    args.set = vec!["node.metricsAlias=null".to_owned()];
    assert_eq!(aliases(&args), (Some(address("127.0.0.1:8001")), None));
    args.triton_ports = Some(Switch::Off);
    args.set = vec!["node.grpcAlias=127.0.0.1:7001".to_owned()];
    assert_eq!(aliases(&args), (Some(address("127.0.0.1:7001")), None));
}

#[test]
fn the_aliases_follow_the_public_address_wherever_it_was_set() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let empty = folder.path().join("empty.yaml");
    fs::write(&empty, "").expect("the folder is ours");
    let grpc = |listen: &str, setting: &str| {
        let args = UpArgs {
            config: Some(empty.clone()),
            listen: Some(address(listen)),
            set: vec![setting.to_owned()],
            ..UpArgs::default()
        };
        let node = Config::load(&args, &variables(&[]))
            .expect("good flags")
            .node;
        node.grpc_alias.address()
    };
    let moved_away = grpc("127.0.0.1:8000", "node.listen=127.0.0.1:9000");
    assert_eq!(moved_away, None);
    let moved_here = grpc("127.0.0.1:9000", "node.listen=127.0.0.2:8000");
    assert_eq!(moved_here, Some(address("127.0.0.2:8001")));
}

#[test]
fn the_admin_port_leaves_loopback_only_behind_a_key_for_everything() {
    let key = |rest: &str| {
        format!(
            "apiVersion: kapok.dev/v1alpha1\nkind: Key\nmetadata: {{name: k}}\nspec: {{sha256: \"{}\"{rest}}}\n",
            "ab".repeat(32)
        )
    };
    let (everything, some) = (key(""), key(", models: [m]"));
    for (text, admin, good) in [
        ("", "127.0.0.1:8080", true),
        ("", "[::1]:8080", true),
        ("", "0.0.0.0:8080", false),
        ("", "10.1.2.3:8080", false),
        (some.as_str(), "0.0.0.0:8080", false),
        (everything.as_str(), "0.0.0.0:8080", true),
    ] {
        let (_folder, mut args) = file(text);
        args.admin = Some(address(admin));
        let by_flag = Config::load(&args, &variables(&[]));
        args.admin = None;
        args.set = vec![format!("node.admin={admin}")];
        let by_set = Config::load(&args, &variables(&[]));
        for loaded in [by_flag, by_set] {
            match loaded {
                Ok(_) => assert!(good, "{admin} {text}"),
                Err(failure) => {
                    let said = failure.error.to_string();
                    assert!(!good, "{said}");
                    assert!(said.contains(admin), "{said}");
                    assert_eq!(failure.exit, crate::exit::Exit::Usage);
                    assert!(
                        failure
                            .hint
                            .expect("a hint")
                            .contains("--admin 127.0.0.1:8080")
                    );
                }
            }
        }
    }
}

#[test]
fn mistakes_are_usage_errors_that_say_what_to_do() {
    let (_folder, args) = file(NODE);
    let with = |change: fn(&mut UpArgs)| {
        let mut args = args.clone();
        change(&mut args);
        args
    };
    let key: &[(&str, &str)] = &[("LLM_KEY", "k")];
    for (args, variables_set, part) in [
        (args.clone(), &[][..], "LLM_KEY"),
        (
            args.clone(),
            &[("LLM_KEY", "k"), ("KAPOK_LISTEN", "8000")],
            "KAPOK_LISTEN",
        ),
        (
            with(|args| args.set = vec!["node.queuMax=1".into()]),
            key,
            "did you mean `queueMax`?",
        ),
        (
            with(|args| args.set = vec!["node.queueMax=x".into()]),
            key,
            "node.queueMax=x",
        ),
        (
            with(|args| args.set = vec!["upstream.vllm.url=x".into()]),
            key,
            "no upstream",
        ),
        (
            with(|args| args.set = vec!["queueMax=1".into()]),
            key,
            "neither",
        ),
        (
            with(|args| args.upstream = vec!["http://h".into()]),
            key,
            "NAME=URL",
        ),
        (
            with(|args| args.config = Some("/nowhere.yaml".into())),
            key,
            "/nowhere.yaml",
        ),
    ] {
        let failure = Config::load(&args, &variables(variables_set)).expect_err(part);
        let text = base::chain(failure.error.as_ref());
        assert!(text.contains(part), "{text}");
        assert_eq!(failure.exit, crate::exit::Exit::Usage, "{text}");
        assert!(failure.hint.is_some(), "{text}");
    }
}

#[test]
fn every_problem_of_a_file_is_told() {
    let (_folder, args) = file(
        "apiVersion: kapok.dev/v1alpha1\nkind: Node\nmetadata: {name: a}\nspec: {queuMax: 1}\n---\napiVersion: \
         kapok.dev/v1alpha1\nkind: Upstraem\nmetadata: {name: b}\nspec: {url: http://h}\n",
    );
    let failure = Config::load(&args, &variables(&[])).expect_err("two mistakes");
    let text = failure.error.to_string();
    for part in ["kapok.yaml:4", "queueMax", "Upstraem"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

/// What the page about the gateway shows is what works.
#[test]
fn examples_of_the_gateway_are_valid() {
    let page = include_str!("../../../../docs/gateway.md");
    let mut examples = 0;
    for block in page.split("```yaml\n").skip(1) {
        let text = block.split("```").next().unwrap_or_default();
        let read = parse_documents(text, "docs/gateway.md");
        assert!(read.is_ok_and(|resources| !resources.is_empty()), "{text}");
        examples += 1;
    }
    assert!(examples >= 4);
}

#[test]
fn a_reload_keeps_what_cannot_change_and_names_it() {
    let (folder, args) = file(NODE);
    let environment = variables(&[("LLM_KEY", "secret")]);
    let running = Config::load(&args, &environment).expect("a good file").node;
    let path = folder.path().join("kapok.yaml");
    let changed = NODE
        .replace("queueMax: 5", "queueMax: 6\n  drainTimeoutMs: 7")
        .replace("7001", "7009");
    fs::write(&path, changed).expect("ours");
    let (next, restart) = Config::reload(&args, &environment, &running).expect("a good file");
    assert_eq!(restart, ["listen", "queueMax"]);
    assert_eq!(next.node.drain_timeout_ms, 7);
    assert_eq!((next.node.queue_max, next.node.listen), (5, running.listen));
    let node = next
        .resources
        .iter()
        .find_map(|resource| match &resource.spec {
            Spec::Node(node) => Some(node),
            _ => None,
        });
    assert_eq!(node, Some(&next.node), "what is published is what runs");

    fs::write(&path, "# nothing\n").expect("ours");
    let empty = Config::reload(&args, &environment, &running).expect_err("nothing");
    assert!(
        empty.error.to_string().contains("no documents"),
        "{:?}",
        empty.error
    );

    // The admin port that is open is what must be guarded, whatever the file says of another.
    let open = NodeSpec {
        admin: address("0.0.0.0:8080"),
        ..running
    };
    fs::write(&path, NODE).expect("ours");
    let refused = Config::reload(&args, &environment, &open).expect_err("without a key");
    assert!(
        refused.error.to_string().contains("0.0.0.0:8080"),
        "{:?}",
        refused.error
    );
}
