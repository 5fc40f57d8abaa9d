//! Tests when a claim may be tried again.

use super::*;

fn full() -> ClaimError {
    ClaimError::PoolFull("p".to_owned())
}

fn contended() -> ClaimError {
    ClaimError::Contended("p".to_owned())
}

fn supply(free: u64, nodes: u64) -> Supply {
    Supply { free, nodes_without_block: nodes, ..Supply::default() }
}

/// A schedule that has seen the pool's first status.
fn schedule(free: u64, nodes: u64, now: Instant) -> ClaimSchedule {
    let mut schedule = ClaimSchedule::default();
    schedule.observe_status(supply(free, nodes), Some("1"), now);
    schedule
}

/// The waits of 400 nodes, in ascending order.
fn waits(mut wait: impl FnMut() -> Option<Duration>) -> Vec<Duration> {
    let mut waits: Vec<_> = (0..400).map(|_| wait().unwrap_or_default()).collect();
    waits.sort_unstable();
    waits
}

/// Asserts that the waits are evenly distributed between zero and `longest`.
fn assert_even(waits: &[Duration], longest: Duration) {
    assert!(waits.last() <= Some(&longest), "{:?}", waits.last());
    for quarter in 0..4 {
        let from = longest / 4 * quarter;
        let count = waits.iter().filter(|wait| **wait >= from && **wait <= from + longest / 4).count();
        assert!((60..=140).contains(&count), "quarter {quarter} contains {count} of the 400 waits");
    }
}

#[test]
fn the_first_claim_waits_for_nothing_if_a_block_is_free_or_no_node_competes() {
    let now = Instant::now();
    assert_eq!(ClaimSchedule::default().wait(now), None);
    assert_eq!(schedule(1, 5000, now).wait(now), None);
    assert_eq!(schedule(0, 0, now).wait(now), None);
}

#[test]
fn a_lost_race_lets_as_many_nodes_claim_as_blocks_are_free() {
    let now = Instant::now();
    let waits = waits(|| {
        let mut schedule = schedule(500, 1000, now);
        schedule.claim_ended(Some(&contended()), true, now);
        schedule.wait(now)
    });
    assert_even(&waits, 2 * REFILL_TIME);
}

#[test]
fn nodes_that_wait_stay_evenly_distributed_when_the_status_changes() {
    let now = Instant::now();
    let waits = waits(|| {
        let mut schedule = schedule(0, 1000, now);
        schedule.wait(now);
        for (version, free) in [(2, 8), (3, 0), (4, 500), (5, 16), (6, 500)] {
            schedule.observe_status(supply(free, 1000), Some(&version.to_string()), now);
        }
        schedule.wait(now)
    });
    assert_even(&waits, 2 * REFILL_TIME);
}

#[test]
fn a_turn_comes_although_the_status_changes_all_the_time() {
    let begun = Instant::now();
    let mut schedule = schedule(8, 1000, begun);
    schedule.claim_ended(Some(&contended()), true, begun);
    let mut now = begun;
    for version in 2..=51 {
        now += CROWD_SPREAD.0 / 50;
        schedule.observe_status(supply(8 * (1 + version % 2), 1000), Some(&version.to_string()), now);
    }
    assert!(schedule.wait(now) <= Some(Duration::from_millis(1)));
}

#[test]
fn a_node_of_a_small_cluster_hardly_waits() {
    let now = Instant::now();
    let mut schedule = schedule(8, 4, now);
    schedule.claim_ended(Some(&contended()), true, now);
    assert!(schedule.wait(now) <= Some(RACE_SPREAD.0));
}

#[test]
fn each_lost_race_doubles_the_spread_up_to_a_limit() {
    let now = Instant::now();
    for (free, (first, longest)) in [(1000, RACE_SPREAD), (8, CROWD_SPREAD)] {
        let mut schedule = schedule(free, 1000, now);
        let mut expected = first;
        for _ in 0..40 {
            schedule.claim_ended(Some(&contended()), true, now);
            assert_eq!(schedule.spread(), expected);
            expected = (2 * expected).min(longest);
        }
    }
}

