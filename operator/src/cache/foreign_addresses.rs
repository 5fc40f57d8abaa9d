//! Addresses that no pod may have: those of Nodes and Services. Pure.

mod node_addresses;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_api_client::{Lenient, PartialNode};
use bobbin_ipam::overlap::SubnetConflict;
use bobbin_ipam::{BlockRange, SubnetPair};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use node_addresses::NodeAddresses;

use super::index::{Changes, Index};
use super::objects::{PartialServiceCIDR, node_conflict, node_conflicts, service_conflicts};
use super::unreadable::UnreadableObject;

pub(crate) use node_addresses::Sighting;

/// An address of a Node that lies in a subnet of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeAddress {
    pub(crate) address: IpAddr,
    pub(crate) sighting: Sighting,
    /// Whether an assignment has the address.
    pub(crate) assigned: bool,
}

/// The addresses of all Nodes, and the ranges of all Services.
pub(super) struct ForeignAddresses {
    nodes: NodeAddresses,
    services: Store<Lenient<PartialServiceCIDR>>,
    service_writer: Writer<Lenient<PartialServiceCIDR>>,
}

impl Default for ForeignAddresses {
    fn default() -> Self {
        let (services, service_writer) = reflector::store();
        Self { nodes: NodeAddresses::default(), services, service_writer }
    }
}

impl ForeignAddresses {
    /// Replaces the addresses that Nodes report.
    pub(super) fn set_nodes(&mut self, nodes: &[Arc<PartialNode>], now: Instant) {
        let name = |node: &PartialNode| node.metadata.name.as_deref().unwrap_or_default().into();
        let of = |node: &Arc<PartialNode>| (name(node), node.reserved_addresses().into_iter().collect());
        self.nodes.observe(nodes.iter().map(of).collect(), now);
    }

    /// The addresses of Nodes in a subnet.
    fn nodes_in(&self, subnet: &SubnetPair) -> impl Iterator<Item = (IpAddr, &Sighting)> {
        let ipv4 = subnet.ipv4.map(|net| IpAddr::V4(net.network())..=IpAddr::V4(net.broadcast()));
        let ipv6 = subnet.ipv6.map(|net| IpAddr::V6(net.network())..=IpAddr::V6(net.broadcast()));
        ipv4.into_iter().chain(ipv6).flat_map(|range| self.nodes.in_range(range))
    }

    pub(super) fn unreadable_services(&self) -> impl Iterator<Item = UnreadableObject> {
        let all = self.services.state().into_iter();
        all.filter(|range| range.readable().is_none()).map(|range| UnreadableObject::service_range(range.name()))
    }
}

impl Index {
    /// Applies an event of the watch of Service ranges.
    pub(crate) fn service_event(&mut self, event: &Event<Lenient<PartialServiceCIDR>>) -> Changes {
        self.foreign.service_writer.apply_watcher_event(event);
        match event {
            Event::Apply(_) | Event::Delete(_) => Changes { pools: self.all_pools(), ..Changes::default() },
            Event::Init | Event::InitApply(_) | Event::InitDone => Changes::default(),
        }
    }

    /// The address ranges of all Services. A pool that contains one of these addresses has a conflict.
    pub(crate) fn service_ranges(&self) -> Vec<SubnetConflict> {
        let all = self.foreign.services.state();
        all.iter().filter_map(|range| range.readable()).flat_map(service_conflicts).collect()
    }

    /// The addresses of all Nodes, as conflicts: no pool may contain a Node's address. The result includes addresses that
    /// no Node reports any more but that are still reserved.
    pub(crate) fn node_addresses(&self) -> Vec<SubnetConflict> {
        let nodes = self.nodes.state();
        let reported = nodes.iter().flat_map(|node| node_conflicts(node));
        let unreported = self.foreign.nodes.unreported().map(|(address, sighting)| match sighting {
            Sighting::Reported(node) | Sighting::Earlier(node) => {
                node_conflict(format!("the last known address of Node {node}"), address)
            }
            Sighting::Listed => node_conflict("the last known address of a Node".to_owned(), address),
        });
        reported.chain(unreported).collect()
    }

    /// The addresses of Nodes in the given subnets. Returns at most `limit` + 1 addresses, so that the caller can see
    /// whether there are more than `limit`.
    pub(super) fn node_addresses_in(&self, subnets: &[SubnetPair], limit: usize) -> Vec<NodeAddress> {
        let found: Vec<_> =
            subnets.iter().flat_map(|subnet| self.foreign.nodes_in(subnet)).take(limit.saturating_add(1)).collect();
        let addresses: Vec<IpAddr> = found.iter().map(|(address, _)| *address).collect();
        let assigned = self.assigned_among(&addresses);
        let of = |(address, sighting): (IpAddr, &Sighting)| NodeAddress {
            address,
            sighting: sighting.clone(),
            assigned: assigned.contains(&address),
        };
        found.into_iter().map(of).collect()
    }

    /// For one grace period, reserves the Node addresses from the status of a pool. An earlier leader found these
    /// addresses on Nodes. Returns whether the pool exists and can be decoded.
    pub(crate) fn inherit_node_addresses(&mut self, pool: &str, now: Instant) -> bool {
        let pool = self.pool(pool);
        let Some(pool) = pool.as_ref().and_then(|pool| pool.readable()) else { return false };
        let listed = pool.status.iter().flat_map(|status| &status.node_addresses);
        self.foreign.nodes.inherit(listed.filter_map(|text| text.parse().ok()), now);
        true
    }

    /// Forgets the Node addresses that no Node has reported for one grace period. Returns the time until the next grace
    /// period ends.
    ///
    /// The addresses of deleted nodes that still own something (`is_owner`) stay. While a Node is unreadable, the addresses
    /// from the status of pools also stay, because the Node may have one of these addresses.
    pub(crate) fn forget_node_addresses(
        &mut self,
        now: Instant,
        grace_period: Duration,
        is_owner: impl Fn(&str) -> bool,
        unreadable_nodes: bool,
    ) -> (Changes, Option<Duration>) {
        let forgotten = self.foreign.nodes.forget(now, grace_period, is_owner, unreadable_nodes);
        let pools = if forgotten.any { self.all_pools() } else { Vec::new() };
        (Changes { pools, ..Changes::default() }, forgotten.next)
    }

    /// The Service ranges that overlap the given subnets.
    pub(super) fn service_ranges_in(&self, subnets: &[SubnetPair]) -> Vec<SubnetConflict> {
        let overlaps = |range: &BlockRange| subnets.iter().any(|subnet| range.overlaps_subnet(subnet));
        self.service_ranges().into_iter().filter(|conflict| overlaps(&conflict.range)).collect()
    }
}
