//! The networks that the node itself uses. A node claims no block that shares addresses with the node's own networks, because the block's
//! routes would cut the node off from these networks.

use std::collections::BTreeMap;
use std::sync::Arc;

use bobbin_api_client::list_names;
use bobbin_crds::AddressPool;
use bobbin_datapath::{KernelError, Network, NetworkUse, OccupiedNet};
use bobbin_ipam::{Reserved, ReservedError, SubnetPair};
use ipnet::IpNet;
use kube::ResourceExt;
use parking_lot::Mutex;

use crate::blocks::read::BlockInfo;

/// The part of a message that says how an administrator replaces the blocks that the node can't claim. If these blocks are reserved, the
/// operator creates other blocks instead, because it creates no block whose addresses are all reserved.
pub(crate) const REMEDY: &str =
    "add the blocks with these addresses to the pool's spec.reserved, and append a subnet if no other block remains";
/// The largest number of networks that a message names.
const MAX_NAMED: usize = 5;

/// The networks that the node itself uses, as the kernel last listed them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct NodeNetwork(Arc<Inner>);

struct Inner {
    /// `None` for a simulated node, which has no network.
    network: Option<Network>,
    occupied: Mutex<Vec<OccupiedNet>>,
    /// For each pool that shares addresses with the node's networks, the names of these networks, as last reported.
    reported: Mutex<BTreeMap<String, String>>,
}

impl NodeNetwork {
    pub(super) fn new(network: Option<Network>) -> Self {
        Self(Arc::new(Inner { network, occupied: Mutex::default(), reported: Mutex::default() }))
    }

    /// Reads the node's networks from the kernel. Returns all of them, even those outside of all pools. The claim then finds the networks
    /// that share addresses with its pool or with a block.
    pub(super) async fn read(&self) -> Result<Vec<OccupiedNet>, KernelError> {
        self.refresh().await?;
        Ok(self.0.occupied.lock().clone())
    }

    /// Reads the node's networks from the kernel and stores them.
    pub(crate) async fn refresh(&self) -> Result<(), KernelError> {
        if let Some(network) = &self.0.network {
            let occupied = network.occupied().await?;
            *self.0.occupied.lock() = occupied;
        }
        Ok(())
    }

    /// The addresses of a pool that this node never assigns: the reserved addresses, and the addresses and next hops of the node itself.
    pub(crate) fn reserved(&self, pool: &AddressPool) -> Result<Reserved, ReservedError> {
        let mut reserved = reserved_of(pool)?;
        for occupied in self.in_pool(pool).into_iter().filter(|occupied| occupied.used_as != NetworkUse::Connected) {
            reserved.add(occupied.net);
        }
        Ok(reserved)
    }

    /// Finds the node's networks that share addresses with the pool. Returns their names if these names have changed since the last call.
    pub(crate) fn note_change(&self, pool: &AddressPool, admits_node: bool) -> Option<String> {
        let (name, occupied) = (pool.name_any(), self.in_pool(pool));
        let mut reported = self.0.reported.lock();
        if occupied.is_empty() || !admits_node {
            reported.remove(&name);
            return None;
        }
        let what = named(&occupied);
        let before = reported.insert(name, what.clone());
        (before.as_ref() != Some(&what)).then_some(what)
    }

    /// The number of pools that share addresses with the node's networks. Forgets the pools for which `exist` returns false.
    pub(crate) fn pools_with_refused_blocks(&self, exist: impl Fn(&str) -> bool) -> usize {
        let mut reported = self.0.reported.lock();
        reported.retain(|pool, _| exist(pool));
        reported.len()
    }

    fn in_pool(&self, pool: &AddressPool) -> Vec<OccupiedNet> {
        in_pool(pool, &self.0.occupied.lock())
    }
}

fn subnets(pool: &AddressPool) -> impl Iterator<Item = SubnetPair> {
    let parsed =
        |entry: &bobbin_crds::pool::Subnet| SubnetPair::parse(entry.ipv4.as_deref(), entry.ipv6.as_deref()).ok();
    pool.spec.subnets.iter().filter_map(parsed)
}

