//! The rules that a snapshot must satisfy. The rules are pure: they read only the snapshot.

mod assignments;
mod blocks;
mod exports;
mod holders;
mod kernel;
mod pools;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use bobbin_ipam::AttachmentKey;
use ipnet::IpNet;

use super::finding::{Finding, Findings};
use super::snapshot::{PodId, Snapshot};

/// Everything in a snapshot that contradicts an invariant, in a stable order.
pub fn compare(snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = Findings::default();
    let names = Names::of(snapshot);
    for unread in &snapshot.unread {
        findings.add(super::Kind::Unread, unread.clone());
    }
    for check in [holders::check, assignments::check, kernel::check] {
        check(snapshot, &names, &mut findings);
    }
    for check in [blocks::check, exports::check, pools::check] {
        check(snapshot, &mut findings);
    }
    findings.finish()
}

/// The pod of each attachment, for the texts of findings. Such a text calls an attachment by its pod's name.
struct Names<'a>(BTreeMap<&'a AttachmentKey, &'a PodId>);

impl<'a> Names<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let saved = snapshot.machines.iter().flat_map(|machine| &machine.checkpoint.attachments);
        let assignments = snapshot.api.iter().flat_map(|api| &api.assignments);
        let assigned = assignments.map(|assignment| (&assignment.attachment, &assignment.pod));
        let known = assigned.chain(saved.map(|attachment| (&attachment.key, &attachment.pod)));
        Self(known.filter(|(_, pod)| !pod.name.is_empty()).collect())
    }

    /// Describes an attachment by its pod and its container. If the pod is unknown, describes it only by the container.
    fn who(&self, key: &AttachmentKey) -> String {
        self.0.get(key).map_or_else(|| container(key), |pod| format!("{} ({})", pod_name(pod), container(key)))
    }

    /// The UID of an attachment's pod, if the UID is known.
    fn uid(&self, key: &AttachmentKey) -> Option<&'a str> {
        self.0.get(key).map(|pod| pod.uid.as_str()).filter(|uid| !uid.is_empty())
    }
}

fn pod_name(pod: &PodId) -> String {
    format!("pod {}/{}", pod.namespace, pod.name)
}

/// Describes a container by the beginning of its ID, as `crictl` does.
fn container(key: &AttachmentKey) -> String {
    let short: String = key.container_id.chars().take(13).collect();
    format!("container {short}/{}", key.if_name)
}

/// Whether two CIDRs have an address in common.
fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" and ")
}

/// Joins CIDRs with "and", for the text of a finding.
fn cidrs(ranges: &[IpNet]) -> String {
    ranges.iter().map(IpNet::to_string).collect::<Vec<_>>().join(" and ")
}
