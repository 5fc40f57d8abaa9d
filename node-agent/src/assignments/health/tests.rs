//! Tests how the API server's answers change the recorded health of writes.

use super::*;

#[test]
fn an_answered_read_never_raises_health_and_an_unanswered_one_lowers_it() {
    let health = WriteHealth::new();
    assert!(health.is_healthy() && !health.observe(CallKind::Get, true));
    assert!(health.observe(CallKind::Get, false));
    assert!(!health.observe(CallKind::Get, true) && !health.is_healthy());
    assert!(health.observe(CallKind::Create, true) && health.is_healthy());
}

#[test]
fn a_delete_raises_health_unless_creates_fail() {
    let health = WriteHealth::new();
    health.observe(CallKind::Delete, false);
    assert!(health.observe(CallKind::Delete, true) && health.is_healthy());
    health.observe(CallKind::Create, false);
    // etcd has no space left, so the API server accepts deletes but no creates.
    assert!(!health.observe(CallKind::Delete, true) && !health.is_healthy());
    assert!(health.observe(CallKind::Create, true) && health.is_healthy());
}

#[test]
fn reads_follow_each_other_without_a_pause_and_a_failed_write_brings_it_back() {
    let health = WriteHealth::new();
    for _ in 0..20 {
        health.observe(CallKind::Create, false);
    }
    assert!(health.pause() >= MAX_PROBE_INTERVAL / 2);
    health.observe(CallKind::Get, true);
    assert_eq!(health.pause(), Duration::ZERO);
    assert!(health.pause() >= MAX_PROBE_INTERVAL / 2);
    health.observe(CallKind::Get, true);
    health.observe(CallKind::Create, false);
    assert!(health.pause() >= MAX_PROBE_INTERVAL / 2);
}

/// Many queues must read an assignment before they create it, and only one call runs at a time. The API server answers every read, but does
/// not answer the first 250 creates.
#[test]
fn health_returns_although_every_queue_reads_first_and_each_pause_allows_at_most_one_write() {
    let health = WriteHealth::new();
    health.observe(CallKind::Create, false);
    let mut reads_first = [true; 100];
    let (mut pauses, mut failed, mut queue) = (0, 0, 0);
    while !health.is_healthy() {
        pauses += usize::from(!health.pause().is_zero());
        let write = !reads_first[queue];
        let answered = !write || failed == 250;
        failed += usize::from(!answered);
        health.observe(if write { CallKind::Create } else { CallKind::Get }, answered);
        reads_first[queue] = write;
        queue = (queue + 1) % reads_first.len();
    }
    assert!(
        failed == 250 && pauses >= failed && pauses <= failed + 1,
        "expected 250 failed writes with one pause before each write, but there were {failed} failed writes and {pauses} pauses"
    );
}
