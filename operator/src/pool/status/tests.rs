//! Tests the content of a pool's status, and when the operator writes a changed status.

use std::time::Duration;

use bobbin_crds::AddressPoolSpec;
use bobbin_crds::pool::{Acceptance, AcceptedSubnet, FreeWindow, Subnet};
use bobbin_ipam::BlockRange;
use bobbin_messages::condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;

use super::write_policy::{WritePolicy, decide, interval, short_interval};
use super::*;

pub(super) fn pool(ipv4: &str, bits: i64, reserved: &[&str]) -> AddressPool {
    let subnet = Subnet { ipv4: Some(ipv4.into()), ipv6: None };
    let listed = AcceptedSubnet {
        ipv4: subnet.ipv4.clone(),
        ipv6: None,
        state: Acceptance::Accepted,
        since: MicroTime(Timestamp::UNIX_EPOCH),
        first_index: None,
    };
    let reserved = reserved.iter().map(|text| (*text).to_owned()).collect();
    let spec = AddressPoolSpec { subnets: vec![subnet], block_size_bits: bits, reserved, ..AddressPoolSpec::default() };
    let mut pool = AddressPool::new("p", spec);
    pool.metadata.generation = Some(1);
    pool.status = Some(AddressPoolStatus { accepted_subnets: vec![listed], ..AddressPoolStatus::default() });
    pool
}

pub(super) fn block(index: u64, range: &str, node: Option<&str>, assigned: u32) -> BlockInfo {
    BlockInfo {
        index,
        range: Some(BlockRange::parse(Some(range), None).expect("it is a range")),
        owner: node.map_or(BlockOwner::Unclaimed, |node| BlockOwner::Node(node.into())),
        finalizer: node.map(|_| 0),
        assigned,
        ..BlockInfo::default()
    }
}

fn of(pool: &AddressPool, blocks: Vec<BlockInfo>, cooling: u64) -> AddressPoolStatus {
    let used = blocks.iter().map(|block| u64::from(block.assigned)).sum();
    let view = PoolView { blocks, used, cooling, ..PoolView::default() };
    let shape = PoolShape::read(pool).expect("the pool is valid");
    let acceptance = AcceptanceResult::unchanged(pool);
    let users = [("n1".into(), 3), ("n2".into(), 0)];
    let now = Time(Timestamp::UNIX_EPOCH);
    compute(&Inputs { pool, shape: Ok(&shape), view: &view, acceptance: &acceptance, users: &users, now })
}

pub(super) fn says(status: &AddressPoolStatus, type_: &str) -> String {
    find(&status.conditions, type_)
        .map(|condition| format!("{} {}", condition.status, condition.reason))
        .unwrap_or_default()
}

#[test]
fn every_address_counts_in_one_state_only() {
    let pool = pool("10.0.0.0/26", 4, &["10.0.0.0/28", "10.0.0.17"]);
    let status = of(&pool, vec![block(1, "10.0.0.16/28", Some("n1"), 5), block(2, "10.0.0.32/28", None, 0)], 4);
    let counts = status.addresses.ipv4.expect("the pool has IPv4");
    assert_eq!((counts.total, counts.reserved, counts.assigned, counts.cooling, counts.free), (64, 17, 5, 4, 38));
    assert_eq!((status.blocks.total, status.blocks.claimed, status.blocks.free), (4, 1, 2));
    assert_eq!(status.free_window, Some(FreeWindow { first: 2, last: 2, free: 1 }));
    assert_eq!((status.used, status.free, status.addresses.ipv6), (5, 38, None));
}

#[test]
fn a_pool_is_exhausted_when_no_block_and_no_address_of_a_claimed_one_is_free() {
    let pool = pool("10.0.0.0/30", 2, &["10.0.0.0"]);
    let with = |assigned| of(&pool, vec![block(0, "10.0.0.0/30", Some("n1"), assigned)], 0);
    assert_eq!(says(&with(3), condition::EXHAUSTED), "True NoFreeAddress");
    assert_eq!(says(&with(2), condition::EXHAUSTED), "False FreeAddresses");
    assert_eq!(says(&of(&pool, vec![], 0), condition::EXHAUSTED), "False FreeBlocks");
}

#[test]
fn a_block_that_does_not_belong_to_the_pool_is_not_in_the_free_window() {
    let pool = pool("10.0.0.0/26", 4, &[]);
    let mut deleting = block(2, "10.0.0.32/28", None, 0);
    deleting.deleting = true;
    let status = of(&pool, vec![block(1, "10.9.0.16/28", None, 0), deleting, block(9, "10.0.0.144/28", None, 0)], 0);
    assert_eq!(status.free_window, None);
}

