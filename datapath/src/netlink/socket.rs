//! A synchronous netlink socket for dumps and for batches of requests. It sends many requests in one datagram, and
//! checks each answer.
//!
//! rtnetlink's handle does not fit, because it sends one request per datagram. The handle also skips answers that it
//! can't decode, and ignores `NLM_F_DUMP_INTR`, so a list from the handle may lack entries.
//!
//! A socket belongs to the network namespace of the thread that opens it.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use rtnetlink::packet_core::{
    ErrorBuffer, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, Parseable,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{Socket, SocketAddr, protocols};

use super::error::{HEADER_LEN, KernelError, MAX_DUMP_ATTEMPTS, explanation};
use super::own_changes::OwnChanges;

/// How long the kernel may take to answer one datagram. The limit is generous, because all programs on the node compete
/// for the kernel's RTNL lock.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The size of the receive buffer. The buffer must hold a long list, or the acknowledgements of a datagram with a
/// hundred requests.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// The size of the receive buffer in a process without `CAP_NET_ADMIN`.
const UNPRIVILEGED_RECEIVE_BUFFER_BYTES: usize = 1 << 20;
/// The largest datagram that a socket can receive. Since Linux 4.9 the kernel's datagrams have at most 32 KiB.
const DATAGRAM_BYTES: usize = 64 << 10;
/// The initial size of the send buffer. The requests of one ADD fit into this size.
const REQUESTS_BYTES: usize = 2 << 10;

/// A netlink request, and its purpose as a verb phrase for error texts.
pub(crate) struct Request<M = RouteNetlinkMessage> {
    pub(crate) what: String,
    pub(super) message: NetlinkMessage<M>,
}

impl<M: NetlinkSerializable> Request<M> {
    /// Creates a netlink request. The request has the flag `NLM_F_REQUEST` and the given `flags`.
    pub(crate) fn new(what: impl Into<String>, flags: u16, message: M) -> Self {
        let mut header = NetlinkHeader::default();
        header.flags = flags | NLM_F_REQUEST;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        Self { what: what.into(), message }
    }

    fn wants_ack(&self) -> bool {
        self.message.header.flags & NLM_F_ACK != 0
    }

    fn is_dump(&self) -> bool {
        let flags = self.message.header.flags;
        flags & NLM_F_DUMP == NLM_F_DUMP && flags & NLM_F_CREATE == 0 && !self.wants_ack()
    }

    /// Clears `NLM_F_ACK`, so that the kernel answers the request only if it fails.
    fn without_ack(&mut self) {
        self.message.header.flags &= !NLM_F_ACK;
    }

    fn append_to(&mut self, datagram: &mut Vec<u8>, sequence: u32) {
        self.message.header.sequence_number = sequence;
        let start = datagram.len();
        datagram.resize(start + self.message.buffer_len(), 0);
        self.message.serialize(&mut datagram[start..]);
    }
}

/// One message of the kernel's answer to a request.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) header: NetlinkHeader,
    pub(crate) payload: Vec<u8>,
}

impl Reply {
    pub(crate) fn kind(&self) -> u16 {
        self.header.message_type
    }
}

/// Splits a received datagram into its messages. Drops a truncated message at the end.
pub(super) fn replies(mut datagram: &[u8]) -> Vec<Reply> {
    let mut found = Vec::new();
    while let Ok(buffer) = NetlinkBuffer::new_checked(datagram) {
        let length = buffer.length() as usize;
        let Ok(header) = NetlinkHeader::parse(&buffer) else { break };
        found.push(Reply { header, payload: datagram[HEADER_LEN..length].to_vec() });
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The kernel's answer to one of the requests in a datagram.
pub(crate) type Answer = Result<Vec<Reply>, KernelError>;

/// The socket option `SO_NETNS_COOKIE`, which nix lacks.
#[derive(Clone, Copy, Debug)]
struct NetnsCookie;
nix::getsockopt_impl!(NetnsCookie, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, u64, sockopt::GetStruct<u64>);

/// A netlink socket in the namespace of the thread that opened it.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    port: u32,
    /// True if an answer was not received in full. The rest may still arrive, so do not send further requests.
    pub(crate) broken: bool,
    own_changes: Option<Arc<OwnChanges>>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        if let Some(own_changes) = &self.own_changes {
            own_changes.closed(self.port);
        }
    }
}

