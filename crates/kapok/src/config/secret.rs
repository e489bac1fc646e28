//! Secrets are named in resources and looked up here, once, before anything starts.

use protocol::resource::{Resource, Secret, Spec};

use super::{Environment, etcd_mut};
use crate::exit::{Failure, Outcome};

pub(super) fn look_up(resources: &mut [Resource], environment: &Environment) -> Outcome {
    for resource in resources {
        let name = resource.metadata.name.clone();
        if let Some(password) = etcd_mut(resource).and_then(|etcd| etcd.password.as_mut()) {
            replace(password, environment, || {
                format!("etcd's password in `{name}`")
            })?;
        }
        let name = &resource.metadata.name;
        match &mut resource.spec {
            Spec::Upstream(upstream) => {
                if let Some(secret) = &mut upstream.api_key {
                    replace(secret, environment, || {
                        format!("apiKey of upstream `{name}`")
                    })?;
                }
            }
            Spec::Node(node) => {
                for (header, secret) in &mut node.otlp.headers {
                    replace(secret, environment, || format!("header `{header}` of otlp"))?;
                }
            }
            Spec::Route(_) | Spec::Key(_) | Spec::Job(_) => {}
        }
    }
    Ok(())
}

fn replace(secret: &mut Secret, environment: &Environment, of: impl FnOnce() -> String) -> Outcome {
    let value = value(secret, environment).map_err(|failure| Failure {
        error: failure.error.context(of()),
        ..failure
    })?;
    *secret = Secret::Value(value);
    Ok(())
}

fn value(secret: &Secret, environment: &Environment) -> Outcome<String> {
    match secret {
        Secret::Value(value) => Ok(value.clone()),
        Secret::Env(name) => environment
            .variable(name)
            .map(str::to_owned)
            .ok_or_else(|| {
                Failure::usage(format!("environment variable `{name}` is not set"))
                    .hint(format!("export {name}=… before starting kapok"))
            }),
        Secret::File(file) => {
            let text = std::fs::read_to_string(file).map_err(|error| {
                Failure::usage(format!("file `{}` cannot be read: {error}", file.display()))
                    .hint("the file holds the key and nothing else")
            })?;
            Ok(text.trim().to_owned())
        }
    }
}
