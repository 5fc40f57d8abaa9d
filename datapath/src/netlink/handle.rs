//! rtnetlink's handle for requests that no pod waits for: rules, exported and direct routes, node setup and repairs.
//!
//! rtnetlink's sockets need a tokio runtime, but the callers run on plain threads. So a separate thread drives the
//! sockets. A socket belongs to the network namespace of the thread that opens it.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use rtnetlink::packet_core::{NetlinkPayload, NetlinkSerializable};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{AsyncSocket, TokioSocket, protocols};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::error::{KernelError, explanation};
use super::own_changes::OwnChanges;
use super::socket::{ANSWER_TIMEOUT, Request, configure};

const STACK_BYTES: usize = 512 << 10;

/// The thread that drives rtnetlink's sockets. Dropping this value ends the thread.
pub(crate) struct NetlinkThread {
    runtime: tokio::runtime::Handle,
    _stop: oneshot::Sender<()>,
}

impl NetlinkThread {
    /// Starts the netlink thread in the network namespace of the calling thread.
    pub(crate) fn start(name: &str) -> Result<Self, KernelError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.map_err(KernelError::io("start a tokio runtime"))?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || drop(runtime.block_on(stopped));
        let spawned = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(run);
        spawned.map_err(KernelError::io("start a thread"))?;
        Ok(Self { runtime: handle, _stop: stop })
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }
}

/// rtnetlink's handle with blocking methods. An async task must not call these methods.
pub(crate) struct RouteHandle {
    runtime: tokio::runtime::Handle,
    connection: Arc<Mutex<Connection>>,
    own_changes: Arc<OwnChanges>,
}

struct Connection {
    handle: rtnetlink::Handle,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Registers a socket's port as one of Bobbin's own until the socket's connection ends.
struct RegisteredPort(Arc<OwnChanges>, u32);

impl Drop for RegisteredPort {
    fn drop(&mut self) {
        self.0.closed(self.1);
    }
}

impl Connection {
    /// Opens a socket in the calling thread's namespace. The caller must have entered the tokio runtime.
    fn open(own_changes: &Arc<OwnChanges>) -> Result<Self, KernelError> {
        let open = || -> std::io::Result<(TokioSocket, u32)> {
            let mut socket = TokioSocket::new(protocols::NETLINK_ROUTE)?;
            let port = configure(socket.socket_mut(), protocols::NETLINK_ROUTE)?;
            Ok((socket, port))
        };
        let (socket, port) = open().map_err(KernelError::io("open rtnetlink's socket"))?;
        let (mut connection, handle, _) = rtnetlink::from_socket(socket);
        // Without this option, the connection drops acknowledgements. The caller could then not tell a successful
        // request from a closed connection.
        connection.set_forward_ack(true);
        own_changes.opened(port);
        let registered = RegisteredPort(own_changes.clone(), port);
        let task = tokio::spawn(async move {
            let _registered = registered;
            connection.await;
        });
        Ok(Self { handle, task })
    }
}

impl RouteHandle {
    /// Opens the handle in the calling thread's namespace. `thread` drives the handle's socket.
    pub(crate) fn open(thread: &NetlinkThread, own_changes: &Arc<OwnChanges>) -> Result<Self, KernelError> {
        let runtime = thread.runtime().clone();
        let connection = {
            let _context = runtime.enter();
            Connection::open(own_changes)?
        };
        Ok(Self { runtime, connection: Arc::new(Mutex::new(connection)), own_changes: own_changes.clone() })
    }

    /// Sends one request that asks for an acknowledgement.
    pub(crate) fn send_one(&self, request: Request) -> Result<(), KernelError> {
        self.send(vec![request])?.pop().unwrap_or(Ok(()))
    }

    /// Sends the requests one after another, and returns the answer to each. A failed request does not stop the
    /// following requests.
    pub(crate) fn send(&self, requests: Vec<Request>) -> Result<Vec<Result<(), KernelError>>, KernelError> {
        let (done, answers) = oneshot::channel();
        let (connection, own_changes) = (self.connection.clone(), self.own_changes.clone());
        self.runtime.spawn(async move {
            let mut answers = Vec::with_capacity(requests.len());
            for request in requests {
                answers.push(exchange(&connection, &own_changes, request, ANSWER_TIMEOUT).await);
            }
            drop(done.send(answers));
        });
        answers.blocking_recv().map_err(|_| KernelError::io("wait for rtnetlink's answers")(ended()))
    }
}

async fn exchange(
    connection: &Mutex<Connection>,
    own_changes: &Arc<OwnChanges>,
    request: Request,
    timeout: Duration,
) -> Result<(), KernelError> {
    let what = request.what;
    let mut handle = {
        let mut connection = connection.lock();
        if connection.task.is_finished() {
            *connection = Connection::open(own_changes)?;
        }
        connection.handle.clone()
    };
    let sent = handle.request(request.message);
    let mut answers = sent.map_err(|_| KernelError::io(format!("send the request to {what}"))(ended()))?;
    match tokio::time::timeout(timeout, answers.next()).await {
        // The kernel did not answer in time. Open a new connection, so that a later request never receives the late
        // answer.
        Err(_) => {
            *connection.lock() = Connection::open(own_changes)?;
            Err(KernelError::Unanswered(timeout, what))
        }
        Ok(None) => Err(KernelError::io(format!("receive the answer to {what}"))(ended())),
        Ok(Some(answer)) => match answer.payload {
            NetlinkPayload::Error(error) => match error.code {
                None => Ok(()),
                Some(code) => {
                    let text = explanation(answer.header, &error.header);
                    Err(KernelError::Refused { what, errno: code.get().saturating_abs(), text })
                }
            },
            other => Err(KernelError::io(format!("receive the answer to {what}"))(unexpected(&other))),
        },
    }
}

fn ended() -> std::io::Error {
    std::io::Error::other("the netlink connection ended")
}

fn unexpected(payload: &NetlinkPayload<RouteNetlinkMessage>) -> std::io::Error {
    let kind = match payload {
        NetlinkPayload::InnerMessage(message) => NetlinkSerializable::message_type(message),
        other => other.message_type(),
    };
    std::io::Error::other(format!("the kernel sent message type {kind} instead of an acknowledgement"))
}
