//! What each answer says about the API server's health.

use super::*;

#[test]
fn an_answered_read_never_raises_health_and_an_unanswered_one_lowers_it() {
    let health = Health::new();
    assert!(health.is_good() && !health.learn(Call::Get, true));
    assert!(health.learn(Call::Get, false));
    assert!(!health.learn(Call::Get, true) && !health.is_good());
    assert!(health.learn(Call::Post, true) && health.is_good());
}

#[test]
fn a_delete_raises_health_unless_creates_fail() {
    let health = Health::new();
    health.learn(Call::Delete, false);
    assert!(health.learn(Call::Delete, true) && health.is_good());
    health.learn(Call::Post, false);
    // No space left: deletes are taken, creates are not.
    assert!(!health.learn(Call::Delete, true) && !health.is_good());
    assert!(health.learn(Call::Post, true) && health.is_good());
}

#[test]
fn reads_follow_each_other_without_a_pause_and_a_failed_write_brings_it_back() {
    let health = Health::new();
    for _ in 0..20 {
        health.learn(Call::Post, false);
    }
    assert!(health.pause() >= LONGEST / 2);
    health.learn(Call::Get, true);
    assert_eq!(health.pause(), Duration::ZERO);
    assert!(health.pause() >= LONGEST / 2);
    health.learn(Call::Get, true);
    health.learn(Call::Post, false);
    assert!(health.pause() >= LONGEST / 2);
}

/// Many write_queues that must read first, one call at a time: reads are answered, creates are not, until they are.
#[test]
fn health_returns_though_every_lane_reads_first_and_each_pause_buys_one_write_at_most() {
    let health = Health::new();
    health.learn(Call::Post, false);
    let mut reads_first = [true; 100];
    let (mut pauses, mut failed, mut write_queue) = (0, 0, 0);
    while !health.is_good() {
        pauses += usize::from(!health.pause().is_zero());
        let write = !reads_first[write_queue];
        let answered = !write || failed == 250;
        failed += usize::from(!answered);
        health.learn(if write { Call::Post } else { Call::Get }, answered);
        reads_first[write_queue] = write;
        write_queue = (write_queue + 1) % reads_first.len();
    }
    assert!(failed == 250 && pauses >= failed && pauses <= failed + 1, "{pauses} pauses for {failed} failed writes");
}
