//! A TCP proxy in front of the API server that causes network faults. The proxy only forwards bytes, so a client's TLS
//! connection ends at the API server itself. Programs reach the proxy through a kubeconfig with the proxy's address.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Namespace;

/// How long the proxy waits for a connection before it checks whether the fault has changed.
const POLL_INTERVAL_MS: u16 = 10;
/// How long opening a connection to the API server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the proxy does to connections to the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkFault {
    /// The proxy forwards everything.
    None,
    /// The proxy refuses new connections and breaks open ones.
    Refuse,
    /// The proxy accepts connections and keeps them, but drops every byte.
    BlackHole,
    /// The proxy forwards requests and drops the answers. So the requests take effect, but clients do not learn the
    /// results.
    DropResponses,
    /// The proxy forwards each answer after this time.
    Delay(Duration),
}

impl NetworkFault {
    /// Whether the fault drops bytes. At the end of such a fault, the proxy must break the open connections, because
    /// bytes are missing in their streams.
    fn loses_bytes(self) -> bool {
        matches!(self, NetworkFault::BlackHole | NetworkFault::DropResponses)
    }
}

#[derive(Debug)]
struct Shared {
    fault: NetworkFault,
    open: Vec<(TcpStream, TcpStream)>,
    ended: bool,
    listening: bool,
}

/// The running proxy. Dropping this value ends the proxy and breaks its connections.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

impl TcpProxy {
    /// Starts a proxy on a free loopback port in `namespace`. The proxy connects to `target` from this process's
    /// namespace.
    pub fn start(namespace: &Namespace, target: SocketAddr) -> Result<Self> {
        let listener = listen(namespace, "127.0.0.1:0".parse()?)?;
        let address = listener.local_addr()?;
        let shared =
            Arc::new(Mutex::new(Shared { fault: NetworkFault::None, open: Vec::new(), ended: false, listening: true }));
        let (state, namespace) = (shared.clone(), namespace.clone());
        std::thread::spawn(move || serve(listener, &namespace, address, target, &state));
        Ok(Self { address, shared })
    }

    /// The address that the proxy listens on, inside its network namespace.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the network fault. The fault is active when this call returns.
    pub fn set(&self, fault: NetworkFault) {
        let mut shared = lock(&self.shared);
        if shared.fault == fault {
            return;
        }
        if shared.fault.loses_bytes() || fault == NetworkFault::Refuse {
            cut(&mut shared);
        }
        shared.fault = fault;
        drop(shared);
        let listens = fault != NetworkFault::Refuse;
        // Wait until the listening thread has closed or opened its socket. It sees the new fault within one poll interval.
        while lock(&self.shared).listening != listens {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        shared.ended = true;
        cut(&mut shared);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // No panic leaves the data half changed, so the data behind a poisoned lock is valid.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cut(shared: &mut Shared) {
    for (near, far) in shared.open.drain(..) {
        // Shutting a connection down fails if the other side has already closed it.
        let _ = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
    }
}

fn listen(namespace: &Namespace, address: SocketAddr) -> Result<TcpListener> {
    let listener =
        namespace.run(move || TcpListener::bind(address))?.context("the proxy can't listen on its address")?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn serve(
    first: TcpListener,
    namespace: &Namespace,
    address: SocketAddr,
    target: SocketAddr,
    state: &Arc<Mutex<Shared>>,
) {
    let mut listener = Some(first);
    loop {
        let fault = {
            let mut shared = lock(state);
            if shared.ended {
                return;
            }
            if shared.fault == NetworkFault::Refuse {
                listener = None;
            }
            shared.listening = listener.is_some();
            shared.fault
        };
        match &listener {
            Some(open) => {
                let mut look = [PollFd::new(open.as_fd(), PollFlags::POLLIN)];
                if poll(&mut look, PollTimeout::from(POLL_INTERVAL_MS)).is_ok_and(|ready| ready > 0)
                    && let Ok((near, _)) = open.accept()
                {
                    begin(&near, target, state);
                }
            }
            None if fault == NetworkFault::Refuse => {
                std::thread::sleep(Duration::from_millis(u64::from(POLL_INTERVAL_MS)));
            }
            None => listener = listen(namespace, address).ok(),
        }
    }
}

fn begin(near: &TcpStream, target: SocketAddr, state: &Arc<Mutex<Shared>>) {
    let Ok(far) = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT) else { return };
    let _ = (near.set_nonblocking(false), near.set_nodelay(true), far.set_nodelay(true));
    let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else { return };
    lock(state).open.push((near_too, far_too));
    for (from, to, answers) in [(near, &far, false), (&far, near, true)] {
        let (Ok(from), Ok(to), state) = (from.try_clone(), to.try_clone(), state.clone()) else { return };
        std::thread::spawn(move || pass(from, to, answers, &state));
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, answers: bool, state: &Mutex<Shared>) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let fault = lock(state).fault;
        match fault {
            NetworkFault::BlackHole => continue,
            NetworkFault::DropResponses if answers => continue,
            NetworkFault::Delay(time) if answers => std::thread::sleep(time),
            _ => {}
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = (to.shutdown(Shutdown::Write), from.shutdown(Shutdown::Read));
}