/// The networks that share an address with the pool.
pub(super) fn in_pool(pool: &AddressPool, occupied: &[OccupiedNet]) -> Vec<OccupiedNet> {
    let subnets: Vec<SubnetPair> = subnets(pool).collect();
    let lies_in = |occupied: &&OccupiedNet| subnets.iter().any(|subnet| subnet.overlaps(&occupied.net.into()));
    occupied.iter().filter(lies_in).copied().collect()
}

/// Whether each subnet of the pool lies in one of the networks. If so, the node can claim no block of the pool.
pub(super) fn covers_pool(pool: &AddressPool, occupied: &[OccupiedNet]) -> bool {
    let is_covered = |subnet: SubnetPair| {
        occupied.iter().any(|occupied| match occupied.net {
            IpNet::V4(net) => subnet.ipv4.is_some_and(|inner| net.contains(&inner)),
            IpNet::V6(net) => subnet.ipv6.is_some_and(|inner| net.contains(&inner)),
        })
    };
    subnets(pool).all(is_covered)
}

/// The addresses of a pool that no node assigns: `spec.reserved`, and addresses of Nodes.
pub(crate) fn reserved_of(pool: &AddressPool) -> Result<Reserved, ReservedError> {
    let of_nodes = pool.status.as_ref().map(|status| status.node_addresses.as_slice()).unwrap_or_default();
    Reserved::parse(&[pool.spec.reserved.as_slice(), of_nodes].concat())
}

/// The networks that share an address with the block.
pub(super) fn networks_in(block: &BlockInfo, occupied: &[OccupiedNet]) -> impl Iterator<Item = OccupiedNet> {
    let range = block.range.map(|range| range.as_subnet());
    let lies_in = move |occupied: &&OccupiedNet| range.is_some_and(|range| range.overlaps(&occupied.net.into()));
    occupied.iter().filter(lies_in).copied()
}

/// The names of networks, at most [`MAX_NAMED`].
pub(super) fn named(occupied: &[OccupiedNet]) -> String {
    list_names(occupied.iter().take(MAX_NAMED), occupied.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(subnets: &serde_json::Value) -> AddressPool {
        serde_json::from_value(json!({
            "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": "p"},
            "spec": {"subnets": subnets},
        }))
        .unwrap()
    }

    fn connected(net: &str) -> OccupiedNet {
        OccupiedNet { used_as: NetworkUse::Connected, net: net.parse().unwrap() }
    }

    fn block(range: &str) -> BlockInfo {
        BlockInfo { range: bobbin_ipam::BlockRange::parse(Some(range), None).ok(), ..BlockInfo::default() }
    }

    #[tokio::test]
    async fn a_block_of_a_subnet_that_the_cached_pool_lacks_is_compared_too() {
        let network = NodeNetwork::new(None);
        *network.0.occupied.lock() = vec![connected("10.91.0.0/24")];
        let cached = pool(&json!([{"ipv4": "10.90.0.0/24"}]));
        assert!(network.in_pool(&cached).is_empty());
        let all = network.read().await.unwrap();
        assert_eq!(networks_in(&block("10.91.0.16/28"), &all).collect::<Vec<_>>(), all);
    }

    #[test]
    fn a_pool_is_covered_if_each_subnet_lies_in_a_network_of_the_node() {
        let node = [connected("10.90.0.0/16"), connected("fd00:90::/64")];
        assert!(covers_pool(&pool(&json!([{"ipv4": "10.90.1.0/24"}, {"ipv4": "10.90.2.0/24"}])), &node));
        assert!(covers_pool(&pool(&json!([{"ipv4": "10.91.0.0/24", "ipv6": "fd00:90::/120"}])), &node));
        assert!(!covers_pool(&pool(&json!([{"ipv4": "10.90.1.0/24"}, {"ipv4": "10.91.0.0/24"}])), &node));
        assert!(!covers_pool(&pool(&json!([{"ipv4": "10.90.0.0/15"}])), &node));
    }
}
