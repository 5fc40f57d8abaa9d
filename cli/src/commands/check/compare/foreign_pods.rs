//! Running pods whose addresses another network plugin assigned.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use bobbin_agent_status::AgentMode;
use bobbin_crds::AddressPool;
use bobbin_ipam::{PoolLayout, PoolShape};
use kube::Resource;

use super::addresses_of;
use crate::commands::check::finding::{Finding, Kind, Severity};
use crate::commands::check::observation::{Observation, ReportedPod};
use crate::print::count::counted;

/// How many pods a finding names.
const NAMED: usize = 5;

/// One finding for each node that Bobbin serves, if pods of the node have addresses of another network plugin.
pub(super) fn compare(observed: &Observation) -> Vec<Finding> {
    let Some(pools) = layouts(observed) else { return Vec::new() };
    let assigned: HashSet<IpAddr> = observed.assignments.iter().flat_map(addresses_of).collect();
    let is_ours =
        |address: &IpAddr| assigned.contains(address) || pools.iter().any(|pool| pool.index_of(*address).is_some());
    let mut foreign: BTreeMap<&str, Vec<&ReportedPod>> = BTreeMap::new();
    for pod in observed.reported_pods.iter().filter(|pod| !pod.addresses.iter().any(is_ours)) {
        foreign.entry(&pod.node).or_default().push(pod);
    }
    let served = observed.statuses().filter(|(_, status)| status.mode == AgentMode::Run);
    served.filter_map(|(node, _)| Some(finding(node, foreign.get(node)?))).collect()
}

/// The subnets of all pools, also of those that the operator has not accepted. `None` if a pool can't be decoded, because its subnets
/// are unknown.
fn layouts(observed: &Observation) -> Option<Vec<PoolLayout>> {
    if observed.undecodable.iter().any(|one| one.kind == AddressPool::kind(&())) {
        return None;
    }
    observed.pools.iter().map(|pool| PoolShape::in_order(pool).ok()).collect()
}

fn finding(node: &str, pods: &[&ReportedPod]) -> Finding {
    let mut named: Vec<String> = pods.iter().take(NAMED).map(|pod| described(pod)).collect();
    if pods.len() > NAMED {
        named.push(format!("{} more", pods.len() - NAMED));
    }
    Finding {
        severity: Severity::Info,
        kind: Kind::PodOfAnotherPlugin,
        object: format!("Node {node}"),
        what: format!(
            "another network plugin assigned the addresses of {}, because they are in no pool: {}",
            counted(pods.len(), "running pod"),
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

fn described(pod: &ReportedPod) -> String {
    let (namespace, name) = &pod.name;
    let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
    format!("{namespace}/{name} ({})", addresses.join(" and "))
}
