//! Templates and servers become upstreams. Pure: resources in, resources out.

use std::collections::BTreeMap;

use protocol::resource::{Endpoint, Metadata, Resource, Spec, UpstreamSpec};

/// The servers of every template, by its name.
pub type Servers = BTreeMap<String, Vec<Endpoint>>;

/// Puts an upstream `NAME/ADDRESS` beside each template for every one of its servers. The template stays: it says that
/// there is such a pool, however many servers it has.
pub fn expand(resources: &[Resource], servers: &Servers) -> Vec<Resource> {
    let mut expanded = Vec::with_capacity(resources.len());
    for resource in resources {
        expanded.push(resource.clone());
        let Spec::Upstream(template) = &resource.spec else {
            continue;
        };
        if template.discovery.is_none() {
            continue;
        }
        let known = servers.get(&resource.metadata.name);
        for server in known.map(Vec::as_slice).unwrap_or_default() {
            expanded.push(member(&resource.metadata, template, server));
        }
    }
    expanded
}

fn member(pool: &Metadata, template: &UpstreamSpec, server: &Endpoint) -> Resource {
    let (scheme, rest) = template
        .url
        .split_once("://")
        .unwrap_or(("http", &template.url));
    let prefix = rest.split_once('/').map_or("", |(_, prefix)| prefix);
    let url = if server.url.contains("://") {
        server.url.clone()
    } else {
        format!("{scheme}://{}/{prefix}", server.url)
    };
    let place = server.url.split("://").last().unwrap_or_default();
    let mut spec = UpstreamSpec {
        url,
        discovery: None,
        pool: Some(pool.name.clone()),
        ..template.clone()
    };
    for (known, field) in [
        (&server.region, &mut spec.region),
        (&server.colour, &mut spec.colour),
    ] {
        if known.is_some() {
            field.clone_from(known);
        }
    }
    if server.models.is_some() {
        spec.models.clone_from(&server.models);
    }
    Resource {
        metadata: Metadata {
            name: format!("{}/{}", pool.name, place.trim_end_matches('/')),
            ..pool.clone()
        },
        spec: Spec::Upstream(spec),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn upstream(name: &str, spec: serde_json::Value) -> Resource {
        Resource {
            metadata: Metadata {
                name: name.to_owned(),
                ..Metadata::default()
            },
            spec: Spec::Upstream(serde_json::from_value(spec).expect("an upstream's fields")),
        }
    }

    #[test]
    fn a_template_becomes_as_many_upstreams_as_it_has_servers() {
        let template = json!({
            "url": "http://llm.test:8000/base", "models": ["m"], "region": "eu",
            "discovery": {"static": ["a:1"]},
        });
        let resources = [
            upstream("plain", json!({"url": "http://x:1"})),
            upstream("llm", template),
        ];
        assert_eq!(expand(&resources, &Servers::new()), resources);
        let other = Endpoint {
            region: Some("us".to_owned()),
            models: Some(vec!["n".to_owned()]),
            ..Endpoint::at("https://b.test/v/")
        };
        let servers = Servers::from([("llm".to_owned(), vec![Endpoint::at("[::1]:81"), other])]);
        let expanded = expand(&resources, &servers);
        let seen: Vec<_> = expanded
            .iter()
            .filter_map(|resource| match &resource.spec {
                Spec::Upstream(spec) => Some((
                    resource.metadata.name.as_str(),
                    spec.url.as_str(),
                    spec.pool.as_deref().unwrap_or_default(),
                    spec.region.as_deref().unwrap_or_default(),
                    spec.models.clone().unwrap_or_default().concat(),
                )),
                _ => None,
            })
            .collect();
        let owned = str::to_owned;
        assert_eq!(
            seen,
            [
                ("plain", "http://x:1", "", "", owned("")),
                ("llm", "http://llm.test:8000/base", "", "eu", owned("m")),
                (
                    "llm/[::1]:81",
                    "http://[::1]:81/base",
                    "llm",
                    "eu",
                    owned("m")
                ),
                ("llm/b.test/v", "https://b.test/v/", "llm", "us", owned("n")),
            ]
        );
    }
}
