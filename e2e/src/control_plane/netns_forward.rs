//! Forwards a port of this machine's loopback into a network namespace. Through this port, the test process and a user's
//! kubectl reach an API server in another namespace.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

/// How long opening the connection into the namespace may take. After this time, the forwarder closes the client's
/// connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A port that is forwarded into a network namespace. Dropping this value closes the port.
#[derive(Debug)]
pub struct NetnsForward {
    outside: SocketAddr,
    closed: Arc<AtomicBool>,
}

impl NetnsForward {
    /// Forwards a free port of 127.0.0.1 to the address `inside` of the network namespace at `netns`.
    pub fn open(netns: &Path, inside: SocketAddr) -> Result<Self> {
        Self::open_at(Ipv4Addr::LOCALHOST.into(), netns, inside)
    }

    /// Like [`Self::open`], but forwards a free port of this address.
    pub fn open_at(address: IpAddr, netns: &Path, inside: SocketAddr) -> Result<Self> {
        let namespace = std::fs::File::open(netns)
            .with_context(|| format!("the network namespace {} is missing", netns.display()))?;
        // Bind the listener before the thread enters the namespace, because a socket stays in the namespace in which it
        // was created.
        let listener = TcpListener::bind((address, 0))?;
        let outside = listener.local_addr()?;
        let closed = Arc::new(AtomicBool::new(false));
        let (flag, (entered, answer)) = (closed.clone(), std::sync::mpsc::channel());
        std::thread::spawn(move || {
            let result = setns(&namespace, CloneFlags::CLONE_NEWNET);
            drop(namespace);
            let ok = result.is_ok();
            if entered.send(result).is_err() || !ok {
                return;
            }
            for outer in listener.incoming().flatten() {
                if flag.load(Ordering::Acquire) {
                    return;
                }
                // If no program answers inside the namespace, this iteration ends and drops `outer`, which closes the
                // client's connection.
                if let Ok(inner) = TcpStream::connect_timeout(&inside, CONNECT_TIMEOUT) {
                    pass(&outer, &inner);
                    pass(&inner, &outer);
                }
            }
        });
        answer
            .recv()
            .context("the thread that forwards the port ended before it entered the namespace")?
            .with_context(|| {
                format!("the thread that forwards the port can't enter the network namespace {}", netns.display())
            })?;
        Ok(Self { outside, closed })
    }

    /// The forwarded address in this process's namespace.
    pub fn outside(&self) -> SocketAddr {
        self.outside
    }
}

impl Drop for NetnsForward {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
        // This connection wakes the listening thread. If the connection fails, the thread has already ended.
        let _ = TcpStream::connect_timeout(&self.outside, CONNECT_TIMEOUT);
    }
}

/// Copies bytes in one direction, in a new thread, until either connection closes.
fn pass(from: &TcpStream, to: &TcpStream) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
    let _ = to.set_nodelay(true);
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Read);
    });
}
