//! What the node needs once, whatever its pods: forwarding, the policy rules, the spoof filter. And its undoing.

use std::path::Path;

use crate::finding::{Finding, FindingKind};
use crate::netns::on_thread;
use crate::network::{Inner, Network, lock};
use crate::route::{self, MAIN};
use crate::rule::{self, Rule};
use crate::settings::Settings;
use crate::socket::{KernelError, Netlink, gone_is_fine};
use crate::{in_place, link, spoof, sysctl};

const ROUTER_ADVERTISEMENT: u8 = 9;

/// The families in use on the node.
pub(crate) fn families(ipv4: bool, ipv6: bool) -> impl Iterator<Item = bool> {
    [(ipv4, false), (ipv6, true)].into_iter().filter(|(used, _)| *used).map(|(_, is_ipv6)| is_ipv6)
}

impl Network {
    /// Makes the node ready for pods of the families in use and says what it changed. Idempotent; any number of calls
    /// may run at once.
    pub async fn prepare(&self, ipv4: bool, ipv6: bool) -> Result<Vec<Finding>, KernelError> {
        let inner = self.inner.clone();
        on_thread(move || inner.with_netlink(|netlink| prepare(&inner, netlink, ipv4, ipv6))).await
    }

    /// Removes everything of ours but the links: filter, rules, and our routes in all three tables. For a node that
    /// Bobbin leaves. Goes on after an error and names them all; what it removed, one sentence each.
    pub async fn tear_down(&self) -> Result<Vec<String>, KernelError> {
        let inner = self.inner.clone();
        lock(&inner.in_place).clear();
        on_thread(move || inner.with_netlink(|netlink| tear_down(&inner.settings, netlink))).await
    }
}

/// What was changed so far, and how the next change is to be called.
struct Done {
    findings: Vec<Finding>,
    kind: FindingKind,
}

impl Done {
    fn push(&mut self, what: String) {
        self.findings.push(Finding { kind: self.kind, attachment: None, what });
    }
}

/// Forwarding, rules, filter: each looked at, and made if it is not right.
pub(crate) fn prepare(
    inner: &Inner,
    netlink: &mut Netlink,
    ipv4: bool,
    ipv6: bool,
) -> Result<Vec<Finding>, KernelError> {
    let settings = &inner.settings;
    let mut done = Done { findings: Vec::new(), kind: FindingKind::Applied };
    let was_prepared: Vec<bool> = [false, true].map(|is_ipv6| lock(&inner.in_place).is_prepared(is_ipv6)).into();
    let kind_of = |is_ipv6: bool| in_place::kind(was_prepared[usize::from(is_ipv6)]);
    for is_ipv6 in families(ipv4, ipv6) {
        done.kind = kind_of(is_ipv6);
        forward(netlink, &settings.sysctl_root, is_ipv6, &mut done)?;
    }
    let rules = rule::list(netlink)?;
    for wanted in families(ipv4, ipv6).map(|is_ipv6| Rule::ours(settings, is_ipv6)) {
        let ours = rules.iter().filter(|rule| rule.ipv6 == wanted.ipv6 && rule.protocol == settings.protocol);
        for stale in ours.filter(|rule| **rule != wanted) {
            let delete = stale.delete();
            gone_is_fine(netlink.one(delete.what, delete.message))?;
            done.kind = FindingKind::Applied;
            done.push(format!("removed the stale rule {stale}"));
        }
        if !rules.contains(&wanted) && add(netlink, wanted)? {
            done.kind = kind_of(wanted.ipv6);
            done.push(format!("added the rule {wanted}"));
        }
    }
    let mut netfilter = Netlink::netfilter()?;
    if !spoof::is_right(&mut netfilter, settings)? {
        spoof::write(&mut netfilter, settings)?;
        done.kind = in_place::kind(was_prepared.contains(&true));
        done.push(format!("wrote the spoof filter, nftables table inet {}", settings.nft_table));
    }
    for is_ipv6 in families(ipv4, ipv6) {
        lock(&inner.in_place).set_prepared(is_ipv6);
    }
    Ok(done.findings)
}

/// Adds a rule; whether that was still to be done: another call may have been quicker. `EEXIST` alone does not say so.
fn add(netlink: &mut Netlink, wanted: Rule) -> Result<bool, KernelError> {
    let add = wanted.add();
    match netlink.one(add.what, add.message) {
        Err(error) if error.errno() == Some(nix::libc::EEXIST) && rule::list(netlink)?.contains(&wanted) => Ok(false),
        other => other.map(|_| true),
    }
}

/// Turns forwarding on. A link that got its default route from a router advertisement would lose it then, unless it
/// is told first to go on listening.
fn forward(netlink: &mut Netlink, root: &Path, ipv6: bool, done: &mut Done) -> Result<(), KernelError> {
    let all = if ipv6 { root.join("ipv6/conf/all/forwarding") } else { root.join("ipv4/ip_forward") };
    if ipv6 {
        for route in route::list_of(netlink, MAIN, ROUTER_ADVERTISEMENT)? {
            let link = route.link.map(|index| link::by_index(netlink, index)).transpose()?.flatten();
            let Some(link) = link else { continue };
            let path = root.join("ipv6/conf").join(&link.name).join("accept_ra");
            if sysctl::get(&path)? == "1" {
                sysctl::set(&path, "2")?;
                done.push(format!("set accept_ra of {} to 2, so that its default route stays", link.name));
            }
        }
    }
    if sysctl::set(&all, "1")? {
        done.push(format!("turned {} forwarding on", if ipv6 { "IPv6" } else { "IPv4" }));
    }
    Ok(())
}

fn tear_down(settings: &Settings, netlink: &mut Netlink) -> Result<Vec<String>, KernelError> {
    let mut done = Vec::new();
    let mut failed = Vec::new();
    let mut note = |result: Result<(), KernelError>, what: String| match result {
        Ok(()) => done.push(what),
        Err(error) => failed.push(error.to_string()),
    };
    for table in [settings.export_table, settings.pod_table, MAIN] {
        let protocol = if table == MAIN { settings.direct_protocol } else { settings.protocol };
        for route in route::list_of(netlink, table, protocol)? {
            let delete = route.delete();
            note(gone_is_fine(netlink.one(delete.what, delete.message)), format!("removed route {route}"));
        }
    }
    for rule in rule::list(netlink)?.into_iter().filter(|rule| rule.protocol == settings.protocol) {
        let delete = rule.delete();
        note(gone_is_fine(netlink.one(delete.what, delete.message)), format!("removed the rule {rule}"));
    }
    match spoof::remove(&mut Netlink::netfilter()?, settings) {
        Ok(true) => note(Ok(()), format!("removed the nftables table inet {}", settings.nft_table)),
        Ok(false) => {}
        Err(error) => note(Err(error), String::new()),
    }
    if failed.is_empty() { Ok(done) } else { Err(KernelError::Foreign(failed.join("; "))) }
}
