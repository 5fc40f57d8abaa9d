//! Tests which pods count as expected, and when the controller wakes waiting ADDs.

use super::*;

fn full() -> Arc<ClaimError> {
    Arc::new(ClaimError::PoolFull("p".to_owned()))
}

#[test]
fn an_expected_pod_counts_until_it_has_an_address_or_does_not_come() {
    let now = Instant::now();
    let mut state = PoolState::default();
    state.expect("a".to_owned(), now);
    state.expect("b".to_owned(), now);
    state.expect("b".to_owned(), now);
    assert_eq!(state.expected(), 2);
    state.forget_expected(&["a".to_owned()], now);
    assert_eq!(state.expected(), 1);
    state.forget_expected(&[], now + EXPECTED_POD_TTL);
    assert!(!state.expects());
}

#[test]
fn every_end_of_a_claim_wakes_the_adds_that_wait() {
    let mut state = PoolState::default();
    let attempts = state.attempts.subscribe();
    state.claim_ended(Some(full()), Instant::now());
    assert!(attempts.has_changed().unwrap());
}

#[test]
fn a_claim_with_an_unknown_outcome_wakes_waiting_and_new_adds_until_it_ends() {
    let mut state = PoolState { claiming: 1, unnotified: true, ..PoolState::default() };
    let mut attempts = state.attempts.subscribe();
    state.notify_waiting();
    assert!(!attempts.has_changed().unwrap(), "only the end of the claim in flight may wake the ADDs");
    state.claim_outcome_unknown(ClaimError::Unreachable { pool: "p".to_owned(), why: String::new() });
    assert!(attempts.has_changed().unwrap() && state.last_error.is_some());
    attempts.mark_unchanged();
    state.unnotified = true;
    state.notify_waiting();
    assert!(attempts.has_changed().unwrap());
    assert!(state.may_claim(Instant::now()).is_some(), "the claim is still in flight");
    state.claim_ended(None, Instant::now());
    attempts.mark_unchanged();
    state.unnotified = true;
    state.notify_waiting();
    assert!(!attempts.has_changed().unwrap() && state.last_error.is_none());
}

#[test]
fn a_pool_may_serve_a_waiting_add_while_a_claim_or_a_block_comes_unless_the_outcome_is_unknown() {
    let mut state = PoolState { last_error: Some(full()), ..PoolState::default() };
    assert!(!state.may_serve(0));
    assert!(state.may_serve(1), "the block of a cancelled release may serve the ADD");
    state.claiming = 1;
    assert!(state.may_serve(0));
    state.claim_outcome_unknown(ClaimError::Unreachable { pool: "p".to_owned(), why: String::new() });
    assert!(!state.may_serve(1), "the outcome may stay unknown for long");
}

#[test]
fn the_end_of_an_own_release_ends_the_wait_also_if_a_claim_in_flight_fails_later() {
    let now = Instant::now();
    let mut state = PoolState::default();
    state.observe_releases(1, now);
    state.claim_ended(Some(full()), now);
    assert!(state.may_claim(now).is_some(), "the pool has no free block");
    state.observe_releases(0, now);
    assert_eq!(state.may_claim(now), None);
    state.observe_releases(1, now);
    state.claiming = 1;
    state.observe_releases(0, now);
    state.claiming = 0;
    state.claim_ended(Some(full()), now);
    assert_eq!(state.may_claim(now), None, "the claim may have listed the free blocks before the release");
    state.claim_ended(Some(full()), now);
    assert!(state.may_claim(now).is_some());
}
