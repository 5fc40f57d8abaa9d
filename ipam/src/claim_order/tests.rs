//! Tests that the order of block indices is a permutation and differs between nodes.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn each_index_of_the_window_comes_once(node in "[a-z]{1,8}", first in 0_u64..1 << 46, size in 1_u64..700, seed in any::<u64>()) {
        let last = first + size - 1;
        let mut all: Vec<u64> = candidates(&node, "default", first, last, seed).collect();
        all.sort_unstable();
        prop_assert_eq!(all, (first..=last).collect::<Vec<_>>());
    }

    #[test]
    fn the_largest_windows_need_no_memory(node in "[a-z]{1,8}", bits in 30_u32..=46) {
        let last = (1_u64 << bits) - 1;
        let some: Vec<u64> = candidates(&node, "default", 5, last, 0).take(200).collect();
        prop_assert!(some.iter().all(|index| (5..=last).contains(index)));
        prop_assert_eq!(some.iter().collect::<HashSet<_>>().len(), 200);
    }
}

#[test]
fn nodes_rarely_want_the_same_block_first() {
    for window in [4000_u64, 4096, 5003] {
        let wanted: Vec<u64> =
            (0..1000).filter_map(|n| candidates(&format!("node-{n}"), "default", 0, window - 1, 0).next()).collect();
        let different = wanted.iter().collect::<HashSet<_>>().len();
        // 1000 random choices among 4000 blocks hit 885 different blocks on average.
        assert!(
            different > 840,
            "1000 nodes have only {different} different first choices in a window of {window} blocks"
        );
    }
}

#[test]
fn another_attempt_or_pool_has_another_order() {
    let order = |pool, seed| candidates("n1", pool, 0, 99, seed).collect::<Vec<_>>();
    assert_eq!(order("default", 0), order("default", 0));
    assert_ne!(order("default", 0), order("default", 1));
    assert_ne!(order("default", 0), order("other", 0));
}

#[test]
fn windows_of_one_index_and_of_all_indices_work() {
    assert_eq!(candidates("n1", "p", 7, 7, 0).collect::<Vec<_>>(), [7]);
    assert_eq!(candidates("n1", "p", 8, 7, 0).count(), 0);
    assert_eq!(candidates("n1", "p", 0, u64::MAX, 0).take(10).collect::<HashSet<_>>().len(), 10);
    let firsts: HashSet<u64> = (0..64).filter_map(|n| candidates(&format!("n{n}"), "p", 0, 1, 0).next()).collect();
    assert_eq!(firsts.len(), 2, "each of the two blocks must be the first choice of at least one node");
}
