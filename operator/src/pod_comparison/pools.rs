//! The pools of one comparison: their names, families and accepted subnets. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bobbin_crds::AddressPool;
use bobbin_crds::pool::Acceptance;
use bobbin_ipam::{Family, SubnetPair};

use bobbin_ipam::pool_shape::entries;

/// The pool name in metrics for addresses whose assignment names a pool that does not exist.
const NO_POOL: &str = "(none)";

/// The existing pools, each with its accepted subnets. A pool that can't be decoded has no subnets here.
#[derive(Debug, Default)]
pub(super) struct Pools(BTreeMap<Arc<str>, Vec<SubnetPair>>);

impl Pools {
    /// Adds a pool. `pool` is `None` if the pool can't be decoded.
    pub(super) fn add(&mut self, name: &str, pool: Option<&AddressPool>) {
        let accepted = entries(pool).into_iter().filter(|entry| entry.state == Acceptance::Accepted);
        self.0.insert(name.into(), accepted.map(|entry| entry.subnet).collect());
    }

    /// The pool that has this address in an accepted subnet.
    pub(super) fn of(&self, address: IpAddr) -> Option<Arc<str>> {
        let has = |subnet: &SubnetPair| match address {
            IpAddr::V4(address) => subnet.ipv4.is_some_and(|net| net.contains(&address)),
            IpAddr::V6(address) => subnet.ipv6.is_some_and(|net| net.contains(&address)),
        };
        self.0.iter().find(|(_, subnets)| subnets.iter().any(has)).map(|(name, _)| Arc::clone(name))
    }

    /// The pool name in metrics for an assignment that names the pool `name`. Returns `NO_POOL` if no such pool exists. An
    /// assignment may contain any text as the name of its pool, and such a text must not become a metric label.
    pub(super) fn name(&self, name: &str) -> Arc<str> {
        self.0.get_key_value(name).map_or_else(|| NO_POOL.into(), |(name, _)| Arc::clone(name))
    }

    /// All pairs of a pool and one of the pool's address families.
    pub(super) fn families(&self) -> impl Iterator<Item = (Arc<str>, Family)> {
        self.0.iter().flat_map(|(name, subnets)| {
            let ipv4 = subnets.iter().any(|subnet| subnet.ipv4.is_some()).then_some(Family::Ipv4);
            let ipv6 = subnets.iter().any(|subnet| subnet.ipv6.is_some()).then_some(Family::Ipv6);
            ipv4.into_iter().chain(ipv6).map(|family| (Arc::clone(name), family))
        })
    }
}
