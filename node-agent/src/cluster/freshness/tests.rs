//! Tests how each kind of event changes the freshness.

use std::time::Duration;

use super::*;

fn at(seconds: u64) -> BootTime {
    BootTime(Duration::from_secs(seconds))
}

fn heard_at(seconds: u64) -> FreshnessTracker {
    let freshness = FreshnessTracker::new(Times::new(1.0, Duration::from_mins(5)), Some(at(0)));
    freshness.answered(at(0));
    freshness.watch_active(WatchedKind::Node, at(seconds));
    freshness.watch_active(WatchedKind::Blocks, at(seconds));
    freshness
}

#[test]
fn nothing_is_proven_when_the_agent_starts() {
    let freshness = heard_at(1);
    assert!(!freshness.proves(Proof::None, at(1)));
    assert!(!freshness.proves(Proof::AssignmentsUnseen, at(1)));
    assert!(!freshness.proves(Proof::Confirmed(ProofGeneration(0)), at(1)));
    assert!(freshness.proves(freshness.begin_read(at(1)).proof(), at(1)));
}

#[test]
fn each_invalidation_ends_the_proof_and_a_read_begun_before_it_does_not_renew_it() {
    for sign in [
        Invalidation::WatchBroke,
        Invalidation::WentBack,
        Invalidation::Duplicate,
        Invalidation::NodeReplaced,
        Invalidation::Unauthorized,
        Invalidation::Outage,
        Invalidation::BlockLost,
    ] {
        let freshness = heard_at(1);
        let before = freshness.begin_read(at(1));
        freshness.invalidate(sign);
        assert!(!freshness.proves(before.proof(), at(1)), "{sign:?}");
        assert!(freshness.proves(freshness.begin_read(at(1)).proof(), at(1)), "{sign:?}");
    }
}

#[test]
fn silence_of_either_watch_ends_the_proof_and_one_read_renews_it() {
    let freshness = heard_at(10);
    let proof = freshness.begin_read(at(10)).proof();
    assert!(freshness.proves(proof, at(99)));
    assert!(!freshness.proves(proof, at(100)));
    freshness.watch_active(WatchedKind::Node, at(100));
    assert!(!freshness.proves(proof, at(100)));
    freshness.list_answered(WatchedKind::Blocks, freshness.begin_read(at(100)));
    assert!(freshness.proves(proof, at(100)));
}

#[test]
fn a_resource_version_that_went_back_invalidates_all_proofs() {
    let freshness = heard_at(1);
    let proof = freshness.begin_read(at(1)).proof();
    assert!(!freshness.observe_version(WatchedKind::Blocks, "10", 0));
    assert!(!freshness.observe_version(WatchedKind::Node, "5", 0));
    assert!(!freshness.observe_version(WatchedKind::Blocks, "not a number", 10));
    // The agent sent this request when it knew version 8, so the answer may be older than version 10.
    assert!(!freshness.observe_version(WatchedKind::Blocks, "9", 8));
    assert_eq!(freshness.version(WatchedKind::Blocks), 10);
    assert!(freshness.proves(proof, at(1)));
    assert!(freshness.observe_version(WatchedKind::Blocks, "9", freshness.version(WatchedKind::Blocks)));
    assert!(!freshness.proves(proof, at(1)));
    assert_eq!(freshness.version(WatchedKind::Blocks), 9);
}

#[test]
fn a_resource_version_that_went_back_starts_the_quiet_time_however_short_the_outage_was() {
    let freshness = heard_at(1);
    assert!(!freshness.observe_version(WatchedKind::Blocks, "10", 0));
    assert_eq!(freshness.quiet_until(at(1)), None);
    assert!(freshness.observe_version(WatchedKind::Blocks, "9", 10));
    assert_eq!(freshness.quiet_until(at(1)), Some(at(16)));
    let restarted = FreshnessTracker::new(Times::new(1.0, Duration::from_mins(5)), freshness.last_contact(at(15)));
    restarted.answered(at(15));
    assert_eq!(restarted.quiet_until(at(15)), Some(at(30)));
}

#[test]
fn an_outage_counts_from_the_last_contact_and_only_if_calls_failed() {
    let freshness = heard_at(1);
    // The agent did not call the API server for a minute. A pause between calls is no outage.
    freshness.answered(at(61));
    assert_eq!(freshness.quiet_until(at(61)), None);
    freshness.call_failed(at(62));
    freshness.answered(at(70));
    assert_eq!(freshness.quiet_until(at(70)), None);
    freshness.call_failed(at(71));
    assert_eq!(freshness.last_contact(at(75)), Some(at(70)));
    freshness.answered(at(81));
    assert_eq!(freshness.quiet_until(at(81)), Some(at(96)));
    assert_eq!(freshness.quiet_until(at(96)), None);
}

