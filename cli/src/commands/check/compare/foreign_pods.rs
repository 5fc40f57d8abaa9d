//! Finds running pods whose addresses have no IPAssignment: another network plugin assigned them, or the IPAssignment is missing.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use bobbin_agent_status::AgentMode;
use bobbin_crds::{AddressPool, IPAssignment, name};
use kube::Resource;

use super::addresses_of;
use crate::api::pool_subnets::PoolSubnets;
use crate::commands::check::finding::{Finding, Kind, Severity};
use crate::commands::check::observation::{Observation, RunningPod, View};
use crate::print::count::counted;

/// How many pods a finding names.
const NAMED: usize = 5;

/// One finding for each node that Bobbin serves, if pods of the node have addresses of another network plugin.
pub(super) fn compare(observed: &Observation) -> Vec<Finding> {
    // If a pool can't be decoded, its subnets are unknown. Its addresses would look like those of another plugin.
    if observed.undecodable.iter().any(|one| one.kind == AddressPool::kind(&())) {
        return Vec::new();
    }
    let Some(pools) = PoolSubnets::of(&observed.pools) else { return Vec::new() };
    let assigned: HashSet<IpAddr> = observed.assignments.iter().flat_map(addresses_of).collect();
    let is_ours = |address: &IpAddr| assigned.contains(address) || pools.contain(*address);
    let mut findings = unrecorded(observed, &pools, &assigned);
    let mut foreign: BTreeMap<&str, Vec<&RunningPod>> = BTreeMap::new();
    for pod in observed.running_pods.iter().filter(|pod| !pod.addresses.iter().any(is_ours)) {
        foreign.entry(&pod.node).or_default().push(pod);
    }
    let served = observed.statuses().filter(|(_, status)| status.mode == AgentMode::Run);
    findings.extend(served.filter_map(|(node, _)| Some(finding(node, foreign.get(node)?))));
    findings
}

/// One finding for each pod that reports a pool's address without an IPAssignment. Looks only at nodes whose agents give no answer,
/// because on other nodes the comparison with the agent's attachments finds such addresses.
fn unrecorded(observed: &Observation, pools: &PoolSubnets, assigned: &HashSet<IpAddr>) -> Vec<Finding> {
    let is_silent = |node: &String| matches!(observed.views.get(node), Some(View::Missing(_)));
    let pods = observed.running_pods.iter().filter(|pod| is_silent(&pod.node));
    let address = |pod: &RunningPod| {
        let mut own = pod.addresses.iter().copied();
        own.find(|one| pools.contain(*one) && !assigned.contains(one))
            .filter(|_| !has_undecodable_assignment(observed, pod))
    };
    pods.filter_map(|pod| Some(without_assignment(pod, address(pod)?))).collect()
}

/// Whether the assignment of the pod's addresses exists, but can't be decoded.
fn has_undecodable_assignment(observed: &Observation, pod: &RunningPod) -> bool {
    let ipv4 = pod.addresses.iter().find_map(|one| if let IpAddr::V4(one) = one { Some(*one) } else { None });
    let ipv6 = pod.addresses.iter().find_map(|one| if let IpAddr::V6(one) = one { Some(*one) } else { None });
    name::assignment(ipv4, ipv6).is_some_and(|name| observed.is_undecodable::<IPAssignment>(&name))
}

fn without_assignment(pod: &RunningPod, address: IpAddr) -> Finding {
    let (node, (namespace, pod)) = (&pod.node, &pod.name);
    Finding {
        severity: Severity::Error,
        kind: Kind::AttachmentWithoutAssignment,
        object: format!("address {address}"),
        what: format!(
            "pod {namespace}/{pod} on node {node} reports the address, but no IPAssignment records it, and the node's agent gives no answer"
        ),
        since: None,
        bobbin: "if Bobbin assigned the address, the agent creates the IPAssignment again when it runs and reaches the API server".to_owned(),
        you: format!("see the finding AgentUnreachable of Node {node}"),
        identity: format!("{namespace}/{pod}"),
    }
}

fn finding(node: &str, pods: &[&RunningPod]) -> Finding {
    let mut named: Vec<String> = pods.iter().take(NAMED).map(|pod| described(pod)).collect();
    if pods.len() > NAMED {
        named.push(format!("{} more", pods.len() - NAMED));
    }
    Finding {
        severity: Severity::Info,
        kind: Kind::PodsOfAnotherPlugin,
        object: format!("Node {node}"),
        what: format!(
            "{} of the node {} addresses that are in no pool, so another network plugin assigned them: {}",
            counted(pods.len(), "running pod"),
            if pods.len() == 1 { "has" } else { "have" },
            named.join(", ")
        ),
        since: None,
        bobbin: "nothing, because Bobbin did not assign these addresses".to_owned(),
        you: format!(
            "nothing, if these pods should keep their addresses. To move them to Bobbin, make sure that kubectl bobbin check {node} finds no CNIConfigShadowed, and delete the pods"
        ),
        identity: String::new(),
    }
}

fn described(pod: &RunningPod) -> String {
    let (namespace, name) = &pod.name;
    let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
    format!("{namespace}/{name} ({})", addresses.join(" and "))
}
