//! Servers that come and go: in a file, in DNS, in etcd.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use e2e::{Answer, Client, FakeUpstream, Kapok, Running, repository, wait};
use serde_json::{Value, json};

fn document(kind: &str, name: &str, spec: &Value) -> String {
    format!(
        "---\napiVersion: kapok.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

/// A template for model `m`, whose servers are learned so.
fn template(fields: &Value) -> String {
    let mut spec = json!({"url": "http://llm.test:8000", "models": ["m"]});
    let all = spec.as_object_mut().expect("an object");
    all.extend(fields.as_object().expect("an object").clone());
    document("Upstream", "pool", &spec)
}

fn pool(kapok: &Running) -> Value {
    kapok.admin().get("/admin/v1/config").json()["pools"][0].clone()
}

fn wait_for_servers(kapok: &Running, count: usize) {
    wait::until(&format!("{count} servers"), || {
        let pool = pool(kapok);
        (pool["servers"] == count && pool["error"] == Value::Null).then_some(())
    });
}

fn wait_for_error(kapok: &Running, part: &str) {
    wait::until(part, || {
        pool(kapok)["error"].as_str()?.contains(part).then_some(())
    });
}

fn ask(kapok: &Running) -> (u16, String) {
    let answer = kapok
        .http()
        .post("/v1/chat/completions", r#"{"model":"m"}"#);
    (answer.status, answer.text())
}

#[test]
fn servers_of_a_file_are_followed_and_a_mistake_keeps_the_last() {
    let (a, b) = (
        FakeUpstream::start(Answer::json("\"a\"")),
        FakeUpstream::start(Answer::json("\"b\"")),
    );
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("servers.yaml");
    fs::write(&list, format!("- {}\n", a.url())).expect("ours");
    let route = json!({"models": ["other"], "targets": [{"upstream": "pool"}]});
    let config = template(&json!({"discovery": {"file": list}})) + &document("Route", "r", &route);
    let kapok = Kapok::new()
        .config(config)
        .allow_log("the servers of a pool are not known")
        .start();
    assert_eq!(ask(&kapok), (200, "\"a\"".to_owned()));
    let routed = kapok
        .http()
        .post("/v1/chat/completions", r#"{"model":"other"}"#);
    assert_eq!(routed.text(), "\"a\"");
    fs::write(&list, format!("- {}\n", b.url())).expect("ours");
    wait::until("the other server", || {
        (ask(&kapok) == (200, "\"b\"".to_owned())).then_some(())
    });
    fs::write(&list, "- nowhere:port\n").expect("ours");
    wait_for_error(&kapok, "servers.yaml:1:3");
    assert_eq!(ask(&kapok), (200, "\"b\"".to_owned()));
    fs::write(&list, format!("- {}\n- {}\n", a.url(), b.url())).expect("ours");
    wait_for_servers(&kapok, 2);
}

/// Answers questions for addresses with 127.0.0.N, which holds for a second.
fn name_server(last: &Arc<AtomicU8>) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("it is bound");
    let last = Arc::clone(last);
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((count, peer)) = socket.recv_from(&mut buffer) {
            let mut answer = buffer[..count - 11].to_vec();
            let for_addresses = answer[answer.len() - 3] == 1;
            answer[2..4].copy_from_slice(&[0x81, 0x80]);
            answer[6..12].copy_from_slice(&[0, u8::from(for_addresses), 0, 0, 0, 0]);
            if for_addresses {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0]);
                answer.push(last.load(Ordering::SeqCst));
            }
            let _gone = socket.send_to(&answer, peer);
        }
    });
    address.to_string()
}

#[test]
fn addresses_of_a_name_are_followed() {
    let first = FakeUpstream::start(Answer::json("\"first\""));
    let port = first
        .url()
        .rsplit(':')
        .next()
        .and_then(|port| port.parse::<u16>().ok());
    let port = port.expect("a port");
    let last = Arc::new(AtomicU8::new(1));
    let dns = json!({"dns": {"servers": [name_server(&last)]}});
    let url = format!("http://llm.test:{port}");
    let kapok = Kapok::new()
        .config(template(&json!({"url": url, "discovery": dns})))
        .start();
    assert_eq!(ask(&kapok), (200, "\"first\"".to_owned()));
    let names = || kapok.admin().get("/admin/v1/upstreams").text();
    assert!(names().contains(&format!("pool/127.0.0.1:{port}")));
    last.store(2, Ordering::SeqCst);
    wait::until("the other address", || {
        names()
            .contains(&format!("pool/127.0.0.2:{port}"))
            .then_some(())
    });
}