#[test]
fn an_open_watch_does_not_end_or_shorten_an_outage() {
    let freshness = heard_at(1);
    freshness.call_failed(at(2));
    // The API server sends bookmarks from its cache even without etcd.
    freshness.watch_active(WatchedKind::Node, at(50));
    freshness.watch_active(WatchedKind::Blocks, at(57));
    freshness.watch_alive(at(60));
    assert_eq!(freshness.last_contact(at(62)), Some(at(1)));
    freshness.answered(at(66));
    assert_eq!(freshness.quiet_until(at(66)), Some(at(81)));
}

#[test]
fn a_limited_rate_of_requests_is_no_outage() {
    let freshness = heard_at(1);
    let throttled = UnknownWhy::Server(429, "too many requests".to_owned());
    freshness.observe_call(Some(&throttled), at(40));
    freshness.answered(at(41));
    assert_eq!(freshness.quiet_until(at(41)), None);
}

#[test]
fn an_agent_that_restarts_in_the_quiet_time_begins_it_anew() {
    let freshness = heard_at(1);
    freshness.call_failed(at(2));
    freshness.answered(at(20));
    assert_eq!(freshness.last_contact(at(34)), Some(at(1)));
    let restarted = FreshnessTracker::new(Times::new(1.0, Duration::from_mins(5)), freshness.last_contact(at(34)));
    restarted.answered(at(34));
    assert_eq!(restarted.quiet_until(at(34)), Some(at(49)));
    assert_eq!(freshness.last_contact(at(35)), Some(at(35)), "the quiet time is over");
}

#[test]
fn a_starting_agent_takes_the_last_contact_from_the_checkpoint() {
    let freshness = FreshnessTracker::new(Times::new(1.0, Duration::from_mins(5)), Some(at(100)));
    freshness.answered(at(105));
    assert_eq!(freshness.quiet_until(at(105)), None);
    let freshness = FreshnessTracker::new(Times::new(1.0, Duration::from_mins(5)), Some(at(100)));
    freshness.answered(at(111));
    assert_eq!(freshness.quiet_until(at(111)), Some(at(126)));
    // After a reboot the last contact is unknown. If the API server answers the first call, the agent has seen no outage.
    let freshness = FreshnessTracker::new(Times::new(1.0, Duration::from_mins(5)), None);
    freshness.answered(at(111));
    assert_eq!(freshness.quiet_until(at(111)), None);
}

#[test]
fn an_agent_whose_first_calls_fail_for_long_after_a_boot_begins_with_the_quiet_time() {
    let times = Times::new(1.0, Duration::from_mins(5));
    let freshness = FreshnessTracker::new(times, None);
    assert_eq!(freshness.last_contact(at(29)), None);
    freshness.call_failed(at(30));
    freshness.call_failed(at(36));
    // The checkpoint saves the time of the first failed call, so a restarted agent sees the whole outage.
    assert_eq!(freshness.last_contact(at(37)), Some(at(30)));
    let restarted = FreshnessTracker::new(times, freshness.last_contact(at(37)));
    restarted.answered(at(41));
    assert_eq!(restarted.quiet_until(at(41)), Some(at(56)));
    freshness.answered(at(41));
    assert_eq!(freshness.quiet_until(at(41)), Some(at(56)));
    let refused = FreshnessTracker::new(times, None);
    refused.list_refused();
    refused.answered(at(60));
    assert_eq!(refused.quiet_until(at(60)), None, "a refusal is an answer");
    let short = FreshnessTracker::new(times, None);
    short.call_failed(at(30));
    short.answered(at(40));
    assert_eq!(short.quiet_until(at(40)), None);
}

#[test]
fn a_rejected_token_invalidates_all_proofs_only_when_it_lasts() {
    let freshness = heard_at(1);
    let proof = freshness.begin_read(at(1)).proof();
    freshness.unauthorized(at(1));
    // A watch that was opened before the token was rejected still works.
    freshness.watch_active(WatchedKind::Node, at(30));
    freshness.watch_active(WatchedKind::Blocks, at(30));
    freshness.unauthorized(at(61));
    assert!(freshness.proves(proof, at(61)));
    freshness.unauthorized(at(62));
    assert!(!freshness.proves(proof, at(62)));
}
