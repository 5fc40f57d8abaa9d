//! Reads IPAssignments from the API server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use bobbin_api_client::{Clients, Lenient, ReadError, read};
use bobbin_crds::IPAssignment;
use bobbin_ipam::{AttachmentKey, BlockRange, IpPair};
use kube::api::ListParams;
use kube::{Api, Resource};

use crate::cluster::ClusterCache;
use crate::state::PodRef;

/// How long one read of assignments may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The number of assignments in one page of a LIST response.
const PAGE_SIZE: u32 = 500;

/// The fields of an `IPAssignment` that the agent uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AssignmentInfo {
    /// Whether the agent could decode the assignment's spec. If not, the assignment's address counts as in use.
    pub readable: bool,
    pub name: String,
    pub uid: String,
    pub node_name: String,
    pub block_name: String,
    pub ipv4: Option<String>,
    pub ipv6: Option<String>,
    pub key: AttachmentKey,
    pub pod: PodRef,
    pub boot_id: String,
}

impl AssignmentInfo {
    /// Extracts the fields of an IPAssignment object. If the agent can't decode the assignment, the result names no attachment.
    pub(crate) fn of(assignment: Lenient<IPAssignment>) -> AssignmentInfo {
        let metadata = assignment.meta();
        let (name, uid) = (metadata.name.clone().unwrap_or_default(), metadata.uid.clone().unwrap_or_default());
        let Ok(assignment) = assignment.into_result() else {
            return AssignmentInfo { name, uid, ..AssignmentInfo::default() };
        };
        let spec = assignment.spec;
        AssignmentInfo {
            readable: true,
            name,
            uid,
            node_name: spec.node_name,
            block_name: spec.block_name,
            ipv4: spec.ipv4,
            ipv6: spec.ipv6,
            key: AttachmentKey::new(spec.container_id, spec.if_name),
            pod: PodRef {
                namespace: spec.pod_namespace.unwrap_or_default(),
                name: spec.pod_name.unwrap_or_default(),
                uid: spec.pod_uid.unwrap_or_default(),
            },
            boot_id: spec.boot_id,
        }
    }

    /// The assignment's addresses that can be parsed.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        [&self.ipv4, &self.ipv6].into_iter().flatten().filter_map(|address| address.parse().ok())
    }

    /// The assignment's addresses that can be parsed, as an address pair.
    pub(crate) fn pair(&self) -> IpPair {
        IpPair {
            ipv4: self.ipv4.as_ref().and_then(|address| address.parse().ok()),
            ipv6: self.ipv6.as_ref().and_then(|address| address.parse().ok()),
        }
    }

    /// A description of the assignment's owner, for messages.
    pub(crate) fn by(&self) -> String {
        if !self.readable {
            return format!("an unknown attachment (the agent can't decode IPAssignment {})", self.name);
        }
        let pod = match (self.pod.namespace.as_str(), self.pod.name.as_str()) {
            ("", _) | (_, "") => String::new(),
            (namespace, name) => format!("pod {namespace}/{name}, "),
        };
        format!("{pod}container {} interface {} on node {}", self.key.container_id, self.key.if_name, self.node_name)
    }
}

pub(crate) async fn list_own_assignments(
    clients: &Clients,
    cluster: &ClusterCache,
) -> Result<Vec<AssignmentInfo>, ReadError> {
    let all = list(clients, &format!("spec.nodeName={}", cluster.node_name())).await?;
    cluster.unreadable().listed(&all);
    Ok(all.into_iter().map(AssignmentInfo::of).collect())
}

/// Lists the assignments of all nodes in a block.
pub(crate) async fn list_assignments_in_block(
    clients: &Clients,
    block: &str,
) -> Result<Vec<AssignmentInfo>, ReadError> {
    let all = list(clients, &format!("spec.blockName={block}")).await?;
    Ok(all.into_iter().map(AssignmentInfo::of).collect())
}

/// Lists the assignments of one node in a block.
pub(crate) async fn list_own_assignments_in_block(
    clients: &Clients,
    block: &str,
    node: &str,
) -> Result<Vec<AssignmentInfo>, ReadError> {
    let all = list(clients, &format!("spec.blockName={block},spec.nodeName={node}")).await?;
    Ok(all.into_iter().map(AssignmentInfo::of).collect())
}

pub(crate) async fn get_assignment(clients: &Clients, name: &str) -> Result<AssignmentInfo, ReadError> {
    let api: Api<Lenient<IPAssignment>> = Api::all(clients.requests.clone());
    read(CALL_TIMEOUT, api.get(name)).await.map(AssignmentInfo::of)
}

async fn list(clients: &Clients, fields: &str) -> Result<Vec<Lenient<IPAssignment>>, ReadError> {
    let api: Api<Lenient<IPAssignment>> = Api::all(clients.requests.clone());
    let mut page = ListParams::default().fields(fields).limit(PAGE_SIZE);
    let mut all = Vec::new();
    loop {
        let list = read(CALL_TIMEOUT, api.list(&page)).await?;
        all.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}

/// Parses the address in an assignment's name. The name is the IPv4 address, or the full IPv6 address with dashes instead of colons.
pub(crate) fn address_of(name: &str) -> Option<IpAddr> {
    let ipv4 = name.parse::<Ipv4Addr>().map(IpAddr::V4);
    ipv4.or_else(|_| name.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

/// The address pair of the assignment with this name. Returns `None` if the pair is outside the range.
pub(crate) fn pair_of(range: &BlockRange, name: &str) -> Option<IpPair> {
    range.pair(range.offset_of(address_of(name)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignments_name_gives_its_address_and_its_offset_in_a_block() {
        assert_eq!(address_of("10.64.0.5"), "10.64.0.5".parse().ok());
        assert_eq!(address_of("fd00-0064-0000-0000-0000-0000-0000-0005"), "fd00:64::5".parse().ok());
        assert_eq!(address_of("web-0"), None);
        let range = BlockRange::parse(Some("10.64.0.0/27"), Some("fd00:64::/123")).unwrap();
        assert_eq!(pair_of(&range, "10.64.0.5"), range.pair(5));
        assert_eq!(pair_of(&range, "10.64.1.5"), None);
    }
}
