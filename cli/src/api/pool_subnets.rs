//! Whether an address lies in a pool. Pure.

use std::net::IpAddr;

use bobbin_crds::AddressPool;
use bobbin_ipam::{PoolLayout, PoolShape};

/// The subnets of all pools, including subnets that the operator has not accepted.
pub(crate) struct PoolSubnets(Vec<PoolLayout>);

impl PoolSubnets {
    /// `None` if the spec of a pool is invalid, because the pool's subnets are then unknown.
    pub(crate) fn of(pools: &[AddressPool]) -> Option<Self> {
        pools.iter().map(|pool| PoolShape::in_order(pool).ok()).collect::<Option<Vec<_>>>().map(Self)
    }

    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|layout| layout.index_of(address).is_some())
    }
}
