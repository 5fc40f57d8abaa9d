//! Decides whether an IPAssignment may be wrong, why, and what happens next. Pure.

use std::net::IpAddr;

use bobbin_api_client::pod::MIRROR;
use bobbin_crds::{AddressBlock, IPAssignment};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::Serialize;

use crate::api::pods::addresses;
use crate::api::selection::is_of;
use crate::api::void::{addresses_of, outside, why_void};

/// The first interface of a pod. Its addresses are in the pod's status.
const FIRST_INTERFACE: &str = "eth0";

/// What the API server says about an object. `Unknown` if the user may not read it, or the read failed.
pub(super) enum Read<T> {
    Unknown,
    Absent,
    Present(T),
}

/// Why an IPAssignment may be wrong.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Mismatch {
    pub(super) reason: Reason,
    pub(super) why: String,
    /// What happens next, or what to do.
    pub(super) next: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reason {
    /// The node does not own the block, or the block does not have the address.
    Void,
    /// The pod does not exist on the node.
    PodGone,
    /// The pod's status has other addresses only.
    OtherAddress,
}

/// What an assignment's pod says about its address.
#[derive(Debug, PartialEq, Eq)]
enum PodSays {
    Unknown,
    NotNamed,
    /// The pod does not exist on the node.
    Gone(String),
    Others(Vec<IpAddr>),
    /// The pod has the address, or no address yet.
    Fits,
}

/// Why the assignment may be wrong; `None` if nothing speaks against the assignment. `block` and `pod` are the objects that the
/// assignment names.
pub(super) fn mismatch(assignment: &IPAssignment, block: &Read<AddressBlock>, pod: &Read<Pod>) -> Option<Mismatch> {
    let says = pod_says(assignment, pod);
    let void = match block {
        Read::Unknown => None,
        Read::Absent => why_void(assignment, None),
        Read::Present(block) => why_void(assignment, Some(block)),
    };
    if let Some(why) = void {
        let next = next_of_void(assignment, block, &says);
        return Some(Mismatch { reason: Reason::Void, why: format!("the IPAssignment is void, because {why}"), next });
    }
    match says {
        PodSays::Gone(why) => Some(Mismatch {
            reason: Reason::PodGone,
            why,
            next: format!(
                "the agent of node {} releases the address after the DEL of the container, or when two comparisons show that the pod is gone",
                assignment.spec.node_name
            ),
        }),
        PodSays::Others(others) => Some(Mismatch {
            reason: Reason::OtherAddress,
            why: format!("the pod reports other addresses ({})", list(&others)),
            next: "find out which address the pod has: kubectl bobbin check".to_owned(),
        }),
        PodSays::Unknown | PodSays::NotNamed | PodSays::Fits => None,
    }
}

/// What the operator does with a void assignment.
fn next_of_void(assignment: &IPAssignment, block: &Read<AddressBlock>, says: &PodSays) -> String {
    let lacks = matches!(says, PodSays::NotNamed | PodSays::Gone(_) | PodSays::Others(_));
    match says {
        _ if lacks && is_forged(assignment, block) => "the IPAssignment is forged, so the operator deletes the IPAssignment at once".to_owned(),
        PodSays::Gone(why) => {
            format!("{why}, so the operator deletes the IPAssignment after two checks, 15 minutes apart")
        }
        PodSays::NotNamed => format!(
            "the IPAssignment names no pod, so the operator deletes it only if it denies the node. If no pod has the address, run: kubectl delete ipassignment {}",
            assignment.name_any()
        ),
        PodSays::Unknown | PodSays::Others(_) | PodSays::Fits => {
            "the operator deletes the IPAssignment when the pod is gone; if the pod runs, delete the pod, so that its replacement gets another address"
                .to_owned()
        }
    }
}

/// Whether the block is older than the assignment, and never had the address.
fn is_forged(assignment: &IPAssignment, block: &Read<AddressBlock>) -> bool {
    let Read::Present(block) = block else { return false };
    let times = block.metadata.creation_timestamp.as_ref().zip(assignment.metadata.creation_timestamp.as_ref());
    outside(assignment, block).is_some() && times.is_some_and(|(block, assignment)| block.0 < assignment.0)
}

fn pod_says(assignment: &IPAssignment, pod: &Read<Pod>) -> PodSays {
    let spec = &assignment.spec;
    let (Some(namespace), Some(name)) = (&spec.pod_namespace, &spec.pod_name) else { return PodSays::NotNamed };
    let pod = match pod {
        Read::Unknown => return PodSays::Unknown,
        Read::Absent => return PodSays::Gone(format!("pod {namespace}/{name} does not exist")),
        Read::Present(pod) => pod,
    };
    let of_pod = pod.spec.as_ref();
    // The UID of a mirror pod changes with the manifest of its static pod.
    if !is_of(pod, spec.pod_uid.as_deref()) && !pod.annotations().contains_key(MIRROR) {
        return PodSays::Gone(format!("pod {namespace}/{name} is another pod of the same name"));
    }
    if let Some(node) = of_pod.and_then(|of_pod| of_pod.node_name.as_ref()).filter(|node| **node != spec.node_name) {
        return PodSays::Gone(format!("pod {namespace}/{name} is on node {node}"));
    }
    if of_pod.is_some_and(|of_pod| of_pod.host_network == Some(true)) {
        return PodSays::Gone(format!("pod {namespace}/{name} uses the network of its node"));
    }
    let (reported, assigned) = (addresses(pod), addresses_of(assignment));
    let fits = reported.is_empty() || reported.iter().any(|address| assigned.contains(address));
    if fits || spec.if_name != FIRST_INTERFACE { PodSays::Fits } else { PodSays::Others(reported) }
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests;
