//! Streams of requests to a pod. Each request is one datagram, so that no retransmission hides a lost packet.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use bobbin_e2e::cluster::pod::PORT;
use bobbin_e2e::network::Namespace;

/// The time between two requests.
const INTERVAL: Duration = Duration::from_millis(40);

/// What became of the requests of one stream.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many requests got an answer.
    pub answered: usize,
    /// When the requests without an answer were sent, counted from the start of the stream.
    pub lost: Vec<Duration>,
}

/// A running stream of requests.
pub struct Requests {
    stop: Sender<()>,
    thread: JoinHandle<Outcome>,
}

impl Requests {
    /// Starts a stream from a namespace to a pod. A request without an answer within `patience` counts as lost.
    pub fn start(from: &Namespace, to: IpAddr, patience: Duration) -> Result<Self> {
        let socket = from.run(move || -> Result<UdpSocket> {
            let socket = UdpSocket::bind((any(to), 0))?;
            socket.set_read_timeout(Some(patience))?;
            Ok(socket)
        })??;
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let (start, mut outcome) = (Instant::now(), Outcome::default());
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let sent = start.elapsed();
                if ask(&socket, to) {
                    outcome.answered += 1;
                } else {
                    outcome.lost.push(sent);
                }
            }
            outcome
        });
        Ok(Self { stop, thread })
    }

    pub fn end(self) -> Result<Outcome> {
        drop(self.stop);
        self.thread.join().map_err(|_| anyhow!("the thread that sends requests panicked"))
    }
}

/// Sends one request. The pod answers `hostname` with its name.
fn ask(socket: &UdpSocket, to: IpAddr) -> bool {
    let mut buffer = [0; 256];
    // Treat a socket error like a missing answer. The kernel reports the error of an earlier request, such as an
    // unreachable network, at the next call.
    socket.send_to(b"hostname", SocketAddr::new(to, PORT)).is_ok() && socket.recv_from(&mut buffer).is_ok()
}

fn any(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { IpAddr::from([0, 0, 0, 0]) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) }
}
