//! What the API server's answers say about an assignment, its block, its pod and its Node.

use std::net::IpAddr;

use bobbin_crds::{AddressBlock, is_static_pod};
use k8s_openapi::jiff::Timestamp;

use crate::BlockRange;

/// The fields of an assignment that [`verdict`](super::verdict) needs. The operator and `kubectl bobbin` decode assignments into different
/// types, and both create this type from theirs.
#[derive(Clone, Copy, Debug)]
pub struct AssignmentFacts<'a> {
    /// The name of the node.
    pub node: &'a str,
    /// The IPv4 address.
    pub ipv4: Option<&'a str>,
    /// The IPv6 address.
    pub ipv6: Option<&'a str>,
    /// The pod's namespace.
    pub pod_namespace: Option<&'a str>,
    /// The pod's name.
    pub pod_name: Option<&'a str>,
    /// The pod's UID.
    pub pod_uid: Option<&'a str>,
    /// When the API server created the object.
    pub created: Option<Timestamp>,
}

impl<'a> AssignmentFacts<'a> {
    /// The valid addresses of the assignment.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<'a> {
        [self.ipv4, self.ipv6].into_iter().flatten().filter_map(|text| text.parse().ok())
    }

    /// The namespace and the name of the assignment's pod. `None` if the assignment names no pod. An assignment without a pod UID counts as
    /// one that names no pod, because a later pod may have the same name.
    pub fn pod(&self) -> Option<(&'a str, &'a str)> {
        self.pod_uid.filter(|uid| !uid.is_empty())?;
        self.pod_namespace.zip(self.pod_name)
    }
}

/// The API server's answer about the block that an assignment names.
#[derive(Clone, Debug)]
pub enum BlockEvidence {
    /// The block does not exist.
    Absent,
    /// The block can't be read or decoded, so the assignment's node may own the block.
    Unreadable,
    /// The block exists.
    Block {
        /// The node that owns the block.
        owner: Option<String>,
        /// The addresses of the block, if its CIDRs are valid.
        range: Option<BlockRange>,
        /// When the API server created the object.
        created: Option<Timestamp>,
    },
}

impl From<&AddressBlock> for BlockEvidence {
    fn from(block: &AddressBlock) -> Self {
        Self::Block {
            owner: block.spec.node_name.clone().filter(|node| !node.is_empty()),
            range: BlockRange::parse(block.spec.ipv4.as_deref(), block.spec.ipv6.as_deref()).ok(),
            created: block.metadata.creation_timestamp.as_ref().map(|time| time.0),
        }
    }
}

/// The fields of a pod that the decision needs.
#[derive(Clone, Debug)]
pub struct PodFacts<'a> {
    /// The pod's UID.
    pub uid: Option<&'a str>,
    /// Whether this is the mirror pod of a static pod. An assignment has the static pod's UID, and the mirror pod has another UID. So the
    /// decision does not compare the two UIDs.
    pub is_mirror: bool,
    /// The node that runs the pod.
    pub node: Option<&'a str>,
    /// Whether the pod uses the network of its node.
    pub uses_host_network: bool,
    /// The addresses in the pod's status.
    pub addresses: Vec<IpAddr>,
}

/// Why an assignment's pod is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodAbsence {
    /// No pod with this name exists.
    Absent,
    /// Another pod has the name.
    OtherPod,
    /// The pod is on another node.
    OtherNode,
    /// The pod uses the network of its node.
    HostNetwork,
}

/// The API server's answer about the pod that an assignment names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodEvidence {
    /// The assignment names no pod.
    NotNamed,
    /// The pod does not exist on the assignment's node, or it uses the host network.
    Gone(PodAbsence),
    /// The pod is static, and the API server has no mirror pod of it. The pod may run on the node all the same.
    NoMirrorPod,
    /// The pod exists on the node, and its status lists only other addresses.
    OtherAddresses,
    /// The pod is on the node or not scheduled yet, and its status lists no address yet.
    NoAddressYet,
    /// The pod exists on the node, and its status lists an address of the assignment.
    HasAddress,
    /// The pod can't be read or decoded, so it may have the address.
    Unreadable,
}

impl PodEvidence {
    /// Compares an assignment with the pod that it names. `pod` is `None` if no pod with this name exists.
    pub fn of(assignment: &AssignmentFacts<'_>, pod: Option<&PodFacts<'_>>) -> Self {
        if assignment.pod().is_none() {
            return Self::NotNamed;
        }
        let absence = match pod {
            None => Some(PodAbsence::Absent),
            Some(pod) if pod.uid != assignment.pod_uid && !pod.is_mirror => Some(PodAbsence::OtherPod),
            Some(_) => None,
        };
        let pod = match (absence, pod) {
            (Some(_), _) if assignment.pod_uid.is_some_and(is_static_pod) => return Self::NoMirrorPod,
            (Some(absence), _) => return Self::Gone(absence),
            (None, None) => return Self::Gone(PodAbsence::Absent),
            (None, Some(pod)) => pod,
        };
        if pod.node.is_some_and(|node| node != assignment.node) {
            return Self::Gone(PodAbsence::OtherNode);
        }
        if pod.uses_host_network {
            return Self::Gone(PodAbsence::HostNetwork);
        }
        match assignment.addresses().any(|address| pod.addresses.contains(&address)) {
            true => Self::HasAddress,
            false if pod.addresses.is_empty() => Self::NoAddressYet,
            false => Self::OtherAddresses,
        }
    }

    /// Whether the API server shows no pod with the assignment's address. Returns false if the pod can't be read, or if its status lists no
    /// address yet.
    pub fn lacks_address(self) -> bool {
        matches!(self, Self::NotNamed | Self::NoMirrorPod | Self::Gone(_) | Self::OtherAddresses)
    }
}

/// The facts about an assignment's Node that the decision needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeFacts {
    /// Whether the operator denies the node.
    pub is_denied: bool,
    /// Whether the Node does not exist.
    pub is_gone: bool,
}
