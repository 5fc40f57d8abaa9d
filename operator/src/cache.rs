//! The watch cache: one index of all watched objects behind a lock, and notifications about its changes.
//!
//! The cache lags behind the API server. Before the operator deletes an object or releases a block, it confirms the
//! decision by a read from the API server.

mod block;
mod claims;
mod departure;
mod foreign_addresses;
mod index;
mod linux_nodes;
pub(crate) mod objects;
mod suspects;
mod unreadable;
mod view;
mod void;
pub(crate) mod watches;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_api_client::{PartialNode, UnreadableObjects};
use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) use block::{BlockInfo, BlockOwner, block_index, block_key};
pub(crate) use claims::ClaimsBeyond;
pub(crate) use departure::{Departure, Holdings, NodeOwners};
pub(crate) use foreign_addresses::{NodeAddress, Sighting};
pub(crate) use index::{Changes, Index};
pub(crate) use suspects::{SuspectAssignment, assignment_range};
pub(crate) use unreadable::{UnreadableObject, address_of};
pub(crate) use view::PoolView;
#[cfg(test)]
pub(crate) use view::SelectedNodes;

/// The index, and the tasks to notify when the index changes.
#[derive(Default)]
pub(crate) struct Cache {
    index: Mutex<Index>,
    pool_notifies: Mutex<HashMap<Arc<str>, Arc<Notify>>>,
    /// Notifies that a pool was created or deleted, or that a pool got its first block or lost its last block.
    pub(crate) pool_set_changed: Notify,
    /// Notifies that a node changed, or that a block or an assignment of a node changed.
    pub(crate) nodes_changed: Notify,
    /// The watched objects that can't be decoded at the moment.
    pub(crate) unreadable: UnreadableObjects,
}

impl Cache {
    /// Reads or changes the index. The closure must be quick, because every watch waits for the closure.
    pub(crate) fn with<T>(&self, use_index: impl FnOnce(&mut Index) -> T) -> T {
        use_index(&mut self.index.lock())
    }

    /// Marks the assignments with these names as void, and all others as not void. The counts in a pool's status leave
    /// out void assignments.
    pub(crate) fn set_void<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let changes = self.with(|index| index.set_void(names));
        self.notify(&changes);
    }

    /// Forgets the Node addresses that no Node has reported for one grace period. Keeps the addresses of `owners`, the
    /// deleted nodes that still own something. Returns the time until the next grace period ends.
    pub(crate) fn forget_node_addresses(
        &self,
        now: Instant,
        grace_period: Duration,
        owners: &HashMap<Arc<str>, Departure>,
    ) -> Option<Duration> {
        let unreadable_nodes = self.unreadable.count::<PartialNode>() > 0;
        let is_owner = |node: &str| owners.contains_key(node);
        let (changes, next) =
            self.with(|index| index.forget_node_addresses(now, grace_period, is_owner, unreadable_nodes));
        self.notify(&changes);
        next
    }

    /// Returns the `Notify` for changes to a pool or to the pool's blocks and assignments.
    pub(crate) fn pool_notify(&self, pool: &Arc<str>) -> Arc<Notify> {
        Arc::clone(self.pool_notifies.lock().entry(Arc::clone(pool)).or_default())
    }

    /// Drops the `Notify` of a pool whose reconciler has ended.
    pub(crate) fn remove_pool_notify(&self, pool: &str) {
        self.pool_notifies.lock().remove(pool);
    }

    /// Notifies every task that waits for a change of the index.
    pub(crate) fn notify_all(&self) {
        self.pool_notifies.lock().values().for_each(|notify| notify.notify_one());
        self.pool_set_changed.notify_one();
        self.nodes_changed.notify_one();
    }

    fn notify(&self, changes: &Changes) {
        if !changes.pools.is_empty() {
            let notifies = self.pool_notifies.lock();
            changes.pools.iter().filter_map(|pool| notifies.get(pool)).for_each(|notify| notify.notify_one());
        }
        if changes.pool_set {
            self.pool_set_changed.notify_one();
        }
        if changes.nodes {
            self.nodes_changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
