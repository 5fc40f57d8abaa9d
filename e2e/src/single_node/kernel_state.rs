//! Reads the node's network from the kernel: routes, links, addresses, and the attachments to which they belong. This
//! module changes nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Sandbox, SingleNode};
use crate::network::Namespace;

/// The output of `ip -j ARGUMENTS` in a namespace.
pub fn ip_json(namespace: &Namespace, arguments: &str) -> Result<Value> {
    let output = namespace.command("ip").arg("-j").args(arguments.split_whitespace()).output()?;
    // For a table without routes, iproute2 reports an error and prints nothing or only `[`. This function returns an
    // empty list for such a table.
    let text = String::from_utf8_lossy(&output.stdout);
    if matches!(text.trim(), "" | "[") {
        return Ok(Value::Array(Vec::new()));
    }
    serde_json::from_str(&text).with_context(|| format!("ip -j {arguments} printed {text:?}"))
}

/// The host link of one of Bobbin's attachments, as found in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The link's alias, `bobbin:<containerID>/<ifName>`.
    pub alias: String,
    /// The link's name.
    pub link: String,
    /// The addresses that routing table 116 routes over the host link.
    pub addresses: Vec<IpAddr>,
}

impl SingleNode {
    /// The routes of a routing table, in both families. The first text of each pair is the destination as iproute2
    /// prints it. The second text is the name of the route's device, or empty.
    pub fn table(&self, table: u32) -> Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        for family in ["-4", "-6"] {
            let routes = ip_json(&self.namespace, &format!("{family} route show table {table}"))?;
            for route in routes.as_array().into_iter().flatten() {
                let text = |name: &str| route.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
                let kind = text("type");
                let dst = if kind.is_empty() { text("dst") } else { format!("{kind} {}", text("dst")) };
                all.push((dst, text("dev")));
            }
        }
        Ok(all)
    }

    /// Bobbin's host links with their addresses, keyed by the alias of the link.
    pub fn attachments(&self) -> Result<BTreeMap<String, Attachment>> {
        let mut found = BTreeMap::new();
        let routes = self.table(116)?;
        for link in ip_json(&self.namespace, "link show")?.as_array().into_iter().flatten() {
            let text = |name: &str| link.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (alias, name) = (text("ifalias"), text("ifname"));
            if !alias.starts_with("bobbin:") {
                continue;
            }
            let addresses =
                routes.iter().filter(|(_, dev)| *dev == name).filter_map(|(dst, _)| dst.parse().ok()).collect();
            let before = found.insert(alias.clone(), Attachment { alias: alias.clone(), link: name, addresses });
            ensure!(before.is_none(), "two links have the alias {alias}");
        }
        Ok(found)
    }

    /// Fails if two of these pods have the same address in the kernel.
    pub fn check_no_duplicate(&self, pods: &[&Sandbox]) -> Result<()> {
        let mut holders: BTreeMap<IpAddr, String> = BTreeMap::new();
        for pod in pods {
            for address in pod.addresses()? {
                if let Some(other) = holders.insert(address, pod.container_id.clone()) {
                    anyhow::bail!("two pods have the address {address}: {other} and {}", pod.container_id);
                }
            }
        }
        Ok(())
    }
}

impl Sandbox {
    /// The global addresses of the sandbox's `eth0` in the kernel. Empty if there is no `eth0`.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        let links = self.ip_json("addr show scope global")?;
        let mut addresses = Vec::new();
        for link in
            links.as_array().into_iter().flatten().filter(|link| link.get("ifname").is_some_and(|name| name == "eth0"))
        {
            for one in link.get("addr_info").and_then(Value::as_array).into_iter().flatten() {
                if let Some(address) = one.get("local").and_then(Value::as_str) {
                    addresses.push(address.parse()?);
                }
            }
        }
        Ok(addresses)
    }
}
