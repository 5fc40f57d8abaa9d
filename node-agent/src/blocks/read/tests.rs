//! Tests which node owns a block, how a block cools down, and which free block a node claims.

use bobbin_crds::DEFAULT_COOLDOWN;
use jiff::ToSpan;
use proptest::prelude::*;

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
    best_free_block(listed, "n1", 1, now(), COOLDOWN, cooled_only, |block| block.name != "default-7")
        .map(|block| block.name)
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

/// Any time that a wall clock may show.
fn any_time() -> impl Strategy<Value = Timestamp> {
    (Timestamp::MIN.as_second()..=Timestamp::MAX.as_second())
        .prop_map(|second| Timestamp::from_second(second).expect("the second is in the range of `Timestamp`"))
}

proptest! {
    #[test]
    fn no_jump_of_the_wall_clock_lets_a_claimed_block_cool_longer_than_its_cool_down(
        since in proptest::option::of(any_time()), now in any_time(), cooldown in 0_u64..86_400, boot in 0_u64..10_000_000,
    ) {
        let (cooldown, boot) = (Duration::from_secs(cooldown), BootTime(Duration::from_secs(boot)));
        if let Some(began) = cooling_since(since, cooldown, now, boot) {
            prop_assert!(began <= boot && boot.since(began) <= cooldown);
        }
        // If the clock shows a time before the release, the whole cool-down is still ahead.
        let is_behind = since.is_some_and(|since| since >= now) && !cooldown.is_zero();
        prop_assert!(!is_behind || cooling_since(since, cooldown, now, boot) == Some(boot));
    }

    #[test]
    fn no_jump_of_the_wall_clock_hides_a_free_block_or_offers_a_claimed_one(
        times in proptest::collection::vec((proptest::option::of(any_time()), any::<bool>()), 1..6), now in any_time(),
    ) {
        let listed: Vec<BlockInfo> = (0..).zip(&times).map(|(index, (free_since, claimed))| BlockInfo {
            free_since: *free_since, node_name: claimed.then(|| "n2".to_owned()), ..block(index)
        }).collect();
        let found = best_free_block(listed, "n1", 1, now, COOLDOWN, false, |_| true);
        prop_assert_eq!(found.is_some(), times.iter().any(|(_, claimed)| !claimed));
        prop_assert!(found.is_none_or(|block| block.node_name.is_none()));
    }
}
