//! The assignments that are marked as void, counted by pool and block. The counts in a pool's status leave them out. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::index::{Changes, Index};

/// The marked assignments, and how many of them name each block.
#[derive(Debug, Default)]
pub(super) struct VoidMarks {
    addresses: HashSet<IpAddr>,
    counts: HashMap<Arc<str>, BTreeMap<u64, u32>>,
}

impl VoidMarks {
    fn add(&mut self, address: IpAddr, pool: &Arc<str>, block: u64) {
        if self.addresses.insert(address) {
            *self.counts.entry(Arc::clone(pool)).or_default().entry(block).or_default() += 1;
        }
    }

    /// Removes the mark of an assignment that no longer exists. Returns whether the assignment was marked.
    pub(super) fn remove(&mut self, address: IpAddr, pool: &str, block: u64) -> bool {
        let was_marked = self.addresses.remove(&address);
        if was_marked && let Some(count) = self.counts.get_mut(pool).and_then(|blocks| blocks.get_mut(&block)) {
            *count = count.saturating_sub(1);
        }
        was_marked
    }

    /// How many marked assignments name the block.
    pub(super) fn of_block(&self, pool: &str, block: u64) -> u32 {
        self.counts.get(pool).and_then(|blocks| blocks.get(&block)).copied().unwrap_or(0)
    }

    /// How many marked assignments name the pool.
    pub(super) fn of_pool(&self, pool: &str) -> u64 {
        self.counts.get(pool).into_iter().flat_map(BTreeMap::values).map(|count| u64::from(*count)).sum()
    }
}

impl Index {
    /// Marks the assignments with these names as void, and all others as not void. Returns the pools whose void assignments
    /// changed.
    pub(crate) fn set_void<'a>(&mut self, names: impl Iterator<Item = &'a str>) -> Changes {
        let mut marks = VoidMarks::default();
        for address in names.filter_map(super::unreadable::address_of) {
            if let Some(info) = self.assignments.get(&address) {
                marks.add(address, &info.pool, info.block);
            }
        }
        let changed = marks.addresses.symmetric_difference(&self.void.addresses);
        let pools: HashSet<_> =
            changed.filter_map(|address| self.assignments.get(address)).map(|info| Arc::clone(&info.pool)).collect();
        self.void = marks;
        Changes { pools: pools.into_iter().collect(), ..Changes::default() }
    }
}
