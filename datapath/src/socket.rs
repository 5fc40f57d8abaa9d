//! A synchronous netlink socket: many requests in one datagram, each answer checked, each wait with a deadline.
//!
//! Every other file speaks to the kernel through it. A socket stays bound to the namespace of the thread that opened it.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netlink_sys::{Socket, SocketAddr, protocols};
use nix::libc;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::echoes::Echoes;
use crate::message::{Message, Reply, attributes, replies, text_of, u32_at};
use crate::notice_filter;
use crate::settings::Settings;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const DUMP_INTERRUPTED: u16 = 0x10;
const CAPPED: u16 = 0x100;
const WITH_TEXT: u16 = 0x200;
const ATTEMPTS: u32 = 6;
/// How long the kernel may take for one datagram. The routing lock is shared by the whole node, so this is generous.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why the kernel did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel said no.
    #[error("the kernel refused to {what}: {}{}", std::io::Error::from_raw_os_error(*.errno), .text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// What was asked, as a verb phrase.
        what: String,
        /// The error number, positive.
        errno: i32,
        /// The kernel's own words, if it gave any.
        text: Option<String>,
    },
    /// No answer within the deadline: whether it was done is unknown.
    #[error("the kernel did not answer within {0:?} when asked to {1}; look again before building on it")]
    Unanswered(Duration, String),
    /// A listing kept changing while it was read.
    #[error("the list of {0} changed under each of {ATTEMPTS} readings; try again")]
    Unstable(String),
    /// A socket, a file or a thread failed.
    #[error("could not {what}: {source}")]
    Io {
        /// What was tried, as a verb phrase.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A setting that nothing works with.
    #[error("{0}")]
    Setting(String),
    /// What is there is somebody else's.
    #[error("{0}")]
    Foreign(String),
}

impl KernelError {
    /// The error number, if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// A request and what it is for, as a verb phrase for the error's sentence.
pub(crate) struct Ask {
    pub(crate) message: Message,
    pub(crate) what: String,
}

impl Ask {
    pub(crate) fn new(what: impl Into<String>, message: Message) -> Self {
        Self { message, what: what.into() }
    }
}

/// What one request of a datagram came to.
pub(crate) type Answer = Result<Vec<Reply>, KernelError>;

/// The socket option of that name, which nix does not have.
#[derive(Clone, Copy, Debug)]
struct NetnsCookie;
nix::getsockopt_impl!(NetnsCookie, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, u64, sockopt::GetStruct<u64>);

/// One open socket; its namespace is that of the thread that opened it.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    pub(crate) port: u32,
    /// An answer may still be under way: the socket is not to be used again.
    pub(crate) torn: bool,
    echoes: Option<Arc<Echoes>>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        if let Some(echoes) = &self.echoes {
            echoes.closed(self.port);
        }
    }
}

impl Netlink {
    /// Opens a socket for routes, links and neighbours in the calling thread's namespace.
    pub(crate) fn route() -> Result<Self, KernelError> {
        Self::open(protocols::NETLINK_ROUTE)
    }

    /// Lets the monitor know that notices of this socket's requests are ours, for as long as it is open.
    pub(crate) fn known_to(mut self, echoes: &Arc<Echoes>) -> Self {
        echoes.opened(self.port);
        self.echoes = Some(echoes.clone());
        self
    }

    /// Lets the kernel drop notices that can't concern us.
    pub(crate) fn filter(&self, settings: &Settings) -> Result<(), KernelError> {
        notice_filter::attach(self.socket.as_fd(), settings).map_err(KernelError::io("filter the kernel's notices"))
    }

    /// Opens a socket for nftables in the calling thread's namespace.
    pub(crate) fn netfilter() -> Result<Self, KernelError> {
        Self::open(protocols::NETLINK_NETFILTER)
    }

