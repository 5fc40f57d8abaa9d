//! Decides where an address lies, and why no pod has it. Pure.

use std::net::IpAddr;

use bobbin_crds::{AddressBlock, AddressPool};
use bobbin_ipam::PoolShape;
use bobbin_ipam::pool_shape::subnet_pair;
use ipnet::IpNet;

use super::State;
use crate::api::reserved::why_reserved;

/// Where an address lies.
pub(super) enum Place<'a> {
    /// In this pool, in the block with this index.
    Block(&'a AddressPool, u64),
    /// In this subnet of the pool's spec, which the operator has not accepted.
    NotAccepted(&'a AddressPool, String),
    InNoPool,
}

pub(super) fn place(pools: &[AddressPool], address: IpAddr) -> Place<'_> {
    let block = pools.iter().find_map(|pool| Some((pool, PoolShape::read(pool).ok()?.layout.index_of(address)?)));
    if let Some((pool, index)) = block {
        return Place::Block(pool, index);
    }
    let subnet = pools.iter().find_map(|pool| {
        let mut subnets = pool.spec.subnets.iter().filter_map(|entry| subnet_pair(entry).ok());
        let contains = |net: IpNet| net.contains(&address);
        let found = subnets.find(|pair| {
            pair.ipv4.map(Into::into).is_some_and(contains) || pair.ipv6.map(Into::into).is_some_and(contains)
        });
        Some((pool, found?.to_string()))
    });
    subnet.map_or(Place::InNoPool, |(pool, subnet)| Place::NotAccepted(pool, subnet))
}

/// The state of an address that lies in a block of the pool, but has no assignment.
pub(super) fn unassigned(pool: &AddressPool, index: u64, address: IpAddr, block: Option<&AddressBlock>) -> State {
    let range = PoolShape::read(pool).ok().and_then(|shape| shape.layout.block(index));
    // An address pair is reserved if one of its addresses is reserved.
    let pair = range.and_then(|range| range.pair(range.offset_of(address)?));
    if let Some(why) = pair.and_then(|pair| why_reserved(pool, &pair)) {
        return State::Reserved { why };
    }
    let spec = block.map(|block| &block.spec);
    if let Some(node) = spec.and_then(|spec| spec.node_name.clone()) {
        return State::Claimed { node };
    }
    let since = spec.and_then(|spec| spec.free_since.as_ref()).map(|since| since.0);
    since.map_or(State::NeverAssigned, |since| {
        let cools_until = since.saturating_add(pool.spec.cooldown()).unwrap_or(since);
        State::Free { since, cools_until }
    })
}

#[cfg(test)]
mod tests;
