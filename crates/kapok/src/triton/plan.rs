//! What the flags add up to.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use protocol::oip::settings::LogFormat;
use serde_json::{Value, json};
use telemetry::logs;

use super::Manners;
use super::flags::Does::{Act, Nothing, Refuse};
use super::parse::Given;
use crate::cli::UpArgs;

/// A port as Triton's flags place it.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) on: bool,
    address: Option<IpAddr>,
    port: u16,
}

impl Door {
    pub(super) fn new(port: u16) -> Self {
        Self {
            on: true,
            address: None,
            port,
        }
    }

    pub(super) fn address(&mut self, value: &str) -> Result<(), String> {
        let value = value.trim_matches(['[', ']']);
        let address = match value {
            "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            value => value.parse(),
        };
        let address = address.map_err(|_| format!("`{value}` is no IP address"))?;
        self.address = Some(address);
        Ok(())
    }

    pub(super) fn port(&mut self, value: &str) -> Result<(), String> {
        self.port = number(value)?;
        Ok(())
    }

    pub(super) fn at(&self, otherwise: IpAddr) -> SocketAddr {
        SocketAddr::new(self.address.unwrap_or(otherwise), self.port)
    }
}

/// Whether configurations are completed from their models: two flags say so.
#[derive(Debug, Default)]
pub(super) struct Completion {
    pub(super) off: bool,
    /// The older flag, in the opposite sense; the newer wins.
    pub(super) strict: Option<bool>,
}

/// What the flags add up to.
#[derive(Debug)]
pub(super) struct Plan {
    repositories: Vec<PathBuf>,
    pub(super) load: Vec<String>,
    /// For ONNX models, which are those that are completed; wins over what is said for all backends.
    onnx_batch_max: Option<u32>,
    explicit: bool,
    pub(super) completion: Completion,
    pub(super) exit_on_error: bool,
    pub(super) http: Door,
    pub(super) grpc: Door,
    pub(super) metrics: Door,
    pub(super) log: logs::Options,
    /// Fields of the Node; later wins.
    settings: Vec<(&'static str, Value)>,
    notes: Vec<String>,
    /// Of `--rate-limit-resource`, which may be given many times.
    resources: BTreeMap<String, u32>,
}

impl Default for Plan {
    fn default() -> Self {
        let mut log = logs::Options::default();
        log.settings.format = LogFormat::Default;
        Self {
            repositories: Vec::new(),
            load: Vec::new(),
            onnx_batch_max: None,
            explicit: false,
            completion: Completion::default(),
            exit_on_error: true,
            http: Door::new(8000),
            grpc: Door::new(8001),
            metrics: Door::new(8002),
            log,
            settings: vec![
                ("modelControl", json!("none")),
                // Triton asks nobody who they are.
                ("settingsControl", json!("on")),
                ("sharedMemory", json!("on")),
            ],
            notes: Vec::new(),
            resources: BTreeMap::new(),
        }
    }
}

impl Plan {
    pub(super) fn take(&mut self, given: &Given<'_>) -> Result<(), String> {
        let Given { flag, value } = given;
        let name = flag.name;
        match flag.does {
            Act(act) => act(self, value).map_err(|reason| format!("`--{name}`: {reason}")),
            Nothing(reason) => {
                self.note(&format!("--{name}"), reason);
                Ok(())
            }
            Refuse(harmless, _) if *value == harmless => Ok(()),
            Refuse(_, reason) => Err(format!("`--{name}={value}` cannot be done: {reason}")),
        }
    }

