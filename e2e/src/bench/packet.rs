//! The first packet of a pod against its second: whether the network works when ADD returns.

use anyhow::Result;

use super::Report;
use super::samples::Samples;
use crate::single_node::{EchoServer, FABRIC_IPV4, FABRIC_IPV6, SingleNode};

const PODS: usize = 30;

/// Echoes between each pod and a machine behind the node's uplink.
pub fn measure(node: &SingleNode, report: &mut Report) -> Result<()> {
    eprintln!("bench: first packets");
    for (family, address) in [("IPv4", FABRIC_IPV4), ("IPv6", FABRIC_IPV6)] {
        let server = EchoServer::start(node, address)?;
        let (mut first, mut second) = (Samples::default(), Samples::default());
        // The node's own neighbour entry for the fabric is not the pod's matter: one pod goes before the count.
        for number in 0..=PODS {
            let pod = node.sandbox()?;
            node.add(&pod)?;
            let [one, two] = server.ask(&pod)?;
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
