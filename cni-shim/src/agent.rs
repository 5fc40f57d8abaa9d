//! The one socket call to the agent: connect, send, receive, all within one deadline. Never tries twice.

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

/// STATUS is answered within 1 s, the shim's own start and end included.
pub const STATUS_PATIENCE: Duration = Duration::from_millis(800);

/// Why there is no answer of the agent's. All of them: try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody listens.
    Absent,
    /// It ended, or hung up, in the middle of the call.
    HungUp,
    /// It was silent until the deadline.
    Silent,
    /// What came back is no answer.
    Garbled,
}

impl Unreachable {
    /// What happened, as the start of a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Unreachable::Absent => "the Bobbin agent of this node does not run or is just starting",
            Unreachable::HungUp => "the Bobbin agent of this node ended in the middle of the call",
            Unreachable::Silent => "the Bobbin agent of this node did not answer in time",
            Unreachable::Garbled => {
                "the Bobbin agent of this node gave an answer that is none, as one of another version would"
            }
        }
    }
}

/// The agent's socket, for one call.
pub struct Agent<'a> {
    socket: &'a Path,
    deadline: Duration,
}

impl<'a> Agent<'a> {
    /// The agent that listens there; the call may take so long in all.
    pub fn new(socket: &'a Path, patience: Duration) -> Agent<'a> {
        Agent { socket, deadline: since_boot() + patience }
    }

    /// Sends the frame, with the namespace's descriptor on its first byte, and receives the response.
    pub fn ask(&self, frame: &[u8], netns: Option<&OwnedFd>) -> Result<Response, Unreachable> {
        let connection = self.connect()?;
        self.send(&connection, frame, netns)?;
        self.receive(&connection)
    }

    fn connect(&self) -> Result<OwnedFd, Unreachable> {
        let connection = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|_| Unreachable::Absent)?;
        let address = UnixAddr::new(self.socket).map_err(|_| Unreachable::Absent)?;
        // The send timeout holds for a connect that waits in the listener's queue too (unix(7), EAGAIN).
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

    /// What is left until the deadline; never zero, which a socket takes for "for ever".
    fn left(&self) -> Result<TimeVal, Unreachable> {
        let left = self.deadline.saturating_sub(since_boot());
        if left < Duration::from_millis(1) {
            return Err(Unreachable::Silent);
        }
        let microseconds = i64::from(left.subsec_micros());
        Ok(TimeVal::new(i64::try_from(left.as_secs()).unwrap_or(60), microseconds))
    }
}
