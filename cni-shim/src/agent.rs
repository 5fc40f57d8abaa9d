//! Makes one call to the agent over the agent's socket. The connection, the request and the answer have one common
//! deadline. The shim never retries a call.

use crate::clock::since_boot;
use bobbin_cni_wire::Response;
use nix::errno::Errno;
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg, setsockopt, socket,
};
use nix::sys::time::TimeVal;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// How long the shim waits for the agent's answer to a STATUS. With this limit, the shim ends within 1 s.
pub const STATUS_TIMEOUT: Duration = Duration::from_millis(800);

/// Why the shim has no answer from the agent. Each cause may be temporary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nothing listens on the socket.
    Absent,
    /// The agent closed the connection during the call.
    HungUp,
    /// The agent did not answer before the deadline.
    Silent,
    /// The agent's answer is not a valid frame.
    Garbled,
}

impl Unreachable {
    /// Says what happened, as the start of a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Unreachable::Absent => "the Bobbin agent of this node is not running or is still starting",
            Unreachable::HungUp => "the Bobbin agent of this node stopped during the call",
            Unreachable::Silent => "the Bobbin agent of this node did not answer in time",
            Unreachable::Garbled => {
                "the Bobbin agent of this node sent an answer that this version of the CNI plugin can't read"
            }
        }
    }
}

/// One call to the agent's socket.
pub struct Agent<'a> {
    socket: &'a Path,
    deadline: Duration,
}

impl<'a> Agent<'a> {
    /// Prepares a call to the agent that listens on `socket`. The call fails if it takes longer than `timeout`.
    pub fn new(socket: &'a Path, timeout: Duration) -> Agent<'a> {
        Agent { socket, deadline: since_boot() + timeout }
    }

    /// Sends the frame, and receives the response. The first byte of the frame carries the network namespace's file
    /// descriptor.
    pub fn ask(&self, frame: &[u8], netns: Option<&OwnedFd>) -> Result<Response, Unreachable> {
        let connection = self.connect()?;
        self.send(&connection, frame, netns)?;
        self.receive(&connection)
    }

    fn connect(&self) -> Result<OwnedFd, Unreachable> {
        let connection = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|_| Unreachable::Absent)?;
        let address = UnixAddr::new(self.socket).map_err(|_| Unreachable::Absent)?;
        // The send timeout also limits a `connect` that waits because the agent's listen queue is full (unix(7), EAGAIN).
        setsockopt(&connection, SendTimeout, &self.left()?).map_err(|_| Unreachable::Absent)?;
        connect(connection.as_raw_fd(), &address).map_err(|errno| match errno {
            Errno::EAGAIN | Errno::EINTR => Unreachable::Silent,
            _ => Unreachable::Absent,
        })?;
        Ok(connection)
    }

    fn send(&self, connection: &OwnedFd, frame: &[u8], netns: Option<&OwnedFd>) -> Result<(), Unreachable> {
        let descriptors = netns.map(AsRawFd::as_raw_fd);
        let rights = descriptors.as_ref().map(std::slice::from_ref).map(ControlMessage::ScmRights);
        let mut control = rights.as_slice();
        let mut sent = 0;
        while sent < frame.len() {
            setsockopt(connection, SendTimeout, &self.left()?).map_err(|_| Unreachable::HungUp)?;
            let rest = [IoSlice::new(&frame[sent..])];
            match sendmsg::<()>(connection.as_raw_fd(), &rest, control, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(count) => {
                    sent += count;
                    control = &[];
                }
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(_) => return Err(Unreachable::HungUp),
            }
        }
        Ok(())
    }

    fn receive(&self, connection: &OwnedFd) -> Result<Response, Unreachable> {
        let mut bytes = Vec::new();
        loop {
            let needed = Response::needed(&bytes).map_err(|_| Unreachable::Garbled)?;
            let have = bytes.len();
            if have >= needed {
                return Response::decode(&bytes).map_err(|_| Unreachable::Garbled);
            }
            bytes.resize(needed, 0);
            setsockopt(connection, ReceiveTimeout, &self.left()?).map_err(|_| Unreachable::HungUp)?;
            let count = match recv(connection.as_raw_fd(), &mut bytes[have..], MsgFlags::empty()) {
                Ok(0) => return Err(Unreachable::HungUp),
                Ok(count) => count,
                Err(Errno::EINTR | Errno::EAGAIN) => 0,
                Err(_) => return Err(Unreachable::HungUp),
            };
            bytes.truncate(have + count);
        }
    }

    /// The time left until the call's deadline. Fails if less than 1 ms is left, because a socket timeout of zero would mean
    /// no timeout.
    fn left(&self) -> Result<TimeVal, Unreachable> {
        let left = self.deadline.saturating_sub(since_boot());
        if left < Duration::from_millis(1) {
            return Err(Unreachable::Silent);
        }
        let microseconds = i64::from(left.subsec_micros());
        Ok(TimeVal::new(i64::try_from(left.as_secs()).unwrap_or(60), microseconds))
    }
}
