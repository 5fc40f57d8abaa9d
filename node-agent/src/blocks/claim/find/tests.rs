//! Which blocks are candidates_of unread.

use serde_json::json;

use super::*;

fn candidates_of(first: i64, last: i64, free: i64, limit: Option<i64>) -> Vec<i64> {
    let pool: AddressPool = serde_json::from_value(json!({
        "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": "default"},
        "spec": {"subnets": [{"ipv4": "10.64.0.0/16"}], "maxBlocksPerNode": limit},
        "status": {"freeWindow": {"first": first, "last": last, "free": free}},
    }))
    .unwrap();
    optimistic_candidates(&pool, "n1", 7).collect()
}

#[test]
fn three_of_a_window_that_is_mostly_free_else_one() {
    assert_eq!(candidates_of(0, 99, 100, None).len(), 3);
    assert_eq!(candidates_of(0, 99, 76, None).len(), 3);
    assert_eq!(candidates_of(0, 99, 75, None).len(), 1);
    assert_eq!(candidates_of(4, 7, 3, None).len(), 1);
    assert_eq!(candidates_of(0, 7, 4, None).len(), 1);
    // A window of an operator that does not count.
    assert_eq!(candidates_of(0, 99, 0, None).len(), 1);
}

#[test]
fn each_is_of_the_window_and_another() {
    let mut three = candidates_of(10, 12, 3, None);
    three.sort_unstable();
    assert_eq!(three, [10, 11, 12]);
    assert_eq!(candidates_of(5, 5, 1, None), [5]);
}

#[test]
fn none_where_a_block_that_still_rests_could_be_the_last_the_node_may_have() {
    assert_eq!(candidates_of(0, 99, 100, Some(4)), Vec::<i64>::new());
}
