//! What types cannot say about a resource.

use std::fmt;

use http::Uri;

use super::{
    KeySpec, ModelControl, NodeSpec, ProcessSpec, Resource, RouteSpec, Secret, Spec, UpstreamSpec,
};

/// A field whose value can be read but makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// From the document's root, list indices as digits: `spec`, `targets`, `0`, `weight`.
    pub path: Vec<String>,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.path.join("."), self.message)
    }
}

/// Longest name, as DNS has it, because names become host names, labels and files elsewhere.
const NAME_CHARACTERS_MAX: usize = 63;

impl Resource {
    /// Everything wrong with it by itself; what other resources it names is the snapshot's business.
    pub fn validate(&self) -> Vec<Problem> {
        let mut found = Findings::default();
        found.check(is_name(&self.metadata.name), "metadata.name", || {
            format!(
                "a name is 1 to {NAME_CHARACTERS_MAX} of a-z, 0-9, `-` and `.`, and begins and ends with a letter or digit"
            )
        });
        match &self.spec {
            Spec::Node(spec) => node(spec, &mut found),
            Spec::Upstream(spec) => {
                found.check(self.metadata.name != "local", "metadata.name", || {
                    "`local` means the models in this process; take another name".to_owned()
                });
                upstream(spec, &mut found);
            }
            Spec::Route(spec) => route(spec, &mut found),
            Spec::Key(spec) => key(spec, &mut found),
        }
        found.0
    }
}

#[derive(Default)]
struct Findings(Vec<Problem>);

impl Findings {
    /// `path` is written with dots; no key of ours has one.
    fn check(&mut self, holds: bool, path: &str, message: impl FnOnce() -> String) {
        if !holds {
            let path = path.split('.').map(str::to_owned).collect();
            let message = message();
            self.0.push(Problem { path, message });
        }
    }

    fn positive(&mut self, value: u64, path: &str) {
        self.check(value > 0, path, || "must be at least 1".to_owned());
    }
}

fn is_name(name: &str) -> bool {
    let outer = |byte: Option<&u8>| byte.is_some_and(|byte| is_letter_or_digit(*byte));
    let bytes = name.as_bytes();
    bytes.len() <= NAME_CHARACTERS_MAX
        && outer(bytes.first())
        && outer(bytes.last())
        && bytes
            .iter()
            .all(|byte| is_letter_or_digit(*byte) || matches!(byte, b'-' | b'.'))
}

fn is_letter_or_digit(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn node(spec: &NodeSpec, found: &mut Findings) {
    let ports = [
        ("spec.admin", Some(spec.admin)),
        ("spec.grpcAlias", spec.grpc_alias.address()),
        ("spec.metricsAlias", spec.metrics_alias.address()),
    ];
    let mut taken = vec![spec.listen];
    for (path, address) in ports {
        let Some(address) = address else { continue };
        // Port 0 is a fresh one each time.
        let free = address.port() == 0 || !taken.contains(&address);
        found.check(free, path, || {
            format!("`{address}` is taken by an address above")
        });
        taken.push(address);
    }
    found.check(spec.body_bytes_max > 0, "spec.bodyBytesMax", || {
        "must be at least 1".to_owned()
    });
    found.check(spec.queue_max > 0, "spec.queueMax", || {
        "must be at least 1".to_owned()
    });
    found.positive(spec.request_timeout_ms, "spec.requestTimeoutMs");
    found.positive(spec.trace.rate.into(), "spec.trace.rate");
    found.check(spec.trace.count >= -1, "spec.trace.count", || {
        "must be -1, which is no end, or more".to_owned()
    });
    let traced = !spec.trace.timestamps || spec.trace.file.is_some();
    found.check(traced, "spec.trace.file", || {
        "`timestamps` needs a file to write them to".to_owned()
    });
    found.positive(spec.model_poll_ms, "spec.modelPollMs");
    if let Some(budget) = spec.memory_budget_mb {
        found.positive(budget, "spec.memoryBudgetMb");
    }
    let explicit = spec.model_control == ModelControl::Explicit;
    found.check(
        spec.load_models.is_empty() || explicit,
        "spec.loadModels",
        || "only `modelControl: explicit` chooses what is loaded at start".to_owned(),
    );
    let key = spec.model_public_key.as_deref();
    found.check(
        key.is_none_or(crate::sidecar::is_public_key),
        "spec.modelPublicKey",
        || "a minisign public key: 56 characters of base64 that begin with `RW`".to_owned(),
    );
}

fn upstream(spec: &UpstreamSpec, found: &mut Findings) {
    if let Err(message) = check_url(&spec.url) {
        found.check(false, "spec.url", || message.to_owned());
    }
    for (index, model) in spec.models.iter().flatten().enumerate() {
        let exact = !model.is_empty() && !model.contains('*');
        found.check(exact, &format!("spec.models.{index}"), || {
            "a model of an upstream is an exact name; a `Route` takes prefixes".to_owned()
        });
    }
    if let Some(key) = &spec.api_key {
        secret(key, found);
    }
    found.positive(spec.connect_timeout_ms, "spec.connectTimeoutMs");
    found.positive(spec.idle_timeout_ms, "spec.idleTimeoutMs");
    if let Some(spec) = &spec.process {
        process(spec, found);
    }
}

/// Scheme, host, port and path; the rest of a URL has no meaning here and would be lost.
fn check_url(url: &str) -> Result<(), &'static str> {
    let uri: Uri = url
        .parse()
        .map_err(|_| "not a URL; write it as `http://host:port`")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("the URL must begin with `http://` or `https://`");
    }
    let authority = uri.authority().ok_or("the URL names no host")?;
    if authority.host().is_empty() {
        return Err("the URL names no host");
    }
    if authority.as_str().contains('@') {
        return Err("a URL with a password in it would be shown in logs; use `apiKey`");
    }
    let after_host = authority
        .as_str()
        .get(authority.host().len()..)
        .unwrap_or_default();
    if !after_host.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err("the port must be a number from 1 to 65535");
    }
    if url.contains(['?', '#']) {
        return Err("the URL takes a path but neither query nor fragment");
    }
    Ok(())
}

