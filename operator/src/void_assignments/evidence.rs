//! Turns the API server's answers into evidence for the decision about an assignment. Pure.

use bobbin_api_client::Lenient;
use bobbin_api_client::pod::MIRROR;
use bobbin_crds::AddressBlock;
use bobbin_ipam::void_assignment::{AssignmentFacts, BlockEvidence, PodEvidence, PodFacts};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::Deserialize;

use crate::cache::objects::PartialAssignment;

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

/// The fields of an assignment that the decision needs.
pub(super) fn facts(assignment: &PartialAssignment) -> AssignmentFacts<'_> {
    let spec = &assignment.spec;
    AssignmentFacts {
        node: &spec.node_name,
        ipv4: spec.ipv4.as_deref(),
        ipv6: spec.ipv6.as_deref(),
        pod_namespace: spec.pod_namespace.as_deref(),
        pod_name: spec.pod_name.as_deref(),
        pod_uid: spec.pod_uid.as_deref(),
        created: assignment.metadata.creation_timestamp.as_ref().map(|time| time.0),
    }
}

/// The evidence about a block that exists.
pub(super) fn of_block(block: &Lenient<AddressBlock>) -> BlockEvidence {
    block.readable().map_or(BlockEvidence::Unreadable, BlockEvidence::from)
}

/// Compares an assignment with the pod that it names. `pod` is `None` if no pod with this name exists.
pub(super) fn of_pod(assignment: &PartialAssignment, pod: Option<&Lenient<PartialPod>>) -> PodEvidence {
    let pod = match pod {
        None => None,
        Some(Lenient::Readable(pod)) => Some(pod_facts(pod)),
        Some(Lenient::Unreadable(_)) => return PodEvidence::Unreadable,
    };
    PodEvidence::of(&facts(assignment), pod.as_ref())
}

fn pod_facts(pod: &PartialPod) -> PodFacts<'_> {
    let listed = pod.status.pod_ips.iter().flatten();
    PodFacts {
        uid: pod.metadata.uid.as_deref(),
        is_mirror: pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR)),
        node: pod.spec.node_name.as_deref(),
        uses_host_network: pod.spec.host_network,
        addresses: listed.filter_map(|one| one.ip.as_deref()?.parse().ok()).collect(),
    }
}

#[cfg(test)]
mod tests;