#[test]
fn two_failed_claims_under_one_status_make_it_doubtful() {
    let now = Instant::now();
    let mut schedule = schedule(8, 1000, now);
    for version in ["2", "3"] {
        assert!(!schedule.status_may_be_outdated());
        schedule.claim_ended(Some(&contended()), true, now);
        schedule.claim_ended(Some(&contended()), true, now);
        assert!(schedule.status_may_be_outdated());
        schedule.observe_status(supply(8, 1000), Some(version), now);
    }
    assert!(!schedule.status_may_be_outdated());
}

#[test]
fn claims_from_a_full_pool_back_off_until_the_status_shows_a_free_block() {
    let now = Instant::now();
    let mut schedule = schedule(0, 0, now);
    for _ in 0..40 {
        schedule.claim_ended(Some(&full()), true, now);
        assert!(schedule.wait(now) <= Some(NO_BLOCK_SPREAD.1));
    }
    assert_eq!(schedule.spread(), NO_BLOCK_SPREAD.1);
    assert_eq!(schedule.wait(now + NO_BLOCK_SPREAD.1), None);
    schedule.observe_status(supply(1, 0), Some("2"), now);
    assert_eq!(schedule.wait(now + RACE_SPREAD.1), None);
    schedule.claim_ended(None, true, now);
    assert_eq!(schedule.wait(now), None);
}

#[test]
fn a_change_of_the_pool_shortens_the_pause_after_another_error() {
    let now = Instant::now();
    let mut schedule = schedule(1, 1, now);
    for _ in 0..10 {
        schedule.claim_ended(Some(&ClaimError::OwnBlocksUnread("p".to_owned())), false, now);
    }
    assert!(schedule.wait(now) >= Some(MAX_ERROR_PAUSE / 2));
    schedule.observe_status(supply(1, 1), Some("2"), now);
    assert!(schedule.wait(now) <= Some(ERROR_PAUSE));
}

#[test]
fn a_node_that_found_only_cooling_blocks_waits_longer_than_after_a_race() {
    let now = Instant::now();
    let longest = |error: &ClaimError| {
        let mut schedule = schedule(8, 0, now);
        for _ in 0..10 {
            schedule.claim_ended(Some(error), false, now);
        }
        schedule.wait(now).unwrap_or_default()
    };
    assert!(longest(&contended()) <= RACE_SPREAD.1);
    for error in [ClaimError::OnlyCooling("p".to_owned()), full()] {
        assert!(longest(&error) >= LIST_PAUSE.1 / 2, "{error}");
    }
}

#[test]
fn no_number_in_the_status_stops_the_agent() {
    let now = Instant::now();
    let pool: bobbin_crds::AddressPool = serde_json::from_value(serde_json::json!({
        "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": "p"}, "spec": {"subnets": []},
        "status": {"freeWindow": {"first": 0, "last": i64::MAX, "free": 0}, "nodesWithoutBlock": i64::MAX},
    }))
    .unwrap();
    let mut schedule = ClaimSchedule::default();
    schedule.observe_status(Supply::of(&pool), Some("1"), now);
    assert!(schedule.wait(now).is_none_or(|wait| wait <= NO_BLOCK_SPREAD.1));
}

#[test]
fn a_node_that_released_a_block_may_claim_at_once_but_not_much_later() {
    let now = Instant::now();
    let mut schedule = schedule(0, 1000, now);
    schedule.claim_ended(Some(&full()), true, now);
    schedule.block_released(now);
    assert_eq!((schedule.wait(now), schedule.wait(now + REFILL_TIME)), (None, None));
    let later = now + REFILL_TIME + Duration::from_millis(1);
    assert!(schedule.wait(later).is_some(), "other nodes wait for their turn");
}
