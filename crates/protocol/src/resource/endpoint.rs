//! One server of a pool, as a file or a registry tells it: `host:port`, a URL, or a mapping with more.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::ResourceError;
use super::discovery::is_server;

/// What differs between the servers of a pool; all else is the template's.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// `host:port`, reached as the template says, or a whole URL.
    pub url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub colour: Option<String>,
}

impl Endpoint {
    /// A server of which nothing is known but its place.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ..Self::default()
        }
    }

    /// One registry value: the place alone, or a JSON mapping.
    pub fn parse(value: &str) -> Result<Self, String> {
        let value = value.trim();
        let endpoint = if value.starts_with('{') {
            serde_json::from_str(value).map_err(|error| error.to_string())?
        } else {
            Self::at(value)
        };
        endpoint.checked()
    }

    fn checked(self) -> Result<Self, String> {
        if is_server(&self.url) {
            return Ok(self);
        }
        Err(format!(
            "`{}` is neither `host:port` nor a URL",
            self.url.escape_debug()
        ))
    }
}

/// Longest list of one source: a pool beyond that is several pools.
const SERVERS_MAX: usize = 10_000;

/// A YAML (or JSON) list of servers. An empty file is a mistake; `[]` is a list.
pub fn parse_endpoints(text: &str, file: &str) -> Result<Vec<Endpoint>, ResourceError> {
    let wrong = |line, column, message: String| ResourceError {
        file: file.to_owned(),
        line,
        column,
        message,
    };
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: 8, flow_nesting_limit: 8 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 1000 },
    };
    let read: Result<Vec<serde_saphyr::Spanned<Endpoint>>, _> =
        serde_saphyr::from_str_with_options(text, options);
    let number = |number: u64| usize::try_from(number).unwrap_or_default();
    let servers = read.map_err(|error| {
        let error = error.without_snippet();
        let (line, column) = error
            .location()
            .map_or((0, 0), |at| (number(at.line()), number(at.column())));
        wrong(line, column, error.to_string())
    })?;
    // YAML takes an empty file for an empty list, and a file is empty while it is being written.
    if servers.is_empty() && !text.contains('[') {
        let message = "the file is empty; a list without servers is written `[]`";
        return Err(wrong(0, 0, message.to_owned()));
    }
    if servers.len() > SERVERS_MAX {
        let message = format!("{} servers, at most {SERVERS_MAX} are taken", servers.len());
        return Err(wrong(0, 0, message));
    }
    let mut endpoints = Vec::with_capacity(servers.len());
    for server in servers {
        let at = server.referenced;
        let endpoint = server
            .value
            .checked()
            .map_err(|message| wrong(number(at.line()), number(at.column()), message))?;
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

/// For the fuzzer: whatever the bytes, an answer; and what is accepted is the same after being written out.
pub fn fuzz_endpoints(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(endpoint) = Endpoint::parse(text) {
        let written = serde_json::to_string(&endpoint).unwrap_or_default();
        assert_eq!(Endpoint::parse(&written).as_ref(), Ok(&endpoint));
    }
    if let Ok(endpoints) = parse_endpoints(text, "servers.yaml") {
        assert!(endpoints.iter().all(|endpoint| is_server(&endpoint.url)));
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EndpointVisitor)
    }
}

struct EndpointVisitor;

impl<'de> Visitor<'de> for EndpointVisitor {
    type Value = Endpoint;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`host:port`, a URL, or a mapping with `url`")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Endpoint, E> {
        if text.is_empty() {
            return Err(E::custom("a server is `host:port` or a URL"));
        }
        Ok(Endpoint::at(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Endpoint, A::Error> {
        let Written {
            url,
            models,
            region,
            colour,
        } = Written::deserialize(MapAccessDeserializer::new(map)).map_err(A::Error::custom)?;
        Ok(Endpoint {
            url,
            models,
            region,
            colour,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    url: String,
    #[serde(default)]
    models: Option<Vec<String>>,
    #[serde(default)]
    region: Option<String>,
    #[serde(default)]
    colour: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_written_short_or_long_and_mistakes_have_a_place() {
        let text = "- 10.0.0.1:8000\n- http://[::1]:9/base\n- {url: \"gpu-3:80\", region: eu, models: [m]}\n";
        let read = parse_endpoints(text, "s.yaml").expect("a good list");
        assert_eq!(read[0], Endpoint::at("10.0.0.1:8000"));
        assert_eq!(read[1].url, "http://[::1]:9/base");
        assert_eq!(read[2].region.as_deref(), Some("eu"));
        assert_eq!(parse_endpoints("[]", "s.yaml"), Ok(Vec::new()));
        assert_eq!(
            parse_endpoints("[\"10.0.0.1:8000\", {\"url\": \"b:1\"}]", "s.json")
                .map(|all| all.len()),
            Ok(2)
        );
        for (text, place, part) in [
            (
                "- 10.0.0.1:8000\n- 10.0.0.2:port\n",
                "s.yaml:2:3",
                "neither",
            ),
            ("- {url: \"a:1\", zone: x}\n", "s.yaml:1", "zone"),
            ("", "s.yaml: ", "empty"),
            ("# none\n", "s.yaml: ", "empty"),
            ("servers: []\n", "s.yaml:1", ""),
            ("- http://a/?q=1\n", "s.yaml:1:3", "neither"),
        ] {
            let error = parse_endpoints(text, "s.yaml").expect_err(text).to_string();
            assert!(
                error.starts_with(place) && error.contains(part),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn a_registry_holds_a_place_or_a_mapping() {
        assert_eq!(Endpoint::parse(" a:1 "), Ok(Endpoint::at("a:1")));
        let full = Endpoint::parse("{\"url\":\"http://a:1\",\"colour\":\"blue\"}").expect("good");
        assert_eq!(full.colour.as_deref(), Some("blue"));
        for bad in [
            "",
            "a",
            "a:99999",
            "{}",
            "{\"url\":\"a:1\",\"x\":1}",
            "a:1/x",
        ] {
            // A host alone means the scheme's own port.
            assert_eq!(Endpoint::parse(bad).is_ok(), bad == "a", "{bad}");
        }
    }
}
