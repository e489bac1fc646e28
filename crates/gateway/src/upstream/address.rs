use std::sync::Arc;

use http::HeaderValue;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};

/// Where an upstream listens, taken apart once.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) tls: bool,
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
    /// The `Host` header.
    pub(crate) authority: HeaderValue,
    /// The same for HTTP/2.
    origin: Authority,
    /// Put before each request's path; empty, or starts with a slash and ends without one.
    prefix: String,
    /// `scheme://host:port/prefix`: what may be shown. A URL with credentials never gets this far.
    pub(crate) shown: String,
}

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        // The URL itself stays out of the messages: it may hold credentials.
        let uri: Uri = url
            .parse()
            .map_err(|error| format!("url is not valid: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(other) => return Err(format!("url has scheme `{other}`, not http or https")),
            None => return Err("url needs http:// or https:// in front".to_owned()),
        };
        let authority = uri
            .authority()
            .ok_or_else(|| "url names no host".to_owned())?;
        if authority.as_str().contains('@') {
            return Err("url holds credentials; put the key in apiKey".to_owned());
        }
        if uri.query().is_some() {
            return Err("url has a query; only scheme, host, port and path belong here".to_owned());
        }
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self {
            tls,
            // An IPv6 host is bracketed in a URL and bare for the resolver.
            host: authority
                .host()
                .trim_start_matches('[')
                .trim_end_matches(']')
                .into(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: HeaderValue::from_str(authority.as_str())
                .map_err(|_| "url's host cannot be written in a header".to_owned())?,
            origin: authority.clone(),
            shown: format!(
                "{}://{authority}{prefix}",
                if tls { "https" } else { "http" }
            ),
            prefix,
        })
    }

    /// Whom an HTTP/2 request is for.
    pub(super) fn origin(&self) -> (Scheme, Authority) {
        let scheme = if self.tls {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        };
        (scheme, self.origin.clone())
    }

    /// The request target of the address itself.
    pub(super) fn itself(&self) -> Result<Uri, http::Error> {
        let path = if self.prefix.is_empty() {
            "/"
        } else {
            &self.prefix
        };
        Uri::builder().path_and_query(path).build()
    }

    /// The request target: the client's own path and query behind the prefix.
    pub(crate) fn target(&self, path: Option<&PathAndQuery>) -> Result<Uri, http::Error> {
        let own = path
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        if self.prefix.is_empty() {
            return Ok(Uri::from(own));
        }
        Uri::builder()
            .path_and_query(format!("{}{own}", self.prefix))
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_or_refused_without_being_repeated() {
        for (url, expected) in [
            (
                "http://10.0.0.1:8000",
                Ok(("10.0.0.1", 8000, "/v1/models?x=1")),
            ),
            (
                "https://api.example.com/",
                Ok(("api.example.com", 443, "/v1/models?x=1")),
            ),
            (
                "http://[::1]:9/base/",
                Ok(("::1", 9, "/base/v1/models?x=1")),
            ),
            ("ftp://host", Err("scheme `ftp`")),
            ("host:80", Err("http://")),
            ("http://user:hunter2@host", Err("credentials")),
            ("http://host/?key=hunter2", Err("query")),
        ] {
            let parsed = Address::parse(url);
            match (expected, parsed) {
                (Ok((host, port, target)), Ok(address)) => {
                    assert_eq!((&*address.host, address.port), (host, port));
                    let path = PathAndQuery::from_static("/v1/models?x=1");
                    let built = address.target(Some(&path)).expect("a target");
                    assert_eq!(built.to_string(), target);
                }
                (Err(part), Err(reason)) => {
                    assert!(reason.contains(part), "{url}: {reason}");
                    assert!(!reason.contains("hunter2"), "{reason}");
                }
                (expected, parsed) => panic!("{url}: expected {expected:?}, got {parsed:?}"),
            }
        }
    }
}