#[test]
fn the_status_of_a_deleted_pool_names_the_nodes_that_use_it() {
    let mut pool = pool("10.0.0.0/26", 4, &[]);
    pool.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    let status = of(&pool, vec![block(1, "10.0.0.16/28", Some("n1"), 3), block(2, "10.0.0.32/28", Some("n2"), 0)], 0);
    let condition = find(&status.conditions, condition::TERMINATING).expect("the condition exists");
    assert!(
        condition.message.contains("3 addresses in 2 claimed blocks on 2 nodes are free: n1 (3), n2 (0)"),
        "{}",
        condition.message
    );
    assert_eq!(says(&status, condition::READY), "False Terminating");
}

#[test]
fn the_condition_terminating_says_what_the_deletion_waits_for() {
    let mut pool = pool("10.0.0.0/26", 4, &[]);
    pool.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    pool.spec.cooldown_seconds = 130;
    let free = |free_since: Option<i64>| BlockInfo {
        free_since: free_since.map(|seconds| MicroTime(Timestamp::from_second(seconds).expect("it is a time"))),
        ..block(1, "10.0.0.16/28", None, 0)
    };
    let kept = BlockInfo { deleting: true, ..free(None) };
    for (blocks, cooling, reason) in [
        (vec![block(1, "10.0.0.16/28", Some("n1"), 3)], 0, "True InUse"),
        (vec![block(1, "10.0.0.16/28", Some("n1"), 0)], 2, "True BlocksClaimed"),
        (vec![kept], 0, "True ForeignFinalizer"),
        (vec![free(Some(-60))], 0, "True CoolingDown"),
        (vec![], 2, "True CoolingDown"),
        (vec![free(Some(-200))], 0, "True Empty"),
        (vec![], 0, "True Empty"),
    ] {
        assert_eq!(says(&of(&pool, blocks.clone(), cooling), condition::TERMINATING), reason, "{blocks:?}");
    }
}

#[test]
fn a_condition_keeps_its_transition_time_until_its_status_changes() {
    let mut pool = pool("10.0.0.0/26", 4, &[]);
    let mut before = of(&pool, vec![], 0);
    let long_ago = Time(Timestamp::from_second(-1000).expect("it is a time"));
    before.conditions.iter_mut().for_each(|condition| condition.last_transition_time = long_ago.clone());
    let changed = before.conditions.iter().position(|one| one.type_ == condition::EXHAUSTED).expect("it exists");
    before.conditions[changed].status = "True".into();
    pool.status = Some(before);
    let after = of(&pool, vec![], 0);
    assert_eq!(after.conditions[0].last_transition_time, long_ago);
    assert_ne!(after.conditions[changed].last_transition_time, long_ago);
}

#[test]
fn counts_are_written_at_the_interval_and_other_changes_soon_or_immediately() {
    let pool = pool("10.0.0.0/24", 4, &[]);
    let free = |range: std::ops::Range<u64>| -> Vec<BlockInfo> {
        range.map(|index| block(index, &format!("10.0.0.{}/28", index * 16), None, 0)).collect()
    };
    let old = of(&pool, free(0..8), 0);
    assert_eq!(decide(None, &old), WritePolicy::Immediately);
    assert_eq!(decide(Some(&old), &old), WritePolicy::Skip);
    assert_eq!(decide(Some(&old), &of(&pool, free(0..8), 3)), WritePolicy::AtInterval);
    assert_eq!(decide(Some(&old), &of(&pool, free(1..9), 0)), WritePolicy::AtInterval);
    assert_eq!(decide(Some(&old), &of(&pool, free(6..14), 0)), WritePolicy::Soon);
    let unclaimed = of(&pool, free(0..16), 0);
    let claimed = |count: i64| {
        let mut new = unclaimed.clone();
        new.blocks.claimed += count;
        new
    };
    assert_eq!(decide(Some(&unclaimed), &claimed(1)), WritePolicy::AtInterval);
    assert_eq!(decide(Some(&unclaimed), &claimed(2)), WritePolicy::Soon);
    assert_eq!(decide(Some(&old), &of(&pool, vec![], 0)), WritePolicy::Soon);
    let mut newer = old.clone();
    newer.observed_generation = Some(2);
    assert_eq!(decide(Some(&old), &newer), WritePolicy::Immediately);
}

#[test]
fn the_interval_grows_with_the_number_of_nodes_and_pools() {
    let setting = Duration::from_secs(5);
    assert_eq!(interval(setting, 3, 2), setting);
    assert_eq!(interval(setting, 1000, 20), Duration::from_secs(10));
    assert_eq!(short_interval(3), Duration::from_millis(200));
    assert_eq!(short_interval(1000), Duration::from_millis(500));
}

#[test]
fn the_free_window_leaves_out_distant_blocks() {
    assert_eq!(free_window::of(&[]), None);
    assert_eq!(free_window::of(&[7]), Some(FreeWindow { first: 7, last: 7, free: 1 }));
    assert_eq!(free_window::of(&[0, 1, 2, 5]), Some(FreeWindow { first: 0, last: 5, free: 4 }));
    assert_eq!(free_window::of(&[0, 1000, 1001, 1002]), Some(FreeWindow { first: 1000, last: 1002, free: 3 }));
}
