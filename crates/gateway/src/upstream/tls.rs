use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connection::ConnectError;

/// The machine's trusted certificates, read when the first https upstream is called: it takes milliseconds, and most
/// processes never need it. Constant once read, so it is not state that anybody could want passed in.
static CONFIGS: OnceCell<Configs> = OnceCell::const_new();

/// The names of protocols in TLS (RFC 7301).
pub(super) const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What is spoken over TLS; the server chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    Http1,
    Http2,
    Either,
}

/// One configuration for each [`Offer`]; they share the certificates.
#[derive(Debug)]
struct Configs {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    either: Arc<ClientConfig>,
}

pub(super) async fn connect(
    host: &str,
    tcp: TcpStream,
    offer: Offer,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let configs = CONFIGS.get_or_try_init(load).await?;
    let config = match offer {
        Offer::Http1 => &configs.http1,
        Offer::Http2 => &configs.http2,
        Offer::Either => &configs.either,
    };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| ConnectError::Tls(format!("`{host}` is no name a certificate can carry")))?;
    Ok(TlsConnector::from(Arc::clone(config))
        .connect(name, tcp)
        .await?)
}

async fn load() -> Result<Configs, ConnectError> {
    // A few hundred small files: not on an async worker.
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs)
        .await
        .map_err(|error| ConnectError::Tls(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    let (added, _unusable) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(ConnectError::Tls(
            "this machine has no trusted certificates (Debian: install ca-certificates)".to_owned(),
        ));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConnectError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let offering = |protocols: &[&[u8]]| {
        let mut config = config.clone();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    };
    Ok(Configs {
        // Nothing offered, as before there was a choice: some servers refuse an offer that they do not know.
        http1: offering(&[]),
        http2: offering(&[HTTP2]),
        either: offering(&[HTTP2, HTTP1]),
    })
}
