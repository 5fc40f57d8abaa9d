//! The first packet of a pod against its second: whether the network is there when ADD returns.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Report;
use super::samples::Samples;
use crate::lone_node::{FABRIC_IPV4, FABRIC_IPV6, LoneNode};

const PORT: u16 = 7;
const PODS: usize = 30;

/// Echoes between each pod and a machine behind the node's uplink.
pub async fn measure(node: &LoneNode, report: &mut Report) -> Result<()> {
    eprintln!("bench: first packets");
    for (family, address) in [("IPv4", FABRIC_IPV4), ("IPv6", FABRIC_IPV6)] {
        let address: IpAddr = address.parse()?;
        let server =
            node.fabric.run(move || UdpSocket::bind(SocketAddr::new(address, PORT)))?.context("no echo server")?;
        server.set_read_timeout(Some(Duration::from_secs(20)))?;
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            // Ends when nobody has asked for a while.
            while let Ok((count, from)) = server.recv_from(&mut buffer) {
                let _ = server.send_to(&buffer[..count], from);
            }
        });
        let (mut first, mut second) = (Samples::default(), Samples::default());
        // The node's own neighbour entry for the fabric is not the pod's matter: one pod goes before the count.
        for number in 0..=PODS {
            let pod = node.pod()?;
            node.add(&pod)?;
            let (one, two) = pod.namespace.run(move || two_echoes(address))?.context("no echo came back")?;
            if number > 0 {
                first.add(one);
                second.add(two);
            }
            node.del(&pod)?;
        }
        report.add(&format!("first packet, {family}"), first, None);
        report.add(&format!("second packet, {family}"), second, None);
    }
    Ok(())
}

fn two_echoes(address: IpAddr) -> Result<(Duration, Duration)> {
    let any: SocketAddr = if address.is_ipv4() { "0.0.0.0:0".parse()? } else { "[::]:0".parse()? };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.connect(SocketAddr::new(address, PORT))?;
    let mut times = [Duration::ZERO; 2];
    for took in &mut times {
        let start = Instant::now();
        socket.send(b"echo")?;
        socket.recv(&mut [0; 64])?;
        *took = start.elapsed();
    }
    Ok((times[0], times[1]))
}
