//! Tests which blocks a claim tries without a read.

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
fn three_candidates_of_a_mostly_free_window_else_one() {
    assert_eq!(candidates_of(0, 99, 100, None).len(), 3);
    assert_eq!(candidates_of(0, 99, 76, None).len(), 3);
    assert_eq!(candidates_of(0, 99, 75, None).len(), 1);
    assert_eq!(candidates_of(4, 7, 3, None).len(), 1);
    assert_eq!(candidates_of(0, 7, 4, None).len(), 1);
    // The window in the status was written by an operator version that does not count free blocks.
    assert_eq!(candidates_of(0, 99, 0, None).len(), 1);
}

#[test]
fn candidates_are_distinct_and_within_the_window() {
    let mut three = candidates_of(10, 12, 3, None);
    three.sort_unstable();
    assert_eq!(three, [10, 11, 12]);
    assert_eq!(candidates_of(5, 5, 1, None), [5]);
}

#[test]
fn with_a_limit_there_are_none_because_a_cooling_block_could_be_the_last_allowed() {
    assert_eq!(candidates_of(0, 99, 100, Some(4)), Vec::<i64>::new());
}
