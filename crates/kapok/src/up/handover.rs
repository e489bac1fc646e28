//! What goes over the line between a kapok and the one that takes its place: listening sockets and managed processes.
//!
//! ```text
//! old ── offer (listening sockets) ──► new     reads its configuration, loads its models
//! old ◄── prepared ─────────────────── new
//! old ── processes (their lines) ────► new     goes on with them, begins to accept
//! old ◄── serving ──────────────────── new
//! ```
//!
//! The line is the new process's standard input. Sockets travel as SCM_RIGHTS, so nothing is inherited by accident by
//! whatever else is started meanwhile, and nobody but the two can ask for them.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use protocol::resource::ProcessSpec;
use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

/// Descriptors of one message: four doors, or a process's line and two streams.
const DESCRIPTORS_MAX: usize = 8;

/// Longest message: a process with a large environment.
const BYTES_MAX: usize = 4 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// With a listening socket for each door.
    Offer {
        doors: Vec<Offered>,
    },
    Prepared,
    /// How many processes follow.
    Processes(usize),
    /// With its line and its two streams.
    Process(Box<Handed>),
    Serving,
}

/// A door's name and the address that was asked for: port 0 has become a real one, which goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offered {
    pub(super) door: String,
    pub(super) configured: SocketAddr,
}

/// A managed process that runs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Handed {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) process: ProcessSpec,
    pub(super) pid: i32,
    pub(super) ready: bool,
}

/// One end. Blocking: used on threads that may wait.
#[derive(Debug)]
pub(super) struct Line(UnixStream);

impl Line {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// The same line again, for another thread.
    pub(super) fn again(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    pub(super) fn patience(&self, patience: Duration) -> io::Result<()> {
        self.0.set_read_timeout(Some(patience))?;
        self.0.set_write_timeout(Some(patience))
    }

    pub(super) fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let length = u32::try_from(text.len())
            .map_err(io::Error::other)?
            .to_be_bytes();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many descriptors in one message"));
        }
        // They go with the first byte.
        let sent = sendmsg(
            &self.0,
            &[IoSlice::new(&length)],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
        let mut stream = &self.0;
        stream.write_all(length.get(sent..).unwrap_or_default())?;
        stream.write_all(&text)
    }

    pub(super) fn receive(&self) -> io::Result<(Message, Vec<OwnedFd>)> {
        let mut length = [0; 4];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let slices = &mut [IoSliceMut::new(&mut length)];
        let received = recvmsg(&self.0, slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        let mut stream = &self.0;
        stream.read_exact(length.get_mut(received.bytes..).unwrap_or_default())?;
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
        if length > BYTES_MAX {
            return Err(io::Error::other("a message is too long"));
        }
        let mut text = vec![0; length];
        stream.read_exact(&mut text)?;
        Ok((serde_json::from_slice(&text)?, descriptors))
    }
}

/// Something else came than must come.
pub(super) fn out_of_turn(message: &Message) -> io::Error {
    let name = match message {
        Message::Offer { .. } => "offer",
        Message::Prepared => "prepared",
        Message::Processes(_) => "processes",
        Message::Process(_) => "process",
        Message::Serving => "serving",
    };
    io::Error::other(format!("`{name}` came out of turn"))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn sockets_arrive_with_their_message_and_work() {
        let (old, new) = UnixStream::pair().expect("a pair");
        let (old, new) = (Line::new(old), Line::new(new));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let configured = listener.local_addr().expect("bound");
        let offered = Offered {
            door: "public".to_owned(),
            configured,
        };
        let doors = vec![offered.clone()];
        let socket = listener.as_fd();
        old.send(&Message::Offer { doors }, &[socket])
            .expect("sent");
        old.send(&Message::Serving, &[]).expect("sent");
        let (message, mut sockets) = new.receive().expect("a message");
        assert!(
            matches!(&message, Message::Offer { doors } if *doors == [offered]),
            "{message:?}"
        );
        drop(listener);
        let taken = std::net::TcpListener::from(sockets.remove(0));
        let _client = std::net::TcpStream::connect(configured).expect("it still listens");
        taken.accept().expect("the client");
        let (message, sockets) = new.receive().expect("a message");
        assert!(matches!(message, Message::Serving) && sockets.is_empty());
        drop(old);
        assert!(new.receive().is_err(), "the other side is gone");
    }
}
