//! Other owners of our numbers: found at start and by each comparison, named, and left alone.

use crate::link;
use crate::route;
use crate::rule;
use crate::settings::Settings;
use crate::socket::{KernelError, Netlink};

/// One sentence for each number of ours that somebody else uses too.
pub(crate) fn find(netlink: &mut Netlink, settings: &Settings) -> Result<Vec<String>, KernelError> {
    let mut found = Vec::new();
    for (table, setting) in [(settings.pod_table, "pod table"), (settings.export_table, "export table")] {
        for route in route::list(netlink, table)?.iter().filter(|route| route.protocol != settings.protocol) {
            found.push(format!(
                "another program (protocol {}) has route {route}, which is Bobbin's {setting}; \
                 it is left alone, give one of both another table",
                route.protocol
            ));
        }
    }
    for rule in rule::list(netlink)?.iter().filter(|rule| rule.protocol != settings.protocol) {
        if rule.priority == settings.rule_priority {
            found.push(format!(
                "another program (protocol {}) has a rule of priority {} (table {}), which is the priority of Bobbin's; \
                 it is left alone, give one of both another priority",
                rule.protocol, rule.priority, rule.table
            ));
        }
    }
    for link in link::list(netlink)?.iter().filter(|link| link.group == settings.link_group && !link.is_ours()) {
        if !crate::attachment::is_host_name(settings, &link.name) {
            found.push(format!(
                "link {} is in link group {}, which is Bobbin's, but not Bobbin's link: the spoof filter applies to it too; \
                 give one of both another group",
                link.name, link.group
            ));
        }
    }
    Ok(found)
}
