//! Addresses that no pod may have: those of Nodes and Services. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bobbin_api_client::{Lenient, PartialNode};
use bobbin_ipam::overlap::SubnetConflict;
use bobbin_ipam::{BlockRange, SubnetPair};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;

use super::index::{Changes, Index};
use super::objects::{PartialServiceCIDR, service_conflicts};
use super::unreadable::UnreadableObject;

/// An address of a Node that lies in a subnet of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeAddress {
    pub(crate) address: IpAddr,
    pub(crate) node: Arc<str>,
    /// Whether an assignment has the address.
    pub(crate) assigned: bool,
}

/// The addresses of all Nodes, and the ranges of all Services.
pub(super) struct ForeignAddresses {
    nodes: BTreeMap<IpAddr, Arc<str>>,
    services: Store<Lenient<PartialServiceCIDR>>,
    service_writer: Writer<Lenient<PartialServiceCIDR>>,
}

impl Default for ForeignAddresses {
    fn default() -> Self {
        let (services, service_writer) = reflector::store();
        Self { nodes: BTreeMap::default(), services, service_writer }
    }
}

impl ForeignAddresses {
    /// Replaces the addresses of all Nodes.
    pub(super) fn set_nodes(&mut self, nodes: &[Arc<PartialNode>]) {
        self.nodes.clear();
        for node in nodes {
            let name: Arc<str> = node.metadata.name.as_deref().unwrap_or_default().into();
            self.nodes.extend(node.addresses().into_iter().map(|address| (address, Arc::clone(&name))));
        }
    }

    /// The addresses of Nodes in a subnet.
    pub(super) fn nodes_in(&self, subnet: &SubnetPair) -> impl Iterator<Item = (IpAddr, &Arc<str>)> {
        let ipv4 = subnet.ipv4.map(|net| IpAddr::V4(net.network())..=IpAddr::V4(net.broadcast()));
        let ipv6 = subnet.ipv6.map(|net| IpAddr::V6(net.network())..=IpAddr::V6(net.broadcast()));
        let ranges = ipv4.into_iter().chain(ipv6);
        ranges.flat_map(|range| self.nodes.range(range)).map(|(address, node)| (*address, node))
    }

    /// The ranges of all Services, as conflicts: no pool may contain a Service's address.
    pub(super) fn services(&self) -> Vec<SubnetConflict> {
        self.services.state().iter().filter_map(|range| range.readable()).flat_map(service_conflicts).collect()
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

    /// The ranges of all Services, as conflicts: no pool may contain a Service's address.
    pub(crate) fn service_ranges(&self) -> Vec<SubnetConflict> {
        self.foreign.services()
    }

    /// The addresses of Nodes in the given subnets, at most one more than `limit`.
    pub(super) fn node_addresses_in(&self, subnets: &[SubnetPair], limit: usize) -> Vec<NodeAddress> {
        let found = subnets.iter().flat_map(|subnet| self.foreign.nodes_in(subnet));
        let assigned = |address: IpAddr| self.has_assignment_of(address);
        let of = |(address, node): (IpAddr, &Arc<str>)| NodeAddress {
            address,
            node: Arc::clone(node),
            assigned: assigned(address),
        };
        found.take(limit + 1).map(of).collect()
    }

    /// The Service ranges that overlap the given subnets.
    pub(super) fn service_ranges_in(&self, subnets: &[SubnetPair]) -> Vec<SubnetConflict> {
        let overlaps = |range: &BlockRange| subnets.iter().any(|subnet| range.overlaps_subnet(subnet));
        self.service_ranges().into_iter().filter(|conflict| overlaps(&conflict.range)).collect()
    }
}
