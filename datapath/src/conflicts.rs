//! Finds objects of other programs that use Bobbin's table numbers, rule priority or link group. The agent reports such
//! objects at start and after each reconcile pass, and never changes them.

use crate::names::is_host_name;
use crate::netlink::{KernelError, Netlink, link, route, rule};
use crate::settings::Settings;
use crate::state::State;

/// Updates the warnings. A list that can't be read causes no failure, because warnings only inform the administrator.
pub(crate) fn update(netlink: &mut Netlink, state: &State) {
    match find(netlink, &state.settings) {
        Ok(found) => *state.warnings.lock() = found,
        Err(error) => tracing::warn!(%error, "could not check whether other programs use Bobbin's numbers"),
    }
}

/// Returns one sentence for each foreign object that uses Bobbin's table numbers, rule priority or link group.
fn find(netlink: &mut Netlink, settings: &Settings) -> Result<Vec<String>, KernelError> {
    let mut found = Vec::new();
    for (table, setting) in [(settings.pod_table, "pod table"), (settings.export_table, "export table")] {
        for route in route::list(netlink, table)?.iter().filter(|route| route.protocol != settings.protocol) {
            found.push(format!(
                "another program (protocol {}) has the route {route}, and that table is Bobbin's {setting}. \
                 Bobbin leaves the route alone. Give one of the two programs another table",
                route.protocol
            ));
        }
    }
    for rule in rule::list(netlink)?.iter().filter(|rule| rule.protocol != settings.protocol) {
        if rule.priority == settings.rule_priority {
            found.push(format!(
                "another program (protocol {}) has a rule of priority {} (table {}), and Bobbin's rule has this priority. \
                 Bobbin leaves that rule alone. Give one of the two another priority",
                rule.protocol, rule.priority, rule.table
            ));
        }
    }
    for link in link::list(netlink)?.iter().filter(|link| link.group == settings.link_group && !link.is_own()) {
        if !is_host_name(settings, &link.name) {
            found.push(format!(
                "link {} of another program is in link group {}, which is Bobbin's. \
                 The anti-spoofing filter applies to it, too. Give one of the two another group",
                link.name, link.group
            ));
        }
    }
    Ok(found)
}
