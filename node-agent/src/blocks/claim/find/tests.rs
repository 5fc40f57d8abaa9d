//! Tests which blocks a claim tries without a read.

use serde_json::json;

use super::*;

fn candidates_of(first: i64, last: i64, free: i64, limit: Option<i64>) -> Vec<i64> {
    candidates_in(first, last, free, limit, false)
}

fn candidates_in(first: i64, last: i64, free: i64, limit: Option<i64>, cooled_only: bool) -> Vec<i64> {
    let pool: AddressPool = serde_json::from_value(json!({
        "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": "default"},
        "spec": {"subnets": [{"ipv4": "10.64.0.0/16"}], "maxBlocksPerNode": limit},
        "status": {"freeWindow": {"first": first, "last": last, "free": free}},
    }))
    .unwrap();
    unread_candidates(&pool, "n1", 7, cooled_only).collect()
}

#[test]
fn candidates_are_distinct_and_within_the_window() {
    let mut three = candidates_of(10, 137, 128, None);
    three.sort_unstable();
    three.dedup();
    assert!(three.len() == 3 && three.iter().all(|index| (10..=137).contains(index)), "{three:?}");
    assert_eq!(candidates_of(5, 5, 1, None), [5]);
}

#[test]
fn with_a_limit_there_are_none_because_a_cooling_block_could_be_the_last_allowed() {
    assert_eq!(candidates_of(0, 199, 200, Some(4)), Vec::<i64>::new());
}

#[test]
fn a_claim_of_a_cooled_block_reads_first() {
    assert_eq!(candidates_in(0, 199, 200, None, true), Vec::<i64>::new());
}
