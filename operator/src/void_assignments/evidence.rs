//! Decides from the API server's answers whether an assignment is void, and whether the operator may delete it. Pure.

use std::net::IpAddr;

use bobbin_api_client::Lenient;
use bobbin_crds::AddressBlock;
use bobbin_ipam::BlockRange;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::Deserialize;

use crate::cache::objects::PartialAssignment;

/// The annotation that marks a mirror pod. The UID of a mirror pod differs from the UID that the container runtime has
/// for the static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A Pod with only the fields that the decision needs.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "Pod")]
pub(super) struct PartialPod {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: PartialPodSpec,
    #[serde(default)]
    status: PartialPodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartialPodSpec {
    node_name: Option<String>,
    #[serde(default)]
    host_network: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartialPodStatus {
    #[serde(rename = "podIPs", default)]
    pod_ips: Option<Vec<PartialPodIp>>,
}

#[derive(Clone, Debug, Deserialize)]
struct PartialPodIp {
    ip: Option<String>,
}

/// The API server's answer about the block that an assignment names.
#[derive(Clone, Debug)]
pub(super) enum BlockEvidence {
    Absent,
    /// The block can't be decoded, so the assignment's node may own the block.
    Unreadable,
    Block {
        owner: Option<String>,
        range: Option<BlockRange>,
        created: Option<Time>,
    },
}

impl BlockEvidence {
    pub(super) fn of(block: &Lenient<AddressBlock>) -> Self {
        let Some(block) = block.readable() else { return Self::Unreadable };
        Self::Block {
            owner: block.spec.node_name.clone().filter(|node| !node.is_empty()),
            range: BlockRange::parse(block.spec.ipv4.as_deref(), block.spec.ipv6.as_deref()).ok(),
            created: block.metadata.creation_timestamp.clone(),
        }
    }
}

/// The API server's answer about the pod that an assignment names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PodEvidence {
    /// The assignment names no pod.
    NotNamed,
    /// The pod does not exist on the assignment's node, or it uses the host network.
    Gone,
    /// The pod exists on the node, and its status lists only other addresses.
    OtherAddresses,
    /// The pod exists on the node, and its status lists no address yet.
    NoAddressYet,
    /// The pod exists on the node, and its status lists an address of the assignment.
    HasAddress,
    /// The pod can't be decoded, so it may have the address.
    Unreadable,
}

impl PodEvidence {
    /// Compares an assignment with the pod that it names. `pod` is `None` if no pod with this name exists.
    pub(super) fn of(assignment: &PartialAssignment, pod: Option<&Lenient<PartialPod>>) -> Self {
        let Some(pod) = pod else { return Self::Gone };
        let Some(pod) = pod.readable() else { return Self::Unreadable };
        let spec = &assignment.spec;
        let is_mirror = pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR));
        let is_elsewhere = pod.spec.node_name.as_ref().is_some_and(|node| *node != spec.node_name);
        if (pod.metadata.uid != spec.pod_uid && !is_mirror) || is_elsewhere || pod.spec.host_network {
            return Self::Gone;
        }
        let listed: Vec<IpAddr> =
            pod.status.pod_ips.iter().flatten().filter_map(|one| one.ip.as_deref()?.parse().ok()).collect();
        match addresses(assignment).iter().any(|address| listed.contains(address)) {
            true => Self::HasAddress,
            false if listed.is_empty() => Self::NoAddressYet,
            false => Self::OtherAddresses,
        }
    }

    /// Whether the pod's first interface certainly does not have the assignment's address.
    pub(super) fn lacks_address(self) -> bool {
        matches!(self, Self::NotNamed | Self::Gone | Self::OtherAddresses)
    }
}

/// The operator's decision about one assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The assignment is valid, or the evidence does not prove that it is void.
    NotVoid,
    /// No agent can have written this assignment for a pod, because the block never had the address. The operator deletes the
    /// assignment at once.
    Forged,
    /// The assignment is void and its pod is gone. The operator deletes the assignment if a later check finds the same.
    VoidPodGone,
    /// The assignment is void, but its pod may use the address.
    VoidInUse,
}

/// Decides about an assignment. `is_denied` says whether the assignment's node is denied. If the node is denied, an
/// assignment that names no pod counts as an assignment whose pod is gone.
pub(super) fn verdict(
    assignment: &PartialAssignment,
    block: &BlockEvidence,
    pod: PodEvidence,
    is_denied: bool,
) -> Verdict {
    let (is_owned, lacks, is_older) = match block {
        BlockEvidence::Unreadable => return Verdict::NotVoid,
        BlockEvidence::Absent => (false, false, false),
        BlockEvidence::Block { owner, range, created } => {
            let is_owned = owner.as_deref() == Some(&assignment.spec.node_name);
            let lacks = range
                .is_some_and(|range| addresses(assignment).iter().any(|address| range.offset_of(*address).is_none()));
            // The API server sets both creation times, in whole seconds. Equal times do not prove that the block is the
            // older object.
            let written = assignment.metadata.creation_timestamp.as_ref();
            let is_older = created.as_ref().zip(written).is_some_and(|(created, written)| created.0 < written.0);
            (is_owned, lacks, is_older)
        }
    };
    if is_owned && !lacks {
        return Verdict::NotVoid;
    }
    match pod {
        _ if lacks && is_older && pod.lacks_address() => Verdict::Forged,
        PodEvidence::Gone => Verdict::VoidPodGone,
        PodEvidence::NotNamed if is_denied => Verdict::VoidPodGone,
        _ => Verdict::VoidInUse,
    }
}

fn addresses(assignment: &PartialAssignment) -> Vec<IpAddr> {
    let (ipv4, ipv6) = (&assignment.spec.ipv4, &assignment.spec.ipv6);
    [ipv4, ipv6].into_iter().flatten().filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests;
