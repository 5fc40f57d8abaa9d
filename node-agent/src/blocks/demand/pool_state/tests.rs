//! Tests when a claim may be tried again, and which pods count as expected.

use super::*;

fn full() -> Arc<ClaimError> {
    Arc::new(ClaimError::PoolFull("p".to_owned()))
}

#[test]
fn a_full_pool_is_asked_again_when_its_status_shows_a_free_block() {
    let now = Instant::now();
    let mut state = PoolState::default();
    assert_eq!(state.may_claim(now), None);
    state.observe_status(0, Some("1"));
    state.claim_ended(Some(full()), now);
    assert!(state.may_claim(now).is_some() && state.last_error.is_some());
    state.observe_status(0, Some("2"));
    assert!(state.may_claim(now).is_some(), "no block is free, so the node must not try a claim");
    state.observe_status(1, Some("3"));
    assert_eq!(state.may_claim(now), None);
    state.claim_ended(None, now);
    assert!(state.last_error.is_none());
}

#[test]
fn claims_from_a_full_pool_back_off_but_never_end() {
    let now = Instant::now();
    let mut state = PoolState::default();
    for _ in 0..40 {
        state.claim_ended(Some(full()), now);
        let wait = state.may_claim(now).unwrap();
        assert!(wait <= Duration::from_secs(20));
    }
    assert!(state.may_claim(now).unwrap() >= Duration::from_secs(10));
    assert_eq!(state.may_claim(now + Duration::from_secs(20)), None);
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
