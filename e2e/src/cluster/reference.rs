//! The reference network: `ptp` with `host-local`, one address range per node and family, and static routes to the
//! ranges.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::Cluster;
use crate::cluster::node::Node;

/// The address ranges of a node's pods: 10.244.N.0/24 and fd00:244:0:N::/64.
fn ranges(node: &Node) -> (String, String) {
    let number = node.addresses().ipv4.octets()[3];
    (format!("10.244.{number}.0/24"), format!("fd00:244:0:{number}::/64"))
}

/// Installs the reference plugins and their configuration on a node's disk.
pub(super) fn install(node: &Node, programs: &Path) -> Result<()> {
    let (plugins, configuration) = (node.disk().join("opt/cni/bin"), node.disk().join("etc/cni/net.d"));
    std::fs::create_dir_all(&configuration)?;
    for plugin in ["ptp", "host-local"] {
        std::fs::copy(programs.join(plugin), plugins.join(plugin))?;
    }
    std::fs::write(configuration.join("10-reference.conflist"), conflist(node).to_string())?;
    Ok(())
}

fn conflist(node: &Node) -> serde_json::Value {
    let (ipv4, ipv6) = ranges(node);
    json!({
        "cniVersion": "1.0.0", "name": "reference",
        "plugins": [{
            "type": "ptp", "mtu": 1500,
            "ipam": {
                "type": "host-local", "dataDir": "/run/cni",
                "ranges": [[{"subnet": ipv4}], [{"subnet": ipv6}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        }],
    })
}

/// On every machine, adds routes to the address ranges of every node.
pub(super) fn route(cluster: &Cluster) -> Result<()> {
    for to in cluster.nodes() {
        let (ipv4, ipv6) = ranges(to);
        let lines = format!(
            "route replace {ipv4} via {}\nroute replace {ipv6} via {}\n",
            to.addresses().ipv4,
            to.addresses().ipv6
        );
        cluster.namespace().ip(&lines)?;
        for from in cluster.nodes().filter(|from| from.name() != to.name()) {
            from.namespace()?.ip(&lines)?;
        }
    }
    Ok(())
}
