//! Decides whether an IPAssignment may be wrong, why, and what happens next. Pure.

use std::net::IpAddr;

use bobbin_crds::{AddressBlock, IPAssignment};
use bobbin_ipam::void_assignment::{PodEvidence, Verdict};
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;

use crate::api::objects::Read;
use crate::api::pods::FIRST_INTERFACE;
use crate::api::pods::addresses;
use crate::api::void::{Case, Outlook, pod_of};

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

/// Why the assignment may be wrong; `None` if nothing speaks against the assignment. `block` and `pod` are the objects that the
/// assignment names.
pub(super) fn mismatch(
    assignment: &IPAssignment,
    block: &Read<AddressBlock>,
    pod: &Read<Pod>,
    node_exists: bool,
) -> Option<Mismatch> {
    let case = Case::new(assignment, block.as_ref(), pod.as_ref(), node_exists);
    if let Some((why, outlook)) = case.why_void().zip(case.outlook()) {
        let next = next_of_void(&case, outlook);
        return Some(Mismatch { reason: Reason::Void, why: format!("the IPAssignment is void, because {why}"), next });
    }
    let spec = &assignment.spec;
    let node = &spec.node_name;
    if let Some(why) = case.why_gone() {
        let next = format!(
            "the agent of node {node} releases the address after the runtime's DEL, or when two comparisons, minutes apart, show that the pod is gone"
        );
        return Some(Mismatch { reason: Reason::PodGone, why, next });
    }
    match (case.pod_evidence()?, pod) {
        // The assignment has no pod UID, so the agent's comparisons can't show that the pod is gone. Only a DEL releases the address.
        (PodEvidence::NotNamed, Read::Absent) if spec.pod_namespace.is_some() && spec.pod_name.is_some() => {
            Some(Mismatch {
                reason: Reason::PodGone,
                why: format!("{} does not exist", pod_of(assignment)),
                next: format!("the agent of node {node} releases the address after the DEL of the container"),
            })
        }
        (PodEvidence::OtherAddresses, Read::Present(pod)) if spec.if_name == FIRST_INTERFACE => {
            // `addresses` ignores the status of a pod without a sandbox, because that status shows an earlier sandbox's addresses.
            let others = addresses(pod);
            (!others.is_empty()).then(|| Mismatch {
                reason: Reason::OtherAddress,
                why: format!("the pod reports other addresses ({})", list(&others)),
                next: "find out which address the pod has: kubectl bobbin check".to_owned(),
            })
        }
        _ => None,
    }
}

/// What happens next with a void assignment.
fn next_of_void(case: &Case<'_>, outlook: Outlook) -> String {
    let Outlook { verdict, operator, you } = outlook;
    let operator = match case.why_gone() {
        Some(gone) if verdict == Verdict::VoidPodGone => format!("{gone}, so {operator}"),
        _ => operator,
    };
    [Some(operator), you].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests;