/// Exact names, or prefixes that end in `*`.
fn patterns(models: &[String], path: &str, found: &mut Findings) {
    found.check(!models.is_empty(), path, || {
        "name at least one model, or `*`".to_owned()
    });
    for (index, model) in models.iter().enumerate() {
        let star = model.find('*');
        let legal = !model.is_empty() && star.is_none_or(|star| star + 1 == model.len());
        found.check(legal, &format!("{path}.{index}"), || {
            "a model is an exact name, or a prefix that ends in `*`".to_owned()
        });
    }
}

fn secret(secret: &Secret, found: &mut Findings) {
    let (path, legal, message) = match secret {
        Secret::Env(name) => (
            "spec.apiKey.env",
            !name.is_empty() && !name.contains(['=', '\0']),
            "the name of an environment variable, without `$`",
        ),
        Secret::File(file) => (
            "spec.apiKey.file",
            !file.as_os_str().is_empty(),
            "the path of a file",
        ),
        Secret::Value(value) => (
            "spec.apiKey.value",
            !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic()),
            "a key is visible ASCII without spaces",
        ),
    };
    let dollar = matches!(secret, Secret::Env(name) if name.starts_with('$'));
    found.check(legal && !dollar, path, || message.to_owned());
}

fn process(spec: &ProcessSpec, found: &mut Findings) {
    let program = spec.command.first();
    found.check(
        program.is_some_and(|program| !program.is_empty()),
        "spec.process.command",
        || "the program and its arguments, as a list".to_owned(),
    );
    for name in spec.env.keys() {
        let legal = !name.is_empty() && !name.contains(['=', '\0']);
        found.check(legal, "spec.process.env", || {
            format!(
                "`{}` is no name of an environment variable",
                name.escape_debug()
            )
        });
    }
    found.check(
        spec.ready_path.starts_with('/'),
        "spec.process.readyPath",
        || "a path begins with `/`".to_owned(),
    );
    found.positive(spec.start_timeout_ms, "spec.process.startTimeoutMs");
}

fn route(spec: &RouteSpec, found: &mut Findings) {
    patterns(&spec.models, "spec.models", found);
    found.check(!spec.targets.is_empty(), "spec.targets", || {
        "name at least one target".to_owned()
    });
    let all_zero = !spec.targets.is_empty() && spec.targets.iter().all(|target| target.weight == 0);
    found.check(!all_zero, "spec.targets", || {
        "every weight is 0, so nothing would be answered".to_owned()
    });
    for (index, target) in spec.targets.iter().enumerate() {
        let path = format!("spec.targets.{index}.upstream");
        found.check(is_name(&target.upstream), &path, || {
            "the name of an Upstream, or `local`".to_owned()
        });
        let earlier = spec.targets.iter().take(index);
        let twice = earlier
            .filter(|earlier| earlier.upstream == target.upstream)
            .count()
            > 0;
        found.check(!twice, &path, || {
            format!("`{}` is named twice; add up the weights", target.upstream)
        });
    }
}

fn key(spec: &KeySpec, found: &mut Findings) {
    let digest = spec.sha256.as_bytes();
    let legal = digest.len() == 64 && digest.iter().all(u8::is_ascii_hexdigit);
    found.check(legal, "spec.sha256", || {
        "the key's SHA-256 as 64 hexadecimal digits, as `printf %s KEY | sha256sum` prints it"
            .to_owned()
    });
    if let Some(models) = &spec.models {
        patterns(models, "spec.models", found);
    }
}
