//! Checks that no two attachments have the same address. Compares all sources with each other: namespaces, kernels,
//! checkpoints, assignments and pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bobbin_ipam::AttachmentKey;

use super::{Names, pod_name};
use crate::invariants::finding::{Findings, Kind};
use crate::invariants::snapshot::{ApiObjects, Machine, Snapshot};

/// Where an address was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Namespace,
    Kernel,
    Checkpoint,
    Assignment,
    Pod,
}

impl Source {
    /// Whether the source shows that the address is in use at the time of the snapshot. Pod objects and assignments may
    /// be out of date.
    fn is_immediate(self) -> bool {
        matches!(self, Source::Namespace | Source::Kernel | Source::Checkpoint)
    }
}

/// One holder of an address, as one source shows it.
#[derive(Clone, Debug)]
struct Holder<'a> {
    source: Source,
    node: &'a str,
    key: Option<AttachmentKey>,
    pod_uid: Option<&'a str>,
    /// The holder's name in the text of a finding.
    who: String,
    /// The source's name in the text of a finding.
    seen: String,
}

impl Holder<'_> {
    /// Whether the two holders are certainly different. Compares a property (key or pod UID) only if it is known for both
    /// holders.
    fn differs_from(&self, other: &Self) -> bool {
        if self.source == Source::Assignment && other.source == Source::Assignment {
            return true;
        }
        if self.source.is_immediate() && other.source.is_immediate() && self.node != other.node {
            return true;
        }
        if self.source == Source::Namespace && other.source == Source::Namespace && self.seen != other.seen {
            return true;
        }
        match (&self.key, &other.key) {
            (Some(key), Some(other)) => key != other,
            _ => matches!((self.pod_uid, other.pod_uid), (Some(uid), Some(other)) if uid != other),
        }
    }

    fn kind(&self, other: &Self) -> Kind {
        let both = |is: fn(Source) -> bool| is(self.source) && is(other.source);
        if both(Source::is_immediate) || both(|source| source == Source::Assignment) {
            Kind::DuplicateAddress
        } else {
            Kind::ConflictingHolders
        }
    }
}

pub(super) fn check(snapshot: &Snapshot, names: &Names<'_>, findings: &mut Findings) {
    let mut holders: BTreeMap<IpAddr, Vec<Holder<'_>>> = BTreeMap::new();
    for machine in &snapshot.machines {
        of_machine(machine, names, &mut holders);
    }
    if let Some(api) = &snapshot.api {
        of_api(api, names, &mut holders);
    }
    for (address, holders) in holders {
        let mut pairs: BTreeMap<(Kind, String, String), BTreeSet<String>> = BTreeMap::new();
        for (number, one) in holders.iter().enumerate() {
            for other in holders.iter().skip(number + 1).filter(|other| one.differs_from(other)) {
                let (first, second) = if one.who <= other.who { (one, other) } else { (other, one) };
                let pair = (one.kind(other), first.who.clone(), second.who.clone());
                pairs.entry(pair).or_default().extend([first.seen.clone(), second.seen.clone()]);
            }
        }
        for ((kind, one, other), seen) in pairs {
            let seen = seen.into_iter().collect::<Vec<_>>().join(", ");
            findings.add(kind, format!("{one} and {other} both have {address} (seen in: {seen})"));
        }
    }
}

fn of_machine<'a>(machine: &'a Machine, names: &Names<'a>, holders: &mut BTreeMap<IpAddr, Vec<Holder<'a>>>) {
    let node = machine.name.as_str();
    let mut add = |address, source, key: Option<AttachmentKey>, unnamed: Option<&'a str>, seen: String| {
        let pod_uid = key.as_ref().and_then(|key| names.uid(key)).or(unnamed);
        let who = key.as_ref().map_or_else(|| format!("an unknown attachment on {node}"), |key| names.who(key));
        holders.entry(address).or_default().push(Holder { source, node, key, pod_uid, who, seen });
    };
    for sandbox in &machine.sandboxes {
        let seen = format!("network namespace {} on {node}", sandbox.inode);
        for (interface, address) in &sandbox.addresses {
            let uid = sandbox.pod_uid.as_deref();
            add(*address, Source::Namespace, sandbox.attachment(interface), uid, seen.clone());
        }
    }
    for route in &machine.kernel.pod_routes {
        let link = machine.kernel.links.iter().find(|link| link.name == route.link);
        add(route.to, Source::Kernel, link.map(|link| link.attachment.clone()), None, format!("table 116 on {node}"));
    }
    for attachment in &machine.checkpoint.attachments {
        for address in &attachment.addresses {
            let uid = Some(attachment.pod.uid.as_str()).filter(|uid| !uid.is_empty());
            add(*address, Source::Checkpoint, Some(attachment.key.clone()), uid, format!("checkpoint on {node}"));
        }
    }
}

fn of_api<'a>(api: &'a ApiObjects, names: &Names<'a>, holders: &mut BTreeMap<IpAddr, Vec<Holder<'a>>>) {
    for assignment in &api.assignments {
        for address in &assignment.addresses {
            holders.entry(*address).or_default().push(Holder {
                source: Source::Assignment,
                node: &assignment.node,
                key: Some(assignment.attachment.clone()),
                pod_uid: Some(assignment.pod.uid.as_str()).filter(|uid| !uid.is_empty()),
                who: names.who(&assignment.attachment),
                seen: format!("assignment {}", assignment.name),
            });
        }
    }
    for pod in api.living_pods() {
        for address in &pod.addresses {
            holders.entry(*address).or_default().push(Holder {
                source: Source::Pod,
                node: pod.node.as_deref().unwrap_or_default(),
                key: None,
                pod_uid: Some(&pod.id.uid),
                who: pod_name(&pod.id),
                seen: format!("status of {}", pod_name(&pod.id)),
            });
        }
    }
}
