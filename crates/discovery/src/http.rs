//! One HTTP request at a time: for registries, for health probes and for kapok's own commands. The gateway has its own,
//! pooled client.

use std::net::IpAddr;

use base::{TaskKind, Tasks};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use protocol::resource::EtcdTlsSpec;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::tls;

/// Scheme, host, port and path prefix of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    tls: bool,
    host: String,
    port: u16,
    prefix: String,
}

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("`{url}` is not a URL: {reason}")]
    Url { url: String, reason: String },
    #[error("nothing answers at {address}")]
    Connect {
        address: String,
        source: std::io::Error,
    },
    #[error("{address} broke off")]
    Exchange {
        address: String,
        source: hyper::Error,
    },
    #[error("{address} cannot be trusted: {reason}")]
    Tls { address: String, reason: String },
    #[error("request cannot be built")]
    Request(#[from] http::Error),
}

impl Endpoint {
    /// `http://host:port[/prefix]`; the scheme may be left out.
    pub fn parse(url: &str) -> Result<Self, HttpError> {
        let endpoint = Self::parse_any(url)?;
        if endpoint.tls {
            return Err(HttpError::Url {
                url: url.to_owned(),
                reason: "only http:// is supported here".to_owned(),
            });
        }
        Ok(endpoint)
    }

    /// The same, and `https://`.
    pub(crate) fn parse_any(url: &str) -> Result<Self, HttpError> {
        let wrong = |reason: &str| HttpError::Url {
            url: url.to_owned(),
            reason: reason.to_owned(),
        };
        let full = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let uri: Uri = full
            .parse()
            .map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("only http:// is supported here")),
        };
        let host = uri.host().ok_or_else(|| wrong("it names no host"))?;
        Ok(Self {
            tls,
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// `host:port`, as shown to people.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Sends one request on a connection of its own and returns when the answer's head is there. Dropping the answer's
    /// body closes the connection.
    pub async fn send(
        &self,
        tasks: &Tasks,
        request: Request<Bytes>,
    ) -> Result<Response<Incoming>, HttpError> {
        let stream = self.connect().await?;
        self.exchange(tasks, request, stream).await
    }

    /// The same, over TLS where the URL says so.
    pub(crate) async fn send_either(
        &self,
        tasks: &Tasks,
        request: Request<Bytes>,
        tls: &EtcdTlsSpec,
    ) -> Result<Response<Incoming>, HttpError> {
        let stream = self.connect().await?;
        if !self.tls {
            return self.exchange(tasks, request, stream).await;
        }
        let secured = tls::connect(self.bare_host(), stream, tls).await;
        let stream = secured.map_err(|error| HttpError::Tls {
            address: self.address(),
            reason: base::chain(&error),
        })?;
        self.exchange(tasks, request, stream).await
    }

    async fn exchange(
        &self,
        tasks: &Tasks,
        mut request: Request<Bytes>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Response<Incoming>, HttpError> {
        let path = format!("{}{}", self.prefix, request.uri());
        *request.uri_mut() = path
            .parse()
            .map_err(|error: http::uri::InvalidUri| HttpError::Request(error.into()))?;
        let length = request.body().len();
        let host = HeaderValue::from_str(&self.address()).map_err(http::Error::from)?;
        request.headers_mut().insert(HOST, host);
        request.headers_mut().insert(CONTENT_LENGTH, length.into());

        let exchange = |source| HttpError::Exchange {
            address: self.address(),
            source,
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(exchange)?;
        tasks.spawn(TaskKind::UpstreamConnection, self.address(), async move {
            // Its error reaches whoever reads the answer.
            let _reported = connection.await;
            Ok(())
        });
        sender
            .send_request(request.map(Full::new))
            .await
            .map_err(exchange)
    }

    pub async fn connect(&self) -> Result<TcpStream, HttpError> {
        let unreachable = |source| HttpError::Connect {
            address: self.address(),
            source,
        };
        let bare = self.bare_host();
        let stream = match bare.parse::<IpAddr>() {
            Ok(ip) => TcpStream::connect((ip, self.port)).await,
            Err(_) => TcpStream::connect((bare, self.port)).await,
        }
        .map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        Ok(stream)
    }

    /// An IPv6 host comes in brackets from a URL and without them to a socket.
    fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_people_write_them() {
        for (url, address, prefix) in [
            ("http://127.0.0.1:8000", "127.0.0.1:8000", ""),
            ("localhost:9/", "localhost:9", ""),
            ("http://[::1]:8000/team/a/", "[::1]:8000", "/team/a"),
            ("http://example.org", "example.org:80", ""),
        ] {
            let endpoint = Endpoint::parse(url).expect(url);
            assert_eq!(
                (endpoint.address().as_str(), endpoint.prefix.as_str()),
                (address, prefix)
            );
        }
        for (url, reason) in [
            ("https://example.org", "only http://"),
            ("http://", "not a URL"),
            ("http://a b", "not a URL"),
        ] {
            let error = Endpoint::parse(url).expect_err(url).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
