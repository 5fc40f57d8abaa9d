//! Compares the round-trip times of a pod's first and second packet. If the first packet is slower, the pod's network
//! was not ready when ADD returned.

use anyhow::Result;

use super::Report;
use super::samples::Samples;
use crate::single_node::{EchoServer, FABRIC_IPV4, FABRIC_IPV6, SingleNode};

const PODS: usize = 30;

/// Measures echoes between each pod and a machine behind the node's uplink.
pub fn measure(node: &SingleNode, report: &mut Report) -> Result<()> {
    eprintln!("bench: measuring the first packets of pods");
    for (family, address) in [("IPv4", FABRIC_IPV4), ("IPv6", FABRIC_IPV6)] {
        let server = EchoServer::start(node, address)?;
        let (mut first, mut second) = (Samples::default(), Samples::default());
        // Do not count the first pod's echo. During this echo, the node resolves its neighbour on the fabric, and this
        // work is not part of an ADD.
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
