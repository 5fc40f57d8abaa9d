//! The networks that the node itself uses. A node claims no block with their addresses, because the block's routes would cut the node off.

use std::collections::BTreeMap;
use std::sync::Arc;

use bobbin_crds::AddressPool;
use bobbin_datapath::{KernelError, Network, OccupiedNet, Use};
use bobbin_ipam::{Reserved, ReservedError, SubnetPair};
use kube::ResourceExt;
use parking_lot::Mutex;

use crate::blocks::read::BlockInfo;

/// How many networks a message names.
const MAX_NAMED: usize = 5;

/// The networks that the node itself uses, as the kernel last listed them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct NodeNetwork(Arc<Inner>);

struct Inner {
    /// `None`: a simulated node, which has no network.
    network: Option<Network>,
    occupied: Mutex<Vec<OccupiedNet>>,
    /// For each pool with addresses of the node's networks, the names of these networks.
    reported: Mutex<BTreeMap<String, String>>,
}

impl NodeNetwork {
    pub(super) fn new(network: Option<Network>) -> Self {
        Self(Arc::new(Inner { network, occupied: Mutex::default(), reported: Mutex::default() }))
    }

    /// Reads the node's networks from the kernel. Returns those that share an address with the pool.
    pub(super) async fn read(&self, pool: &AddressPool) -> Result<Vec<OccupiedNet>, KernelError> {
        self.refresh().await?;
        Ok(self.in_pool(pool))
    }

    /// Reads the node's networks from the kernel.
    pub(crate) async fn refresh(&self) -> Result<(), KernelError> {
        if let Some(network) = &self.0.network {
            let occupied = network.occupied().await?;
            *self.0.occupied.lock() = occupied;
        }
        Ok(())
    }

    /// The addresses of a pool that this node never assigns: the reserved ones, and addresses and next hops of the node itself.
    pub(crate) fn reserved(&self, pool: &AddressPool) -> Result<Reserved, ReservedError> {
        let mut reserved = reserved_of(pool)?;
        for occupied in self.in_pool(pool).into_iter().filter(|occupied| occupied.used_as != Use::Connected) {
            reserved.add(occupied.net);
        }
        Ok(reserved)
    }

    /// Compares the pool with the node's networks. Returns their names if they are other than at the last call.
    pub(crate) fn news(&self, pool: &AddressPool, admits_node: bool) -> Option<String> {
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

    /// How many pools have addresses of the node's networks.
    pub(crate) fn pools_with_refused_blocks(&self, exist: impl Fn(&str) -> bool) -> usize {
        let mut reported = self.0.reported.lock();
        reported.retain(|pool, _| exist(pool));
        reported.len()
    }

    fn in_pool(&self, pool: &AddressPool) -> Vec<OccupiedNet> {
        let parsed =
            |entry: &bobbin_crds::pool::Subnet| SubnetPair::parse(entry.ipv4.as_deref(), entry.ipv6.as_deref()).ok();
        let subnets: Vec<SubnetPair> = pool.spec.subnets.iter().filter_map(parsed).collect();
        let lies_in = |occupied: &&OccupiedNet| subnets.iter().any(|subnet| subnet.overlaps(&occupied.net.into()));
        self.0.occupied.lock().iter().filter(lies_in).copied().collect()
    }
}

/// The addresses of a pool that no node assigns: `spec.reserved`, and addresses of Nodes.
pub(crate) fn reserved_of(pool: &AddressPool) -> Result<Reserved, ReservedError> {
    let of_nodes = pool.status.as_ref().map(|status| status.node_addresses.as_slice()).unwrap_or_default();
    Reserved::parse(&[pool.spec.reserved.as_slice(), of_nodes].concat())
}

/// Whether a block has addresses that the node itself uses.
pub(super) fn is_occupied(block: &BlockInfo, occupied: &[OccupiedNet]) -> bool {
    let range = block.range.map(|range| range.as_subnet());
    range.is_some_and(|range| occupied.iter().any(|occupied| range.overlaps(&occupied.net.into())))
}

/// The names of networks, at most [`MAX_NAMED`].
pub(super) fn named(occupied: &[OccupiedNet]) -> String {
    let first: Vec<String> = occupied.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    let more = occupied.len().saturating_sub(MAX_NAMED);
    if more == 0 { first.join(", ") } else { format!("{} and {more} more", first.join(", ")) }
}
