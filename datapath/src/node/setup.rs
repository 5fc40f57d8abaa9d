//! Sets up forwarding, policy rules and the anti-spoofing filter once for all pods of the node. Also removes them.

use std::path::Path;

use nix::libc;

use crate::netlink::route::{self, MAIN};
use crate::netlink::rule::{self, Rule};
use crate::netlink::{KernelError, Netlink, anti_spoofing, gone_is_success, link};
use crate::node::drift::{Drift, DriftKind, DriftSubject};
use crate::state::State;
use crate::sysctl;

/// `RTPROT_RA`, which libc lacks: the protocol of routes from router advertisements.
const ROUTER_ADVERTISEMENT: u8 = 9;

/// The changes made so far, and the drift kind of the next change.
struct Changes {
    list: Vec<Drift>,
    kind: DriftKind,
}

impl Changes {
    fn push(&mut self, what: String) {
        self.list.push(Drift { kind: self.kind, subject: DriftSubject::Node, attachment: None, what });
    }
}

/// Sets up forwarding, rules and the anti-spoofing filter of the node, for pods with addresses of these families.
/// Changes only missing or wrong objects, and returns the changes. Idempotent, and safe to call concurrently.
pub(crate) fn set_up(state: &State, netlink: &mut Netlink, ipv4: bool, ipv6: bool) -> Result<Vec<Drift>, KernelError> {
    let settings = &state.settings;
    let families = || [(ipv4, false), (ipv6, true)].into_iter().filter(|(used, _)| *used).map(|(_, is_ipv6)| is_ipv6);
    let mut changes = Changes { list: Vec::new(), kind: DriftKind::Applied };
    let was_set_up = [false, true].map(|is_ipv6| state.programmed.lock().is_set_up(is_ipv6));
    let kind_of = |is_ipv6: bool| DriftKind::of_change(was_set_up[usize::from(is_ipv6)]);
    for is_ipv6 in families() {
        changes.kind = kind_of(is_ipv6);
        enable_forwarding(netlink, &settings.sysctl_root, is_ipv6, &mut changes)?;
    }
    let rules = rule::list(netlink)?;
    for wanted in rule::wanted(settings, ipv4, ipv6) {
        let own = rules.iter().filter(|rule| rule.ipv6 == wanted.ipv6 && rule.protocol == settings.protocol);
        for stale in own.filter(|rule| **rule != wanted) {
            gone_is_success(state.handle.send_one(stale.delete()))?;
            changes.kind = DriftKind::Applied;
            changes.push(format!("removed the stale rule {stale}"));
        }
        if !rules.contains(&wanted) && add_rule(state, netlink, wanted)? {
            changes.kind = kind_of(wanted.ipv6);
            changes.push(format!("added the rule {wanted}"));
        }
    }
    let mut netfilter = Netlink::netfilter()?;
    if !anti_spoofing::is_in_place(&mut netfilter, settings)? {
        anti_spoofing::write(&mut netfilter, settings)?;
        changes.kind = DriftKind::of_change(was_set_up.contains(&true));
        changes.push(format!("wrote the anti-spoofing filter, nftables table inet {}", settings.nft_table));
    }
    families().for_each(|is_ipv6| state.programmed.lock().mark_set_up(is_ipv6));
    Ok(changes.list)
}

/// Adds a policy rule. Returns `false` if a concurrent call has added it. After `EEXIST`, the function lists the rules,
/// because `EEXIST` alone does not prove that the wanted rule exists.
fn add_rule(state: &State, netlink: &mut Netlink, wanted: Rule) -> Result<bool, KernelError> {
    match state.handle.send_one(wanted.add()) {
        Err(error) if error.errno() == Some(libc::EEXIST) && rule::list(netlink)?.contains(&wanted) => Ok(false),
        other => other.map(|()| true),
    }
}

/// Enables forwarding. With forwarding and `accept_ra` 1, a link ignores router advertisements, and routes from them
/// expire. So this function first sets `accept_ra` from 1 to 2 on each link with such a route.
fn enable_forwarding(netlink: &mut Netlink, root: &Path, ipv6: bool, changes: &mut Changes) -> Result<(), KernelError> {
    let all = if ipv6 { root.join("ipv6/conf/all/forwarding") } else { root.join("ipv4/ip_forward") };
    if ipv6 {
        for route in route::list_of(netlink, MAIN, ROUTER_ADVERTISEMENT)? {
            let link = route.link.map(|index| link::by_index(netlink, index)).transpose()?.flatten();
            let Some(link) = link else { continue };
            let path = root.join("ipv6/conf").join(&link.name).join("accept_ra");
            if sysctl::get(&path)? == "1" {
                sysctl::set(&path, "2")?;
                changes.push(format!("set accept_ra of {} to 2, so that the link keeps its default route", link.name));
            }
        }
    }
    if sysctl::set(&all, "1")? {
        changes.push(format!("turned {} forwarding on", if ipv6 { "IPv6" } else { "IPv4" }));
    }
    Ok(())
}

/// Removes the filter, the rules, and Bobbin's routes in the export, pod and main tables. Does not remove links. If the
/// kernel refuses a removal, the function continues, and fails at the end with all refusals. Otherwise, returns one
/// sentence for each removed object.
pub(crate) fn tear_down(state: &State, netlink: &mut Netlink) -> Result<Vec<String>, KernelError> {
    let settings = &state.settings;
    state.programmed.lock().clear();
    let mut removed = Vec::new();
    let mut failed = Vec::new();
    let mut note = |result: Result<(), KernelError>, what: String| match result {
        Ok(()) => removed.push(what),
        Err(error) => failed.push(error.to_string()),
    };
    for table in [settings.export_table, settings.pod_table, MAIN] {
        let protocol = if table == MAIN { settings.direct_protocol } else { settings.protocol };
        for route in route::list_of(netlink, table, protocol)? {
            note(gone_is_success(state.handle.send_one(route.delete())), format!("removed route {route}"));
        }
    }
    for rule in rule::list(netlink)?.into_iter().filter(|rule| rule.protocol == settings.protocol) {
        note(gone_is_success(state.handle.send_one(rule.delete())), format!("removed the rule {rule}"));
    }
    match anti_spoofing::remove(&mut Netlink::netfilter()?, settings) {
        Ok(true) => note(Ok(()), format!("removed the nftables table inet {}", settings.nft_table)),
        Ok(false) => {}
        Err(error) => note(Err(error), String::new()),
    }
    if failed.is_empty() { Ok(removed) } else { Err(KernelError::RemovalIncomplete(failed.join("; "))) }
}
