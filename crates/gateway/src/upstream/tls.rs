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
static CONFIG: OnceCell<Arc<ClientConfig>> = OnceCell::const_new();

pub(super) async fn connect(
    host: &str,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let config = CONFIG.get_or_try_init(load).await?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| ConnectError::Tls(format!("`{host}` is no name a certificate can carry")))?;
    Ok(TlsConnector::from(Arc::clone(config))
        .connect(name, tcp)
        .await?)
}

async fn load() -> Result<Arc<ClientConfig>, ConnectError> {
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
    Ok(Arc::new(config))
}
