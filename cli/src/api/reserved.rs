//! The addresses of a pool that are never assigned.

use std::net::IpAddr;

use bobbin_crds::AddressPool;
use bobbin_ipam::{IpPair, PoolShape, Reserved};

/// All reserved addresses of the pool: those of its spec, those of Nodes, and those that no pod can use.
pub(crate) fn reserved(pool: &AddressPool) -> Reserved {
    let mut reserved = PoolShape::read(pool).map(|shape| shape.reserved).unwrap_or_default();
    node_addresses(pool).for_each(|address| reserved.add(address));
    reserved
}

/// Why the pool never assigns the pair; `None` if it may assign the pair.
pub(crate) fn why_reserved(pool: &AddressPool, pair: &IpPair) -> Option<String> {
    let has =
        |address: IpAddr| pair.ipv4.map(IpAddr::V4) == Some(address) || pair.ipv6.map(IpAddr::V6) == Some(address);
    if let Some(address) = node_addresses(pool).find(|address| has(*address)) {
        return Some(format!("a Node has the address {address}"));
    }
    let covers = |entry: &&String| Reserved::parse(std::slice::from_ref(*entry)).is_ok_and(|one| one.covers(pair));
    if Reserved::default().covers(pair) {
        Some("no pod can use an address of this kind".to_owned())
    } else {
        pool.spec.reserved.iter().find(covers).map(|entry| format!("the entry {entry} of spec.reserved contains it"))
    }
}

fn node_addresses(pool: &AddressPool) -> impl Iterator<Item = IpAddr> {
    pool.status.iter().flat_map(|status| &status.node_addresses).filter_map(|text| text.parse().ok())
}