/// A real etcd, alone in its cluster.
struct Etcd {
    process: Child,
    client: String,
    peer: String,
}

impl Etcd {
    fn start(data: &Path) -> Self {
        let free = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            format!("http://{}", listener.local_addr().expect("it is bound"))
        };
        let (client, peer) = (free(), free());
        Self {
            process: run(data, &client, &peer),
            client,
            peer,
        }
        .healthy()
    }

    fn healthy(self) -> Self {
        let address = self
            .client
            .trim_start_matches("http://")
            .parse()
            .expect("an address");
        wait::until("etcd", || {
            let answer = Client::to(address).try_get("/health").ok()?;
            (answer.status == 200).then_some(())
        });
        self
    }

    fn stop(&mut self) {
        let _already_gone = self.process.kill();
        let _reaped = self.process.wait();
    }

    fn start_again(mut self, data: &Path) -> Self {
        self.process = run(data, &self.client, &self.peer);
        self.healthy()
    }
}

fn run(data: &Path, client: &str, peer: &str) -> Child {
    run_with(data, client, peer, &[])
}

fn run_with(data: &Path, clients: &str, peer: &str, args: &[&str]) -> Child {
    let program = repository::cache().join("etcd/etcd");
    assert!(
        program.is_file(),
        "{} is missing: run `cargo xtask test`, which brings it",
        program.display()
    );
    Command::new(program)
        .args([
            "--listen-client-urls",
            clients,
            "--advertise-client-urls",
            clients,
        ])
        .args([
            "--listen-peer-urls",
            peer,
            "--initial-advertise-peer-urls",
            peer,
        ])
        .arg("--initial-cluster")
        .arg(format!("default={peer}"))
        .arg("--data-dir")
        .arg(data)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd starts")
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn nodes_register_in_etcd_and_are_found_lost_and_found_again() {
    let data = tempfile::tempdir().expect("a folder");
    let mut etcd = Etcd::start(data.path());
    let spec = json!({"endpoints": [etcd.client.as_str()], "prefix": "/test/"});
    let fake = FakeUpstream::start(Answer::json("\"answered\""));
    let server = || {
        let node = json!({"register": {"etcd": spec, "leaseMs": 2000}});
        let upstream = json!({"url": fake.url(), "models": ["m"]});
        let config = document("Node", "node", &node) + &document("Upstream", "up", &upstream);
        Kapok::new()
            .config(config)
            .allow_log("this node cannot be registered")
            .start()
    };
    let (first, second) = (server(), server());
    let front = template(&json!({"kind": "kapok", "discovery": {"etcd": spec}}));
    let front = Kapok::new()
        .config(front)
        .allow_log("the servers of a pool are not known")
        .start();
    wait_for_servers(&front, 2);
    assert_eq!(ask(&front), (200, "\"answered\"".to_owned()));

    // A node that stops takes its entry along, long before its lease ends.
    assert_eq!(second.stop(), 0);
    wait_for_servers(&front, 1);

    // Nobody needs the registry to go on.
    etcd.stop();
    wait_for_error(&front, "etcd");
    assert_eq!(ask(&front), (200, "\"answered\"".to_owned()));
    let etcd = etcd.start_again(data.path());
    wait_for_servers(&front, 1);

    // A node that is killed is gone when its lease is.
    let third = server();
    wait_for_servers(&front, 2);
    e2e::signal("KILL", third.pid());
    wait_for_servers(&front, 1);
    assert_eq!(ask(&front), (200, "\"answered\"".to_owned()));
    drop(third);
    assert_eq!(first.stop(), 0);
    drop(etcd);
}

/// Certificates that openssl makes: a root, and what it signed for the server and for its clients.
struct Certificates(tempfile::TempDir);

impl Certificates {
    fn make() -> Self {
        let made = Self(tempfile::tempdir().expect("a folder"));
        let key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ];
        let root = ["req", "-x509", "-days", "2", "-subj", "/CN=test root"];
        made.openssl(
            &[
                &root[..],
                &key,
                &["-keyout", "root.key", "-out", "root.pem"],
            ]
            .concat(),
        );
        std::fs::write(made.0.path().join("names"), "subjectAltName=IP:127.0.0.1\n").expect("ours");
        for name in ["server", "client"] {
            let files = ["key", "csr", "pem"].map(|kind| format!("{name}.{kind}"));
            let [private, request, certificate] = files.each_ref().map(String::as_str);
            // With a common name etcd refuses whoever also logs in.
            let subject = format!("/O={name}");
            let ask = [
                "req", "-subj", &subject, "-keyout", private, "-out", request,
            ];
            made.openssl(&[&ask[..], &key].concat());
            made.openssl(&[
                "x509",
                "-req",
                "-days",
                "2",
                "-in",
                request,
                "-out",
                certificate,
                "-CA",
                "root.pem",
                "-CAkey",
                "root.key",
                "-CAcreateserial",
                "-extfile",
                "names",
            ]);
        }
        made
    }

    fn openssl(&self, args: &[&str]) {
        let run = Command::new("openssl")
            .args(args)
            .current_dir(self.0.path())
            .output();
        let run = run.expect("openssl is there");
        let told = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "openssl {args:?}: {told}");
    }

    fn file(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

fn post(client: &Client, path: &str, body: &Value) {
    let answer = client.post(path, body.to_string());
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
}

/// From now on only `root` and `kapok` may do anything, and the latter only below `/test/`.
fn ask_for_passwords(etcd: &Client) {
    for (path, body) in [
        ("user/add", json!({"name": "root", "password": "r00t"})),
        ("user/grant", json!({"user": "root", "role": "root"})),
        ("user/add", json!({"name": "kapok", "password": "sesame"})),
        ("role/add", json!({"name": "nodes"})),
        (
            "role/grant",
            // From `/test/` up to `/test0`.
            json!({"name": "nodes", "perm": {"permType": "READWRITE", "key": "L3Rlc3Qv", "range_end": "L3Rlc3Qw"}}),
        ),
        ("user/grant", json!({"user": "kapok", "role": "nodes"})),
        ("enable", json!({})),
    ] {
        post(etcd, &format!("/v3/auth/{path}"), &body);
    }
}

/// An etcd that talks to others only if their certificate is of the same root and they log in; a plain port is for us.
#[test]
fn etcd_is_asked_over_tls_with_a_certificate_and_a_password() {
    let (data, certificates) = (tempfile::tempdir().expect("a folder"), Certificates::make());
    let free = |scheme: &str| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        format!("{scheme}://{}", listener.local_addr().expect("it is bound"))
    };
    let (secure, client, peer) = (free("https"), free("http"), free("http"));
    let file = |name: &str| certificates.file(name);
    let args = [
        ("--cert-file", file("server.pem")),
        ("--key-file", file("server.key")),
        ("--trusted-ca-file", file("root.pem")),
    ];
    let args = args.iter().flat_map(|(flag, file)| [*flag, file.as_str()]);
    let listen = format!("{client},{secure}");
    let args: Vec<&str> = args.chain(["--client-cert-auth"]).collect();
    let etcd = Etcd {
        process: run_with(data.path(), &listen, &peer, &args),
        client,
        peer,
    }
    .healthy();
    let plain = etcd.client.trim_start_matches("http://");
    let ours = Client::to(plain.parse().expect("an address"));
    ask_for_passwords(&ours);
    let spec = |tls: Value, password: &str| {
        json!({
            "endpoints": [&secure], "prefix": "/test/", "tls": tls,
            "user": "kapok", "password": {"value": password},
        })
    };
    let tls = json!({
        "caFile": file("root.pem"), "certFile": file("client.pem"), "keyFile": file("client.key"),
    });
    let good = spec(tls.clone(), "sesame");
    let fake = FakeUpstream::start(Answer::json("\"answered\""));
    let node = json!({"register": {"etcd": good, "leaseMs": 2000}});
    let upstream = json!({"url": fake.url(), "models": ["m"]});
    let config = document("Node", "node", &node) + &document("Upstream", "up", &upstream);
    let server = Kapok::new().config(config).start();
    let front = |etcd: &Value| {
        let config = template(&json!({"kind": "kapok", "discovery": {"etcd": etcd}}));
        Kapok::new()
            .config(config)
            .allow_log("the servers of a pool are not known")
            .start()
    };
    let found = front(&good);
    wait_for_servers(&found, 1);
    assert_eq!(ask(&found), (200, "\"answered\"".to_owned()));
    drop(found);
    let stranger = json!({"caFile": file("root.pem")});
    for (etcd, part) in [
        (spec(tls, "wrong"), "authentication failed"),
        // Nobody trusts our root but who is told to.
        (spec(json!({}), "sesame"), "cannot be trusted"),
        (spec(stranger, "sesame"), "127.0.0.1"),
    ] {
        wait_for_error(&front(&etcd), part);
    }
    assert_eq!(server.stop(), 0);
}