    pub(super) fn note(&mut self, flag: &str, reason: &str) {
        let note = format!("{flag} is accepted and means nothing here: {reason}");
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// A field of the Node, by its name in kapok.yaml.
    pub(super) fn set(&mut self, field: &'static str, value: Value) -> Result<(), String> {
        self.settings.push((field, value));
        Ok(())
    }

    pub(super) fn repository(&mut self, value: &str) -> Result<(), String> {
        if value.contains("://") {
            return Err(format!(
                "`{value}` is no folder; copy it to this machine first"
            ));
        }
        self.repositories.push(PathBuf::from(value));
        Ok(())
    }

    pub(super) fn control_mode(&mut self, value: &str) -> Result<(), String> {
        if !matches!(value, "none" | "poll" | "explicit") {
            // Triton's words.
            return Err(format!(
                "invalid argument for --model-control-mode: {value}"
            ));
        }
        self.explicit = value == "explicit";
        self.set("modelControl", json!(value))
    }

    pub(super) fn trace_level(&mut self, value: &str) -> Result<(), String> {
        match value.to_ascii_uppercase().as_str() {
            "OFF" => self.set("trace.timestamps", json!(false)),
            // MIN and MAX are its old names.
            "TIMESTAMPS" | "MIN" | "MAX" => self.set("trace.timestamps", json!(true)),
            "TENSORS" => Err("TENSORS is not supported; use TIMESTAMPS".to_owned()),
            _ => Err(format!("invalid value for trace level option: {value}")),
        }
    }

    /// `<setting>=<value>`, or `<mode>,<setting>=<value>`.
    pub(super) fn trace_config(&mut self, value: &str) -> Result<(), String> {
        let (setting, value) = pair(value)?;
        match setting {
            "level" => self.trace_level(value),
            "rate" => self.set("trace.rate", json!(number::<u32>(value)?)),
            "count" => self.set("trace.count", json!(number::<i32>(value)?)),
            "triton,file" => self.set("trace.file", json!(value)),
            "triton,log-frequency" => self.set("trace.logFrequency", json!(number::<u32>(value)?)),
            "mode" if value == "triton" => Ok(()),
            "mode" => Err(format!("mode `{value}` is not supported; use triton")),
            _ if setting.starts_with("opentelemetry,") => {
                Err("mode `opentelemetry` is not supported; use triton".to_owned())
            }
            _ => Err(format!("unknown setting `{setting}`")),
        }
    }

    /// `local,size=<bytes>`.
    pub(super) fn cache_config(&mut self, value: &str) -> Result<(), String> {
        let (setting, value) = pair(value)?;
        match setting {
            "local,size" => self.cache_bytes(value),
            _ if setting.starts_with("local,") => Err(format!("unknown setting `{setting}`")),
            _ => Err(format!("`{setting}`: only the cache `local` is there")),
        }
    }

    /// The Node counts in MiB; less than one still switches the cache on.
    pub(super) fn cache_bytes(&mut self, value: &str) -> Result<(), String> {
        let bytes: u64 = number(value)?;
        self.set("responseCacheMb", json!(bytes.div_ceil(1 << 20)))
    }

    /// `<backend>,<setting>=<value>`, or `<setting>=<value>` for all. How large batches are unless a model says it is
    /// obeyed; what is left is the model's own affair.
    pub(super) fn backend_config(&mut self, value: &str) -> Result<(), String> {
        let (setting, value) = pair(value)?;
        match setting.split_once(',') {
            None if setting == "default-max-batch-size" => {
                self.set("defaultMaxBatchSize", json!(number::<u32>(value)?))
            }
            Some(("onnxruntime", "default-max-batch-size")) => {
                self.onnx_batch_max = Some(number(value)?);
                Ok(())
            }
            _ => {
                let reason = "an engine's settings are the model's, in config.pbtxt or kapok.toml";
                self.note("--backend-config", reason);
                Ok(())
            }
        }
    }

    pub(super) fn rate_limit(&mut self, value: &str) -> Result<(), String> {
        match value {
            "off" => self.set("rateLimit", json!("off")),
            "execution_count" => self.set("rateLimit", json!("executionCount")),
            _ => Err(format!("`{value}` is neither off nor execution_count")),
        }
    }

    /// `<name>:<count>`, or `<name>:<count>:<device>`; the device says nothing on a machine without GPUs.
    pub(super) fn rate_limit_resource(&mut self, value: &str) -> Result<(), String> {
        let mut parts = value.split(':');
        let (name, count) = (parts.next(), parts.next());
        let device = parts.next().map(number::<u32>).transpose()?;
        let (Some(name), Some(count), None) = (name, count, parts.next()) else {
            return Err(format!("`{value}` is not `<name>:<count>[:<device>]`"));
        };
        if device.is_some() {
            let reason = "a resource is the machine's, whatever the device";
            self.note("the device of --rate-limit-resource", reason);
        }
        let own = self.resources.entry(name.to_owned()).or_default();
        *own = number::<u32>(count)?.max(*own);
        let resources = json!(self.resources);
        self.set("rateLimitResources", resources)
    }

    /// `kapok up`'s arguments, once all flags are taken.
    pub(super) fn finish(mut self) -> Result<UpArgs, String> {
        if self.repositories.is_empty() {
            return Err("`--model-repository` must be specified".to_owned());
        }
        if !self.load.is_empty() {
            self.startup_models()?;
        }
        if let Some(rows) = self.onnx_batch_max {
            self.set("defaultMaxBatchSize", json!(rows))?;
        }
        self.completion()?;
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let http = self.http.at(any);
        for (field, door, address) in [
            ("grpcAlias", &self.grpc, self.grpc.at(any)),
            ("metricsAlias", &self.metrics, self.metrics.at(http.ip())),
        ] {
            let alias = if door.on {
                json!(address.to_string())
            } else {
                Value::Null
            };
            self.settings.push((field, alias));
        }
        // Ports of their own, so that several fit on a machine; without HTTP nobody is told of them.
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Ok(UpArgs {
            model_repo: self.repositories,
            listen: Some(if self.http.on { http } else { own }),
            admin: Some(own),
            set: self
                .settings
                .iter()
                .map(|(field, value)| format!("node.{field}={value}"))
                .collect(),
            triton: Some(Box::new(Manners {
                log: self.log,
                exit_on_error: self.exit_on_error,
                notes: self.notes,
                http: self.http.on,
                grpc: self.grpc.on,
                metrics: self.metrics.on,
            })),
            ..UpArgs::default()
        })
    }

    /// Both notes are in Triton's words.
    fn completion(&mut self) -> Result<(), String> {
        let Completion { off, strict } = self.completion;
        if let Some(strict) = strict {
            self.notes.push(
                "Warning: '--strict-model-config' has been deprecated! Please use '--disable-auto-complete-config' instead."
                    .to_owned(),
            );
            if off && !strict {
                self.notes.push(
                    "Warning: Overriding deprecated '--strict-model-config' from False to True in favor of '--disable-auto-complete-config'!"
                        .to_owned(),
                );
            }
        }
        let completes = !off && strict != Some(true);
        self.set("completeConfigs", json!(completes))
    }

    pub(super) fn startup_models(&mut self) -> Result<(), String> {
        // Both in Triton's words.
        if !self.explicit {
            return Err(
                "Use of '--load-model' requires setting '--model-control-mode=explicit' as well."
                    .to_owned(),
            );
        }
        if self.load.len() > 1 && self.load.iter().any(|model| model == "*") {
            return Err(
                "Wildcard model name '*' must be the ONLY startup model if specified at all."
                    .to_owned(),
            );
        }
        let load = std::mem::take(&mut self.load);
        self.set("loadModels", json!(load))
    }
}

pub(super) fn number<T: FromStr>(value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("`{value}` is not a number that fits"))
}

fn pair(value: &str) -> Result<(&str, &str), String> {
    value
        .split_once('=')
        .ok_or_else(|| format!("`{value}` has no `=`"))
}
