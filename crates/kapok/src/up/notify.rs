//! Words to a service manager (systemd's `Type=notify`): one datagram each, to the socket that it names.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use crate::config::Environment;

/// It listens.
pub(super) const READY: &str = "READY=1";
pub(super) const STOPPING: &str = "STOPPING=1";

/// Another process is the service from now on.
pub(super) fn main_pid(pid: u32) -> String {
    format!("MAINPID={pid}")
}

/// Does nothing where nobody asked for it.
pub(super) fn tell(environment: &Environment, words: &str) {
    let Some(path) = &environment.notify else {
        return;
    };
    let told = address(path).and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.send_to_addr(words.as_bytes(), &address)
    });
    if let Err(error) = told {
        tracing::debug!(%error, words, "the service manager does not hear");
    }
}

fn address(path: &Path) -> std::io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = path.as_os_str().as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt as _;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_at_the_socket_that_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        let named = [("NOTIFY_SOCKET".to_owned(), path.display().to_string())];
        tell(&Environment::of(named), &main_pid(7));
        tell(&Environment::default(), READY);
        let mut words = [0; 64];
        let count = manager.recv(&mut words).expect("a datagram");
        assert_eq!(&words[..count], b"MAINPID=7");
    }
}
