//! Tests which node owns a block, how a block cools down, and which free block a node claims.

use bobbin_crds::DEFAULT_COOLDOWN;
use jiff::ToSpan;

use super::*;

fn node(uid: &str) -> NodeInfo {
    NodeInfo { name: "n1".into(), uid: uid.into(), ipv4: Some([192, 0, 2, 1].into()), ..NodeInfo::default() }
}

fn block(index: i64) -> BlockInfo {
    BlockInfo {
        name: format!("default-{index}"),
        pool: "default".into(),
        index,
        readable: true,
        range: BlockRange::parse(Some(&format!("10.64.0.{}/27", index * 32)), None).ok(),
        ..BlockInfo::default()
    }
}

fn freed(index: i64, ago_seconds: i64) -> BlockInfo {
    BlockInfo { free_since: Some(now() - ago_seconds.seconds()), ..block(index) }
}

fn now() -> Timestamp {
    "2026-11-21T06:00:00Z".parse().unwrap()
}

const COOLDOWN: Duration = DEFAULT_COOLDOWN;

fn best(listed: Vec<BlockInfo>, cooled_only: bool) -> Option<String> {
    best_free_block(listed, "n1", 1, now(), COOLDOWN, cooled_only, |name| name != "default-7").map(|block| block.name)
}

#[test]
fn name_and_uid_decide_whose_a_block_is() {
    let claimed =
        |name: &str, uid: &str| BlockInfo { node_name: Some(name.into()), node_uid: Some(uid.into()), ..block(1) };
    assert_eq!(claimed("n1", "u1").owner(&node("u1")), Owner::ThisNode);
    assert_eq!(claimed("n1", "u1").owner(&node("u2")), Owner::EarlierNode);
    assert_eq!(claimed("n2", "u1").owner(&node("u1")), Owner::OtherNode);
    assert_eq!(block(1).owner(&node("u1")), Owner::Free);
    assert_eq!(BlockInfo { deleting: true, ..block(1) }.owner(&node("u1")), Owner::OtherNode);
    assert_eq!(BlockInfo { readable: false, ..claimed("n1", "u1") }.owner(&node("u1")), Owner::Unknown);
}

#[test]
fn a_cooled_block_is_claimed_first_then_the_one_that_has_cooled_longest() {
    assert_eq!(best(vec![freed(1, 10), freed(2, 131)], false), Some("default-2".into()));
    assert_eq!(best(vec![freed(1, 10), freed(2, 20)], false), Some("default-2".into()));
    assert_eq!(best(vec![freed(1, 10), freed(2, 20)], true), None);
    assert_eq!(best(vec![freed(1, 10), block(2)], true), Some("default-2".into()));
}

#[test]
fn a_block_that_is_claimed_deleted_unreadable_or_already_held_is_never_claimed() {
    let claimed = BlockInfo { node_name: Some("n2".into()), ..block(1) };
    let going = BlockInfo { deleting: true, ..block(2) };
    let unreadable = BlockInfo { readable: false, ..block(3) };
    assert_eq!(best(vec![claimed, going, unreadable, block(7)], false), None);
}

#[test]
fn a_block_that_still_has_its_finalizer_cools_from_its_claim_and_comes_last() {
    let finalized = BlockInfo { finalizer: true, has_finalizers: true, ..freed(1, 1000) };
    assert!(!finalized.has_cooled(now(), COOLDOWN));
    assert!(finalized.has_cooled(now(), Duration::ZERO));
    let boot = BootTime(Duration::from_secs(5000));
    assert_eq!(finalized.cooling_since(true, COOLDOWN, now(), boot), Some(boot));
    assert_eq!(freed(1, 1000).cooling_since(false, COOLDOWN, now(), boot), None);
    assert_eq!(best(vec![finalized, freed(2, 20)], false), Some("default-2".into()));
}

#[test]
fn a_free_since_in_the_future_counts_as_now() {
    let boot = BootTime(Duration::from_secs(5000));
    for since in [now() + 1.hour(), Timestamp::MAX] {
        assert_eq!(cooling_since(Some(since), COOLDOWN, now(), boot), Some(boot));
    }
    assert_eq!(
        cooling_since(Some(now() - 30.seconds()), COOLDOWN, now(), boot),
        Some(boot.before(Duration::from_secs(30)))
    );
    assert_eq!(cooling_since(None, COOLDOWN, now(), boot), None);
}
