//! Finds objects of other programs that use Bobbin's table numbers, rule priority or link group. The agent reports such
//! conflicts at start and after each reconcile pass, but never changes another program's object.

use crate::names::is_host_name;
use crate::netlink::{KernelError, Netlink, link, route, rule};
use crate::settings::Settings;
use crate::state::State;

/// Updates the warnings about other programs' objects. If a list can't be read from the kernel, the agent only logs the
/// error, because no operation depends on the warnings.
pub(crate) fn update(netlink: &mut Netlink, state: &State) {
    match find(netlink, &state.settings) {
        Ok(found) => *state.warnings.lock() = found,
        Err(error) => {
            tracing::warn!(%error, "the agent could not check whether other programs use Bobbin's tables, rule priority or link group");
        }
    }
}

/// Returns one sentence for each foreign object that uses Bobbin's table numbers, rule priority or link group.
fn find(netlink: &mut Netlink, settings: &Settings) -> Result<Vec<String>, KernelError> {
    let mut found = Vec::new();
    for (table, setting) in [(settings.pod_table, "pod table"), (settings.export_table, "export table")] {
        for route in route::list(netlink, table)?.iter().filter(|route| route.protocol != settings.protocol) {
            found.push(format!(
                "another program (protocol {}) has the route {route} in Bobbin's {setting}. \
                 Bobbin does not change the route. Configure another table for that program or for Bobbin",
                route.protocol
            ));
        }
    }
    for rule in rule::list(netlink)?.iter().filter(|rule| rule.protocol != settings.protocol) {
        if rule.priority == settings.rule_priority {
            found.push(format!(
                "another program (protocol {}) has a rule of priority {} (table {}). Bobbin's rule has the same priority. \
                 Bobbin does not change the program's rule. Configure another priority for that program or for Bobbin",
                rule.protocol, rule.priority, rule.table
            ));
        }
    }
    for link in link::list(netlink)?.iter().filter(|link| link.group == settings.link_group && !link.is_own()) {
        if !is_host_name(settings, &link.name) {
            found.push(format!(
                "link {} of another program is in link group {}, which Bobbin uses for pods. Bobbin's anti-spoofing filter therefore also checks packets from this link. \
                 Configure another group for that program or for Bobbin",
                link.name, link.group
            ));
        }
    }
    Ok(found)
}
