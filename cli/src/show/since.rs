//! Since when a pod has had an address. Pure.
//!
//! The agent writes the time at which it allocated the address, by the clock of its node. The API server's clock sets the other times.

use bobbin_api_client::pod::MIRROR;
use bobbin_crds::IPAssignment;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// How far apart the clocks of a node and of the API server may be.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(1);

/// Since when the address has been assigned, by the agent's time. If that time can't be right, returns the creation time of the object.
///
/// The object can be much younger than the allocation, because an outage of the API server delays the object's creation. But an
/// allocation is never older than its pod, and never younger than its object. A static pod's allocation may be older than the mirror
/// pod that shows the static pod. So the function does not compare the allocation with a mirror pod.
pub(crate) fn since(assignment: &IPAssignment, pod: Option<&Pod>) -> Timestamp {
    let allocated = assignment.spec.created_at.0;
    let Some(written) = assignment.metadata.creation_timestamp.as_ref().map(|time| time.0) else { return allocated };
    let pod = pod.filter(|pod| !pod.annotations().contains_key(MIRROR));
    let pod_created = pod.and_then(|pod| pod.metadata.creation_timestamp.as_ref()).map(|time| time.0);
    let is_before = |one: Timestamp, other: Timestamp| other.duration_since(one) > CLOCK_SKEW;
    let is_wrong = pod_created.is_some_and(|created| is_before(allocated, created)) || is_before(written, allocated);
    if is_wrong { written } else { allocated }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(minute: u32) -> String {
        format!("2026-01-01T00:{minute:02}:00Z")
    }

    /// The minute since which the address counts as assigned.
    fn said(allocated: u32, written: u32, pod: Option<u32>, annotations: &serde_json::Value) -> String {
        let assignment = json!({"metadata": {"name": "10.0.0.1", "creationTimestamp": at(written)}, "spec": {
            "poolName": "p", "blockName": "p-0", "nodeName": "n1", "ipv4": "10.0.0.1", "containerID": "c", "ifName": "eth0",
            "createdAt": at(allocated), "bootID": "b"}});
        let pod =
            pod.map(|created| json!({"metadata": {"creationTimestamp": at(created), "annotations": annotations}}));
        let pod = pod.map(|pod| serde_json::from_value(pod).expect("a pod"));
        since(&serde_json::from_value(assignment).expect("an assignment"), pod.as_ref()).to_string()
    }

    #[test]
    fn an_allocation_is_trusted_if_it_lies_between_the_creation_of_its_pod_and_of_its_object() {
        let none = json!({});
        assert_eq!(said(10, 30, Some(10), &none), at(10));
        assert_eq!(said(9, 30, Some(10), &none), at(9));
        assert_eq!(said(8, 30, Some(10), &none), at(30));
        assert_eq!(said(33, 30, Some(10), &none), at(30));
        assert_eq!(said(8, 30, None, &none), at(8));
    }

    #[test]
    fn a_mirror_pod_may_be_younger_than_the_address_of_its_static_pod() {
        assert_eq!(said(5, 6, Some(20), &json!({"kubernetes.io/config.mirror": "hash"})), at(5));
    }
}
