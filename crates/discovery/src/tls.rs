use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::resource::EtcdTlsSpec;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Whom the machine trusts, read when first needed: it takes milliseconds. Constant once read, so it is not state that
/// anybody could want passed in.
static SYSTEM: OnceCell<Arc<RootCertStore>> = OnceCell::const_new();

/// Why there is no secure connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("file `{}` cannot be used: {reason}", file.display())]
    File { file: PathBuf, reason: String },
    #[error(
        "this machine has no trusted certificates (Debian: install ca-certificates); name a `caFile`"
    )]
    NoRoots,
    #[error("its host is no name that a certificate can carry")]
    Name(#[from] InvalidDnsNameError),
    #[error("certificates cannot be read")]
    Task(#[from] tokio::task::JoinError),
    #[error("the certificate and key are not usable")]
    Config(#[from] rustls::Error),
    #[error("no agreement was reached")]
    Handshake(#[from] std::io::Error),
}

pub(crate) async fn connect(
    host: &str,
    stream: TcpStream,
    files: &EtcdTlsSpec,
) -> Result<TlsStream<TcpStream>, TlsError> {
    let name = ServerName::try_from(host.to_owned())?;
    let system = match files.ca_file {
        Some(_) => None,
        None => Some(Arc::clone(SYSTEM.get_or_try_init(system).await?)),
    };
    let files = files.clone();
    // Files: not on an async worker.
    let config = tokio::task::spawn_blocking(move || config(&files, system)).await??;
    let connector = TlsConnector::from(Arc::new(config));
    Ok(connector.connect(name, stream).await?)
}

async fn system() -> Result<Arc<RootCertStore>, TlsError> {
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await?;
    let mut roots = RootCertStore::empty();
    let (added, _unusable) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(TlsError::NoRoots);
    }
    Ok(Arc::new(roots))
}

fn config(
    files: &EtcdTlsSpec,
    system: Option<Arc<RootCertStore>>,
) -> Result<ClientConfig, TlsError> {
    let roots = match (&files.ca_file, system) {
        (Some(file), _) => Arc::new(roots(file)?),
        (None, system) => system.ok_or(TlsError::NoRoots)?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let (Some(cert), Some(key)) = (&files.cert_file, &files.key_file) else {
        return Ok(builder.with_no_client_auth());
    };
    let private = PrivateKeyDer::from_pem_slice(&read(key)?);
    let private = private.map_err(|error| unusable(key, error.to_string()))?;
    Ok(builder.with_client_auth_cert(certificates(cert)?, private)?)
}

fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        let added = roots.add(certificate);
        added.map_err(|error| unusable(file, error.to_string()))?;
    }
    Ok(roots)
}

/// At least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(file)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let read = read.map_err(|error| unusable(file, error.to_string()))?;
    if read.is_empty() {
        return Err(unusable(file, "there is no certificate in it".to_owned()));
    }
    Ok(read)
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|error| unusable(file, error.to_string()))
}

fn unusable(file: &Path, reason: String) -> TlsError {
    TlsError::File {
        file: file.to_owned(),
        reason,
    }
}
