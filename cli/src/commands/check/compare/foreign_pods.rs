//! Running pods whose addresses another network plugin assigned.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use bobbin_agent_status::AgentMode;
use bobbin_crds::AddressPool;
use kube::Resource;

use super::addresses_of;
use crate::api::pool_subnets::PoolSubnets;
use crate::commands::check::finding::{Finding, Kind, Severity};
use crate::commands::check::observation::{Observation, RunningPod};
use crate::print::count::counted;

/// How many pods a finding names.
const NAMED: usize = 5;

/// One finding for each node that Bobbin serves, if pods of the node have addresses of another network plugin.
pub(super) fn compare(observed: &Observation) -> Vec<Finding> {
    // The subnets of a pool that can't be decoded are unknown.
    if observed.undecodable.iter().any(|one| one.kind == AddressPool::kind(&())) {
        return Vec::new();
    }
    let Some(pools) = PoolSubnets::of(&observed.pools) else { return Vec::new() };
    let assigned: HashSet<IpAddr> = observed.assignments.iter().flat_map(addresses_of).collect();
    let is_ours = |address: &IpAddr| assigned.contains(address) || pools.contain(*address);
    let mut foreign: BTreeMap<&str, Vec<&RunningPod>> = BTreeMap::new();
    for pod in observed.running_pods.iter().filter(|pod| !pod.addresses.iter().any(is_ours)) {
        foreign.entry(&pod.node).or_default().push(pod);
    }
    let served = observed.statuses().filter(|(_, status)| status.mode == AgentMode::Run);
    served.filter_map(|(node, _)| Some(finding(node, foreign.get(node)?))).collect()
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
