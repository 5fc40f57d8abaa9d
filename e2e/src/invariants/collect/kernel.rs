//! Reads Bobbin's objects in the kernel of a machine. Objects of other programs are left out.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use serde_json::Value;

use crate::invariants::snapshot::{HostLink, Kernel, PodRoute};
use crate::network::Namespace;

/// The number of the table with the pods' routes.
const POD_TABLE: &str = "116";
/// The number of the table with the exported blocks.
const EXPORT_TABLE: &str = "119";
/// The protocol number of Bobbin's routes and rules.
const PROTOCOL: &str = "30";
/// The link group that the anti-spoofing filter matches.
const LINK_GROUP: &str = "116";
/// The anti-spoofing filter.
const FILTER: [&str; 3] = ["table", "inet", "bobbin"];
/// The prefix of Bobbin's link aliases. After the prefix, the alias of a host link has the attachment, and the alias of a
/// pod's `lo` has the container ID.
pub(super) const ALIAS_PREFIX: &str = "bobbin:";
/// The flags of `ip` that select IPv4 and IPv6.
const FAMILIES: [&str; 2] = ["-4", "-6"];

pub(super) fn read(namespace: &Namespace) -> Result<Kernel> {
    let mut kernel = Kernel { links: links(namespace)?, filter: filter(namespace)?, ..Kernel::default() };
    for (number, family) in FAMILIES.into_iter().enumerate() {
        // List all tables at once. With a single table, `ip` would fail if the table does not exist, and the kernel may
        // have no table if it has no routes.
        for route in ip(namespace, &[family, "route", "show", "table", "all"])? {
            if text(&route, "protocol") == PROTOCOL {
                add_route(&mut kernel, &route);
            }
        }
        let is_own = |rule: &Value| text(rule, "table") == POD_TABLE && text(rule, "protocol") == PROTOCOL;
        kernel.rules[number] = ip(namespace, &[family, "rule", "show"])?.iter().any(is_own);
        for neighbour in ip(namespace, &[family, "neigh", "show", "nud", "permanent"])? {
            if let Ok(address) = text(&neighbour, "dst").parse() {
                kernel.neighbours.push((address, text(&neighbour, "dev").to_owned()));
            }
        }
    }
    Ok(kernel)
}

/// Runs `ip -j` and returns the list that it prints. Fails if `ip` fails, so that a failure does not look like an empty
/// list.
pub(super) fn ip(namespace: &Namespace, arguments: &[&str]) -> Result<Vec<Value>> {
    let output = namespace.command("ip").arg("-j").args(arguments).output()?;
    if !output.status.success() {
        bail!("`ip -j {}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    if printed.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&printed).with_context(|| format!("`ip -j {}` printed {printed:?}", arguments.join(" ")))
}

pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn links(namespace: &Namespace) -> Result<Vec<HostLink>> {
    let links = ip(namespace, &["link", "show"])?;
    let own = links.iter().filter_map(|link| {
        let attachment = text(link, "ifalias").strip_prefix(ALIAS_PREFIX)?.parse().ok()?;
        Some(HostLink {
            name: text(link, "ifname").to_owned(),
            attachment,
            filtered: text(link, "group") == LINK_GROUP,
        })
    });
    Ok(own.collect())
}

fn add_route(kernel: &mut Kernel, route: &Value) {
    // `dst` is a CIDR or an address, because `ip` prints a single address without a prefix length.
    let to = text(route, "dst");
    let Some(range) = to.parse::<IpNet>().ok().or_else(|| Some(IpNet::from(to.parse::<IpAddr>().ok()?))) else {
        return;
    };
    match (text(route, "table"), text(route, "type")) {
        (EXPORT_TABLE, _) => kernel.exports.push(range),
        (POD_TABLE, "blackhole") => kernel.blackholes.push(range),
        (POD_TABLE, _) => kernel.pod_routes.push(PodRoute { to: range.addr(), link: text(route, "dev").to_owned() }),
        _ => {}
    }
}

/// Whether the anti-spoofing filter exists and has a rule. Lists the whole ruleset, because this command also succeeds
/// if the filter's table does not exist.
fn filter(namespace: &Namespace) -> Result<bool> {
    let output = namespace.command("nft").args(["-j", "list", "ruleset"]).output()?;
    if !output.status.success() {
        bail!("`nft -j list ruleset` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let printed: Value = serde_json::from_slice(&output.stdout).context("`nft -j list ruleset` printed no JSON")?;
    let [_, family, name] = FILTER;
    let is_own = |object: &Value| {
        object.get("rule").is_some_and(|rule| text(rule, "family") == family && text(rule, "table") == name)
    };
    Ok(printed["nftables"].as_array().is_some_and(|objects| objects.iter().any(is_own)))
}