    fn open(protocol: isize) -> Result<Self, KernelError> {
        let open = || -> std::io::Result<Self> {
            let mut socket = Socket::new(protocol)?;
            let port = socket.bind_auto()?.port_number();
            socket.set_cap_ack(true)?;
            socket.set_ext_ack(true)?;
            if protocol == protocols::NETLINK_ROUTE {
                socket.set_netlink_get_strict_chk(true)?;
            }
            // 100 acknowledgements of one datagram, or a long dump, must not overrun.
            setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20))
                .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &(1 << 20)))?;
            Ok(Self { socket, sequence: 0, port, torn: false, echoes: None })
        };
        open().map_err(KernelError::io("open a netlink socket"))
    }

    /// The cookie of the namespace that the socket belongs to (Linux 5.14 and later).
    pub(crate) fn netns_cookie(&self) -> Result<u64, KernelError> {
        getsockopt(&self.socket, NetnsCookie)
            .map_err(|errno| KernelError::io("read the cookie of the network namespace")(errno.into()))
    }

    /// Subscribes to multicast groups, for the monitor.
    pub(crate) fn subscribe(&mut self, groups: &[u32]) -> Result<(), KernelError> {
        groups
            .iter()
            .try_for_each(|group| self.socket.add_membership(*group))
            .map_err(KernelError::io("subscribe to the kernel's notices"))
    }

    /// Receives one datagram, or `None` when none came in time. `ENOBUFS` comes back as the error it is.
    pub(crate) fn receive(&self, wait: Duration) -> std::io::Result<Option<Vec<Reply>>> {
        let micros = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX).max(1000);
        setsockopt(&self.socket.as_fd(), sockopt::ReceiveTimeout, &TimeVal::microseconds(micros))?;
        self.receive_within_set_timeout()
    }

    fn receive_within_set_timeout(&self) -> std::io::Result<Option<Vec<Reply>>> {
        loop {
            let mut buffer = Vec::with_capacity(64 << 10);
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => return Ok(Some(replies(&buffer))),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends all requests in one datagram and gives each one's answer. The kernel goes on after one that fails.
    /// Each must ask for an acknowledgement, be a plain get, or be the only one and a dump.
    pub(crate) fn ask(&mut self, asks: Vec<Ask>) -> Result<Vec<Answer>, KernelError> {
        let answers = self.exchange(Vec::new(), asks, None);
        self.torn |= answers.is_err();
        answers
    }

    /// The same between two messages that make it one transaction (nftables).
    pub(crate) fn transaction(
        &mut self,
        begin: Message,
        asks: Vec<Ask>,
        end: Message,
    ) -> Result<Vec<Answer>, KernelError> {
        self.sequence += 1;
        let answers = self.exchange(begin.finish(self.sequence), asks, Some(end));
        self.torn |= answers.is_err();
        answers
    }

    fn exchange(
        &mut self,
        mut bytes: Vec<u8>,
        asks: Vec<Ask>,
        end: Option<Message>,
    ) -> Result<Vec<Answer>, KernelError> {
        let first = self.sequence + 1;
        let mut answers: Vec<Answer> = Vec::new();
        let mut open: Vec<Option<(String, bool)>> = Vec::new();
        // Requests are done in order and a refusal is always answered: outside a transaction the last one's
        // acknowledgement is that of all.
        let last_speaks_for_all = end.is_none() && asks.iter().all(|ask| ask.message.wants_ack());
        let last = asks.len();
        for (index, mut ask) in asks.into_iter().enumerate() {
            self.sequence += 1;
            if last_speaks_for_all && index + 1 < last {
                ask.message.quiet();
            }
            open.push(Some((ask.what, last_speaks_for_all || ask.message.wants_ack() || ask.message.is_dump())));
            answers.push(Ok(Vec::new()));
            bytes.extend(ask.message.finish(self.sequence));
        }
        if let Some(end) = end {
            self.sequence += 1;
            bytes.extend(end.finish(self.sequence));
        }
        let label = |open: &[Option<(String, bool)>]| {
            open.iter().flatten().map(|(what, _)| what.clone()).next().unwrap_or_default()
        };
        self.socket
            .send_to(&bytes, &SocketAddr::new(0, 0), 0)
            .map_err(KernelError::io(format!("send the request to {}", label(&open))))?;
        let start = Instant::now();
        while open.iter().any(Option::is_some) {
            let left = DEADLINE.saturating_sub(start.elapsed());
            let received =
                self.receive(left).map_err(KernelError::io(format!("hear the answer to {}", label(&open))))?;
            let Some(received) = received else { return Err(KernelError::Unanswered(DEADLINE, label(&open))) };
            for reply in received {
                let Some(index) = reply.sequence.checked_sub(first).map(|at| at as usize).filter(|at| *at < open.len())
                else {
                    continue;
                };
                if last_speaks_for_all && index + 1 == last && reply.kind == ERROR {
                    open[..index].fill(None);
                }
                if reply.kind == ERROR || reply.kind == DONE {
                    let errno = -i32::from_ne_bytes(u32_at(&reply.payload, 0).to_ne_bytes());
                    if let Some((what, _)) = open[index].take()
                        && errno > 0
                    {
                        answers[index] = Err(KernelError::Refused { what, errno, text: words(&reply) });
                    }
                } else {
                    if open[index].as_ref().is_some_and(|(_, closes_later)| !closes_later) {
                        open[index] = None;
                    }
                    if let Ok(list) = &mut answers[index] {
                        list.push(reply);
                    }
                }
            }
        }
        Ok(answers)
    }

    /// One request, one answer.
    pub(crate) fn one(&mut self, what: impl Into<String>, message: Message) -> Answer {
        self.ask(vec![Ask::new(what, message)])?.pop().unwrap_or_else(|| Ok(Vec::new()))
    }

    /// All requests; the first refusal is the result.
    pub(crate) fn all(&mut self, asks: Vec<Ask>) -> Result<(), KernelError> {
        self.ask(asks)?.into_iter().try_for_each(|answer| answer.map(drop))
    }

    /// A listing, read again while it changes under the reading.
    pub(crate) fn dump(&mut self, what: &str, message: &Message) -> Answer {
        for attempt in 0..ATTEMPTS {
            let found = self.one(format!("list {what}"), message.clone());
            match found {
                Ok(list) if list.iter().any(|reply| reply.flags & DUMP_INTERRUPTED != 0) => {}
                Err(KernelError::Refused { errno: nix::libc::EINTR, .. }) => {}
                // An overrun: the answer is torn, so the socket starts anew.
                Err(KernelError::Io { source, .. }) if source.raw_os_error() == Some(nix::libc::ENOBUFS) => {}
                other => return other,
            }
            std::thread::sleep(Duration::from_millis(1 << attempt));
        }
        Err(KernelError::Unstable(what.to_owned()))
    }
}

/// The kernel's own words in an error.
fn words(reply: &Reply) -> Option<String> {
    if reply.flags & WITH_TEXT == 0 {
        return None;
    }
    // The error number, then the header of the request (the whole request unless capped).
    let skip = if reply.flags & CAPPED != 0 { 20 } else { 4 + u32_at(&reply.payload, 4) as usize };
    let tail = reply.payload.get(skip.next_multiple_of(4)..)?;
    attributes(tail).into_iter().find(|(kind, _)| *kind == 1).map(|(_, text)| text_of(text))
}

/// Whether an error says that what was to be removed is gone already.
pub(crate) fn is_gone(error: &KernelError) -> bool {
    use nix::libc::{EADDRNOTAVAIL, ENODEV, ENOENT, ESRCH};
    matches!(error.errno(), Some(ENODEV | ENOENT | ESRCH | EADDRNOTAVAIL))
}

/// Takes "it is already gone" for success.
pub(crate) fn gone_is_fine(answer: Answer) -> Result<(), KernelError> {
    match answer {
        Err(error) if is_gone(&error) => Ok(()),
        other => other.map(drop),
    }
}
