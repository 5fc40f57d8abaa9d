//! The addresses that a pod reports. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodStatus};

/// The first interface of a pod. Its addresses are in the pod's status.
pub(crate) const FIRST_INTERFACE: &str = "eth0";
/// The condition with which kubelet says whether the pod has a sandbox with a network.
const HAS_SANDBOX: &str = "PodReadyToStartContainers";

/// Whether the pod runs and reports the address as its own.
pub(crate) fn reports(pod: &Pod, address: IpAddr) -> bool {
    own_addresses(pod).contains(&address)
}

/// The addresses that the pod reports as its own while it runs. Empty for a pod that is being deleted, because the node's
/// agent may already have released the addresses.
pub(crate) fn own_addresses(pod: &Pod) -> Vec<IpAddr> {
    let uses_host = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    let is_ending = pod.metadata.deletion_timestamp.is_some();
    if uses_host || is_ending || has_ended(pod) { Vec::new() } else { addresses(pod) }
}

/// Whether all containers of the pod have ended for good.
pub(crate) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The addresses in the pod's status. Empty if the pod has no sandbox: kubelet keeps the addresses of a deleted sandbox in the status until
/// the next sandbox has addresses.
pub(crate) fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = pod.status.as_ref().filter(|status| !has_no_sandbox(status)) else { return Vec::new() };
    let listed = status.pod_ips.iter().flatten().map(|one| one.ip.as_str());
    let mut found: Vec<IpAddr> = listed.chain(status.pod_ip.as_deref()).filter_map(|text| text.parse().ok()).collect();
    let mut known = BTreeSet::new();
    found.retain(|address| known.insert(*address));
    found
}

fn has_no_sandbox(status: &PodStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| condition.type_ == HAS_SANDBOX && condition.status == "False")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(metadata: &Value, spec: &Value, status: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).expect("a pod")
    }

    #[test]
    fn a_running_pod_reports_its_addresses_of_both_families() {
        let (none, spec) = (json!({}), json!({"containers": []}));
        let status =
            json!({"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]});
        let running = pod(&none, &spec, &status);
        let (ipv4, ipv6) = (IpAddr::from([10, 0, 0, 1]), "fd00::1".parse().expect("an address"));
        assert_eq!(addresses(&running), [ipv4, ipv6]);
        assert!(reports(&running, ipv4) && reports(&running, ipv6) && !reports(&running, IpAddr::from([10, 0, 0, 2])));
        assert!(addresses(&pod(&none, &spec, &none)).is_empty());
        let without_sandbox = json!({"phase": "Running", "podIP": "10.0.0.1",
            "conditions": [{"type": "PodReadyToStartContainers", "status": "False"}]});
        assert!(!reports(&pod(&none, &spec, &without_sandbox), ipv4), "kubelet keeps the address of the last sandbox");
        let ended = json!({"phase": "Succeeded", "podIP": "10.0.0.1"});
        assert!(!reports(&pod(&none, &spec, &ended), ipv4));
        let ending = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert!(!reports(&pod(&ending, &spec, &status), ipv4));
        assert!(!reports(&pod(&none, &json!({"containers": [], "hostNetwork": true}), &status), ipv4));
    }
}