/// Applies the options that every netlink socket of this crate needs, and returns the port that the kernel assigned.
pub(crate) fn configure(socket: &mut Socket, protocol: isize) -> std::io::Result<u32> {
    let port = socket.bind_auto()?.port_number();
    socket.set_cap_ack(true)?;
    socket.set_ext_ack(true)?;
    if protocol == protocols::NETLINK_ROUTE {
        socket.set_netlink_get_strict_chk(true)?;
    }
    setsockopt(&*socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES)
        .or_else(|_| setsockopt(&*socket, sockopt::RcvBuf, &UNPRIVILEGED_RECEIVE_BUFFER_BYTES))?;
    Ok(port)
}

impl Netlink {
    /// Opens a socket for routes, links and neighbours in the calling thread's namespace.
    pub(crate) fn route() -> Result<Self, KernelError> {
        Self::open(protocols::NETLINK_ROUTE)
    }

    /// Opens a socket for nftables in the calling thread's namespace.
    pub(crate) fn netfilter() -> Result<Self, KernelError> {
        Self::open(protocols::NETLINK_NETFILTER)
    }

    /// Registers the socket's port, so that the monitor ignores notifications that follow from the socket's requests.
    pub(crate) fn registered(mut self, own_changes: &Arc<OwnChanges>) -> Self {
        own_changes.opened(self.port);
        self.own_changes = Some(own_changes.clone());
        self
    }

    fn open(protocol: isize) -> Result<Self, KernelError> {
        let open = || -> std::io::Result<Self> {
            let mut socket = Socket::new(protocol)?;
            let port = configure(&mut socket, protocol)?;
            Ok(Self { socket, sequence: 0, port, broken: false, own_changes: None })
        };
        open().map_err(KernelError::io("open a netlink socket"))
    }

    /// The cookie of the socket's namespace (Linux 5.14 and later).
    pub(crate) fn netns_cookie(&self) -> Result<u64, KernelError> {
        getsockopt(&self.socket, NetnsCookie)
            .map_err(|errno| KernelError::io("read the cookie of the network namespace")(errno.into()))
    }

