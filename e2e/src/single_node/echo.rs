//! Sends packets from pods to an echo server behind the node's uplink. The echoes show whether packets pass in both
//! directions, and how long they take.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Sandbox, SingleNode};

const PORT: u16 = 7;
/// How long an echo may take before it counts as lost.
const ECHO_TIMEOUT: Duration = Duration::from_secs(5);
/// The interval at which the echo server checks whether it must end.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// A UDP server that returns every packet. Dropping this value ends the server.
#[derive(Debug)]
pub struct EchoServer {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl EchoServer {
    /// Starts an echo server at an address of the fabric.
    pub fn start(node: &SingleNode, address: &str) -> Result<Self> {
        let address = SocketAddr::new(address.parse::<IpAddr>()?, PORT);
        let socket = node
            .fabric
            .run(move || UdpSocket::bind(address))?
            .context("the echo server can't listen on its address")?;
        socket.set_read_timeout(Some(POLL_INTERVAL))?;
        let ended = Arc::new(AtomicBool::new(false));
        let flag = ended.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while !flag.load(Ordering::Acquire) {
                if let Ok((count, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..count], from);
                }
            }
        });
        Ok(Self { address, ended })
    }

    /// The round-trip times of `N` packets from a new socket in a pod. If the pod is new, the first of these packets is
    /// the pod's first packet.
    pub fn ask<const N: usize>(&self, pod: &Sandbox) -> Result<[Duration; N]> {
        let address = self.address;
        let times = pod.namespace.run(move || echoes(address))?;
        times.with_context(|| {
            format!("the echo server {address} did not answer every packet of pod {}", pod.container_id)
        })
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
    }
}

fn echoes<const N: usize>(address: SocketAddr) -> Result<[Duration; N]> {
    let any: SocketAddr = if address.is_ipv4() { "0.0.0.0:0".parse()? } else { "[::]:0".parse()? };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(ECHO_TIMEOUT))?;
    socket.connect(address)?;
    let mut times = [Duration::ZERO; N];
    for (number, took) in times.iter_mut().enumerate() {
        let start = Instant::now();
        socket.send(b"echo")?;
        socket.recv(&mut [0; 64]).with_context(|| format!("no echo of packet {} arrived", number + 1))?;
        *took = start.elapsed();
    }
    Ok(times)
}
