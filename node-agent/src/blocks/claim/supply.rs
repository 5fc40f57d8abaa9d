//! Reads from a pool's status how many blocks are free and how many nodes may claim them. This module does no I/O.

use bobbin_crds::AddressPool;

/// How many blocks a claim tries without reading them, if the status shows enough free blocks for all nodes.
const MAX_UNREAD_BLOCKS: usize = 3;
/// The upper limit for counts in the status. No cluster has more nodes or blocks.
const MAX_COUNT: u64 = 1 << 32;
/// How many times a claim lists the free blocks of a pool that is not crowded (see [`Supply::is_crowded`]).
const MAX_LISTS: usize = 3;

/// The free blocks of a pool, and the nodes that may claim them, according to the pool's status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Supply {
    /// How many blocks in the index range `status.freeWindow` (the window) are free.
    pub free: u64,
    /// How many nodes have no block of the pool yet and may claim one.
    pub nodes_without_block: u64,
    /// How many block indices the window spans.
    pub window_len: u64,
}

/// Whether the operator can still create blocks of the pool, according to the pool's status.
pub(crate) fn has_uncreated_blocks(pool: &AddressPool) -> bool {
    let Some(status) = pool.status.as_ref() else { return false };
    // The window, `status.freeWindow`, contains at least three quarters of the free blocks that exist. `blocks.free` also counts blocks
    // that the operator has not created yet. So uncreated blocks remain if `blocks.free` is more than four thirds of the window's free
    // blocks.
    let in_window = status.free_window.map_or(0, |window| window.free);
    status.blocks.free.saturating_mul(3) > in_window.saturating_mul(4)
}

impl Supply {
    /// The supply that the pool's status shows.
    pub(crate) fn of(pool: &AddressPool) -> Self {
        let Some(status) = pool.status.as_ref() else { return Self::default() };
        // The CRD's schema sets no maximum for the numbers in the status, so a number may be unrealistically large.
        let count = |number: i64| u64::try_from(number).unwrap_or(0).min(MAX_COUNT);
        let window = status.free_window;
        Self {
            free: window.map_or(0, |window| count(window.free)),
            nodes_without_block: count(status.nodes_without_block.unwrap_or(0)),
            window_len: window.map_or(0, |window| count(window.last.saturating_sub(window.first)).saturating_add(1)),
        }
    }

    /// How many blocks of the window a claim tries without a read. A claim tries several blocks only if one of them is probably free.
    pub(super) fn unread_tries(self) -> usize {
        if self.has_block_for_each_node() && self.free_share_exceeds(3, 4) { MAX_UNREAD_BLOCKS } else { 1 }
    }

    /// How many times a claim lists the free blocks and tries the best block.
    pub(super) fn max_lists(self) -> usize {
        if self.is_crowded() { 1 } else { MAX_LISTS }
    }

    /// Whether each node without a block can get a free block.
    pub(crate) fn has_block_for_each_node(self) -> bool {
        self.free >= self.nodes_without_block
    }

    /// Whether so many nodes compete that they would claim the listed free blocks before this node can. In a crowded pool, a claim lists
    /// the free blocks at most once. A pool with few free blocks in the window does not count as crowded. In such a window, only a LIST
    /// reliably finds a free block.
    pub(super) fn is_crowded(self) -> bool {
        !self.has_block_for_each_node() && self.free_share_exceeds(1, 4)
    }

    fn free_share_exceeds(self, part: u64, whole: u64) -> bool {
        u128::from(self.free) * u128::from(whole) > u128::from(self.window_len) * u128::from(part)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn supply(first: i64, last: i64, free: i64, nodes: i64) -> Supply {
        let pool: AddressPool = serde_json::from_value(json!({
            "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": "default"},
            "spec": {"subnets": [{"ipv4": "10.64.0.0/16"}]},
            "status": {"freeWindow": {"first": first, "last": last, "free": free}, "nodesWithoutBlock": nodes},
        }))
        .unwrap();
        Supply::of(&pool)
    }

    #[test]
    fn three_blocks_are_tried_unread_in_a_mostly_free_window_with_enough_blocks_for_all_nodes() {
        assert_eq!(supply(0, 199, 200, 0).unread_tries(), 3);
        assert_eq!(supply(0, 199, 151, 151).unread_tries(), 3);
        assert_eq!(supply(0, 199, 150, 0).unread_tries(), 1, "the window is not mostly free");
        assert_eq!(supply(0, 199, 200, 201).unread_tries(), 1, "there are more nodes than free blocks");
        // The window in the status was written by an operator version that does not count free blocks.
        assert_eq!(supply(0, 99, 0, 0).unread_tries(), 1);
    }

    #[test]
    fn blocks_that_the_operator_has_not_created_are_free_but_not_in_the_window() {
        let pool = |free: i64, window: Value| -> AddressPool {
            serde_json::from_value(json!({
                "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": "p"},
                "spec": {"subnets": [{"ipv4": "10.64.0.0/16"}]},
                "status": {"freeWindow": window, "blocks": {"total": 64, "claimed": 8, "free": free}},
            }))
            .unwrap()
        };
        let window = |free: i64| json!({"first": 0, "last": 60, "free": free});
        assert!(has_uncreated_blocks(&pool(56, window(8))) && has_uncreated_blocks(&pool(1, Value::Null)));
        assert!(!has_uncreated_blocks(&pool(8, window(6))), "a window may leave out a quarter of the free blocks");
        assert!(!has_uncreated_blocks(&pool(0, Value::Null)));
    }

    #[test]
    fn a_lost_race_is_a_sign_of_a_crowd_unless_few_blocks_of_the_window_are_free() {
        assert!(supply(0, 7, 8, 1024).is_crowded());
        assert!(!supply(0, 7, 8, 8).is_crowded(), "each node can get a block");
        assert!(!supply(0, 31, 8, 1024).is_crowded(), "the node may have picked a claimed block of the window");
        assert_eq!(Supply::of(&AddressPool::new("p", bobbin_crds::AddressPoolSpec::default())), Supply::default());
    }
}