    /// Receives one datagram. Returns `None` if no datagram arrived in time.
    fn receive(&self, timeout: Duration) -> std::io::Result<Option<Vec<Reply>>> {
        let micros = i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX).max(1000);
        setsockopt(&self.socket.as_fd(), sockopt::ReceiveTimeout, &TimeVal::microseconds(micros))?;
        loop {
            let mut buffer = Vec::with_capacity(DATAGRAM_BYTES);
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => return Ok(Some(replies(&buffer))),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends all requests in one datagram and returns the answer to each. After a refused request, the kernel still
    /// handles the next one. Each request must ask for an acknowledgement or look up one object. A dump must be the
    /// only request in the call.
    pub(crate) fn send<M: NetlinkSerializable>(
        &mut self,
        requests: Vec<Request<M>>,
    ) -> Result<Vec<Answer>, KernelError> {
        let answers = self.exchange(Vec::with_capacity(REQUESTS_BYTES), requests, None);
        self.broken |= answers.is_err();
        answers
    }

    /// Sends the requests as one nftables transaction, between the messages `begin` and `end`. Returns the answer to
    /// each request, like [`Self::send`].
    pub(crate) fn send_transaction<M: NetlinkSerializable>(
        &mut self,
        mut begin: Request<M>,
        requests: Vec<Request<M>>,
        end: Request<M>,
    ) -> Result<Vec<Answer>, KernelError> {
        let mut datagram = Vec::with_capacity(REQUESTS_BYTES);
        self.sequence += 1;
        begin.append_to(&mut datagram, self.sequence);
        let answers = self.exchange(datagram, requests, Some(end));
        self.broken |= answers.is_err();
        answers
    }

    fn exchange<M: NetlinkSerializable>(
        &mut self,
        mut datagram: Vec<u8>,
        requests: Vec<Request<M>>,
        end: Option<Request<M>>,
    ) -> Result<Vec<Answer>, KernelError> {
        let first = self.sequence + 1;
        let mut answers: Vec<Answer> = Vec::new();
        let mut pending: Vec<Option<Pending>> = Vec::new();
        // The kernel handles requests in order and always reports errors. So outside a transaction, the acknowledgement
        // of the last request also shows that each earlier request without an error has succeeded.
        let last_ack_is_enough = end.is_none() && requests.iter().all(Request::wants_ack);
        let last = requests.len();
        for (index, mut request) in requests.into_iter().enumerate() {
            self.sequence += 1;
            let has_final_message = last_ack_is_enough || request.wants_ack() || request.is_dump();
            if last_ack_is_enough && index + 1 < last {
                request.without_ack();
            }
            request.append_to(&mut datagram, self.sequence);
            pending.push(Some(Pending { what: request.what, has_final_message }));
            answers.push(Ok(Vec::new()));
        }
        if let Some(mut end) = end {
            self.sequence += 1;
            end.append_to(&mut datagram, self.sequence);
        }
        let what = |pending: &[Option<Pending>]| {
            pending.iter().flatten().map(|request| request.what.clone()).next().unwrap_or_default()
        };
        self.socket
            .send_to(&datagram, &SocketAddr::new(0, 0), 0)
            .map_err(KernelError::io(format!("send the request to {}", what(&pending))))?;
        let start = Instant::now();
        while pending.iter().any(Option::is_some) {
            let left = ANSWER_TIMEOUT.saturating_sub(start.elapsed());
            let received =
                self.receive(left).map_err(KernelError::io(format!("receive the answer to {}", what(&pending))))?;
            let Some(received) = received else { return Err(KernelError::Unanswered(ANSWER_TIMEOUT, what(&pending))) };
            for reply in received {
                let index = reply.header.sequence_number.checked_sub(first).map(|at| at as usize);
                let Some(index) = index.filter(|at| *at < pending.len()) else { continue };
                if last_ack_is_enough && index + 1 == last && reply.kind() == NLMSG_ERROR {
                    pending[..index].fill_with(|| None);
                }
                if reply.kind() == NLMSG_ERROR || reply.kind() == NLMSG_DONE {
                    let code = ErrorBuffer::new_checked(reply.payload.as_slice()).ok().and_then(|error| error.code());
                    if let Some(Pending { what, .. }) = pending[index].take()
                        && let Some(code) = code.filter(|code| code.get() < 0)
                    {
                        let text = explanation(reply.header, reply.payload.get(4..).unwrap_or_default());
                        answers[index] = Err(KernelError::Refused { what, errno: code.get().saturating_neg(), text });
                    }
                } else {
                    if pending[index].as_ref().is_some_and(|request| !request.has_final_message) {
                        pending[index] = None;
                    }
                    if let Ok(list) = &mut answers[index] {
                        list.push(reply);
                    }
                }
            }
        }
        Ok(answers)
    }

    /// Sends one request and returns its answer.
    pub(crate) fn send_one<M: NetlinkSerializable>(&mut self, request: Request<M>) -> Answer {
        self.send(vec![request])?.pop().unwrap_or_else(|| Ok(Vec::new()))
    }

    /// Sends all requests and returns the first refusal, if any.
    pub(crate) fn send_all(&mut self, requests: Vec<Request>) -> Result<(), KernelError> {
        self.send(requests)?.into_iter().try_for_each(|answer| answer.map(drop))
    }

    /// Reads a list from the kernel, and reads it again if the list changed during the read.
    pub(crate) fn dump<M: NetlinkSerializable + Clone>(&mut self, list: &str, message: &M) -> Answer {
        for attempt in 0..MAX_DUMP_ATTEMPTS {
            let found = self.send_one(Request::new(format!("list {list}"), NLM_F_DUMP, message.clone()));
            match found {
                Ok(list) if list.iter().any(|reply| reply.header.flags & NLM_F_DUMP_INTR != 0) => {}
                Err(KernelError::Refused { errno: libc::EINTR, .. }) => {}
                // The socket's receive buffer overran, so parts of the answer were lost.
                Err(KernelError::Io { source, .. }) if source.raw_os_error() == Some(libc::ENOBUFS) => {}
                other => return other,
            }
            std::thread::sleep(Duration::from_millis(1 << attempt));
        }
        Err(KernelError::Unstable(list.to_owned()))
    }
}

/// A request whose answer has not arrived in full.
struct Pending {
    what: String,
    /// Whether the answer ends with a separate message: an acknowledgement, or the end of a dump.
    has_final_message: bool,
}
