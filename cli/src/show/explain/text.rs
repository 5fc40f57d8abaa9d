//! Prints the explanation of a pod's address as text for people.

use std::fmt::Display;

use jiff::Timestamp;

use super::{Attachment, Explanation, Selected};
use crate::print::age::age;
use crate::print::output::{Report, escaped};

impl Report for Explanation {
    fn text(&self, _: bool) -> String {
        let now = Timestamp::now();
        let node = self.node.as_ref().map(|node| format!(" on node {node}")).unwrap_or_default();
        let mut lines = vec![format!("Pod {}{node}", self.name)];
        if let Some(why) = self.no_need_because {
            lines.push(format!("  needs no address from Bobbin: {why}"));
        }
        for one in &self.addresses {
            let address = joined([&one.ipv4, &one.ipv6].into_iter().flatten());
            let Attachment { interface, pool, block, node, since, not_reported, .. } = one;
            let age = age(*since, now);
            lines.push(format!(
                "  Address:  {address} on {interface}, from block {block} of pool {pool}, on node {node}, since {since:.0} ({age})"
            ));
            let first = one.ipv4.as_ref().or(one.ipv6.as_ref());
            if let Some(first) = first.filter(|_| *not_reported) {
                lines.push(format!(
                    "            The pod reports other addresses only. What is wrong with the IPAssignment: kubectl bobbin who {first}"
                ));
            }
        }
        if !self.reported_addresses.is_empty() {
            let address = joined(&self.reported_addresses);
            lines.push(format!(
                "  Address:  {address}, as the pod reports; no IPAssignment records it. Find out why: kubectl bobbin check"
            ));
        }
        if !self.foreign_addresses.is_empty() {
            let address = joined(&self.foreign_addresses);
            lines.push(format!(
                "  Foreign:  {address} is in no pool, so another network plugin assigned it. If kubectl bobbin check finds no other CNI configuration on the node, delete the pod"
            ));
        }
        if let Some(Selected { name, rule, refused }) = &self.pool {
            let is_used = self.addresses.iter().any(|one| one.pool == *name);
            let label = if is_used || self.has_none() { "Pool:    " } else { "New pods:" };
            lines.push(format!("  {label} {name}, because {rule}"));
            if let Some(refused) = refused {
                let label = if self.has_none() { "Refused: " } else { "New pods:" };
                lines.push(format!("  {label} {refused}"));
            }
        }
        if self.waits() {
            lines.push("  Address:  none".to_owned());
            lines.extend(self.node_problems.iter().map(|problem| format!("  Node:     {problem}")));
            if self.events.is_empty() && self.foreign_addresses.is_empty() && self.node_problems.is_empty() {
                lines.push("  No event says why. Kubelet may not have asked for an address yet.".to_owned());
            }
        }
        for event in &self.events {
            let seen = event.last_seen.map(|time| format!(", {} ago", age(time, now))).unwrap_or_default();
            lines.push(format!("  Event:    {}{seen}: {}", event.reason, event.message));
        }
        lines.iter().map(|line| escaped(line)).collect::<Vec<_>>().join("\n")
    }
}

fn joined(addresses: impl IntoIterator<Item = impl Display>) -> String {
    addresses.into_iter().map(|one| one.to_string()).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::super::events::PodNotice;
    use super::*;

    fn explanation(reported: &[&str]) -> Explanation {
        let selected = Selected { name: "p".to_owned(), rule: "it is the default", refused: None };
        let event = PodNotice { reason: "R".to_owned(), message: "m\u{1b}".to_owned(), last_seen: None };
        Explanation {
            name: "shop/web".to_owned(),
            node: Some("n1".to_owned()),
            needs_address: true,
            no_need_because: None,
            pool: Some(selected),
            addresses: Vec::new(),
            reported_addresses: reported.iter().map(|text| text.parse().expect("an address")).collect(),
            foreign_addresses: Vec::new(),
            node_problems: Vec::new(),
            events: vec![event],
        }
    }

    #[test]
    fn an_address_without_an_assignment_is_shown_as_the_pod_reports_it() {
        let text = explanation(&["10.0.0.1", "fd00::1"]).text(false);
        assert!(
            text.contains("  Address:  10.0.0.1 and fd00::1, as the pod reports; no IPAssignment records it"),
            "{text}"
        );
        assert!(text.contains("New pods: p, because") && text.contains("kubectl bobbin check"), "{text}");
        let none = explanation(&[]).text(false);
        assert!(none.contains("  Address:  none") && none.contains("  Pool:     p"), "{none}");
        assert!(none.ends_with("m\\u{1b}"), "{none}");
        let foreign = vec!["192.0.2.1".parse().expect("an address")];
        let text = Explanation { foreign_addresses: foreign, ..explanation(&[]) }.text(false);
        assert!(text.contains("192.0.2.1 is in no pool") && text.contains("  Address:  none"), "{text}");
    }

    #[test]
    fn the_problems_of_the_node_are_shown_instead_of_a_missing_event() {
        let problems = vec!["Node n1 is not Ready".to_owned()];
        let text = Explanation { node_problems: problems, events: Vec::new(), ..explanation(&[]) }.text(false);
        assert!(text.ends_with("  Address:  none\n  Node:     Node n1 is not Ready"), "{text}");
        let text = Explanation { events: Vec::new(), ..explanation(&[]) }.text(false);
        assert!(text.ends_with("Kubelet may not have asked for an address yet."), "{text}");
    }
}
