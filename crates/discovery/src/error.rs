/// Why servers are not known for now. Whoever asks goes on with those it knows and asks again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("file `{file}` cannot be read: {reason}")]
    File { file: String, reason: String },
    /// The place is part of the message.
    #[error("{0}")]
    Written(#[from] protocol::resource::ResourceError),
    #[error("`{name}` has no addresses: {reason}")]
    Dns { name: String, reason: String },
    #[error("etcd: {0}")]
    Etcd(String),
    #[error(transparent)]
    Http(#[from] crate::http::HttpError),
    /// Nobody takes everything away by accident: a pool's last servers stay.
    #[error("{0} names no servers any more; the last ones are kept")]
    Empty(String),
}
