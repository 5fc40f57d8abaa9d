//! Tests when an assignment is due for a check, and how the results of earlier checks count.

use std::time::Duration;

use bobbin_ipam::BlockRange;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn times() -> Times {
    Times::new(1.0)
}

fn suspect(name: &str, outside: bool) -> SuspectAssignment {
    let range = BlockRange::parse(Some("10.0.0.1/32"), None).expect("it is a range");
    SuspectAssignment {
        name: name.into(),
        range,
        node: "n1".into(),
        pool: "p".into(),
        block: 0,
        owner: None,
        block_exists: true,
        outside,
    }
}

fn orphan(name: &str) -> SuspectAssignment {
    suspect(name, false)
}

fn observe(candidates: &mut Candidates, names: &[&str], now: Instant) {
    candidates.observe(names.iter().map(|name| orphan(name)).collect(), now);
}

#[test]
fn an_orphan_is_checked_after_a_minute_and_counts_as_void_when_seen_twice() {
    let (mut candidates, start) = (Candidates::new(times()), Instant::now());
    let age = times().min_orphan_age();
    let mut pass = |names: &[&str], now| {
        observe(&mut candidates, names, now);
        (candidates.confirmed().count(), candidates.take_due(20, now))
    };
    assert_eq!(pass(&["a"], start), (0, vec![]));
    assert_eq!(pass(&["a", "b"], start + age), (1, vec![orphan("a")]));
    assert_eq!(pass(&["b"], start + age * 2), (1, vec![orphan("b")]));
    assert_eq!(pass(&["a"], start + age * 3), (0, vec![]));
}

#[test]
fn an_address_outside_its_block_is_checked_at_once_and_again_soon_if_the_check_failed() {
    let (mut candidates, start) = (Candidates::new(times()), Instant::now());
    candidates.observe(vec![suspect("a", true), orphan("b")], start);
    assert_eq!(candidates.take_due(20, start), [suspect("a", true)]);
    assert_eq!(candidates.take_due(20, start), []);
    candidates.retry("a", start);
    assert_eq!(candidates.take_due(20, start), [], "a failed check is not repeated at once");
    let due = candidates.take_due(20, start + times().check_interval() / 10);
    assert!(due.contains(&suspect("a", true)), "{due:?}");
}

#[test]
fn the_orphans_of_a_node_with_many_are_checked_at_once() {
    let (mut candidates, start) = (Candidates::new(times()), Instant::now());
    let names: Vec<String> = (0..=MAX_VOID_ASSIGNMENTS).map(|number| format!("a{number}")).collect();
    for pass in 0..2 {
        candidates.observe(names.iter().map(|name| orphan(name)).collect(), start + SECOND * pass);
    }
    assert_eq!(candidates.take_due(100, start + SECOND).len(), MAX_VOID_ASSIGNMENTS + 1);
}

#[test]
fn every_orphan_is_checked_once_per_interval_although_a_pass_is_limited() {
    let (mut candidates, start) = (Candidates::new(times()), Instant::now());
    let interval = times().check_interval();
    observe(&mut candidates, &["a", "b", "c"], start);
    let now = start + times().min_orphan_age();
    assert_eq!(candidates.take_due(2, now), [orphan("a"), orphan("b")]);
    assert_eq!(candidates.take_due(2, now + SECOND), [orphan("c")]);
    assert_eq!(candidates.take_due(2, now + interval.saturating_sub(SECOND)), []);
    assert_eq!(candidates.take_due(9, now + interval), [orphan("a"), orphan("b")]);
}

#[test]
fn a_pod_counts_as_gone_only_when_two_checks_of_the_same_assignment_agree() {
    let (mut candidates, start) = (Candidates::new(times()), Instant::now());
    let interval = times().check_interval();
    observe(&mut candidates, &["a"], start);
    assert!(!candidates.note_pod_gone("a", "u1", start));
    assert!(!candidates.note_pod_gone("a", "u1", start + interval.saturating_sub(SECOND)));
    assert!(candidates.note_pod_gone("a", "u1", start + interval));
    // Three things invalidate earlier evidence: a new assignment with the same name, a living pod, and an observation that
    // does not find the assignment suspect.
    assert!(!candidates.note_pod_gone("a", "u2", start + interval));
    candidates.note_pod_alive("a");
    assert!(!candidates.note_pod_gone("a", "u2", start + interval * 2));
    observe(&mut candidates, &[], start + interval * 3);
    assert!(!candidates.note_pod_gone("a", "u2", start + interval * 3));
    observe(&mut candidates, &["a"], start + interval * 3);
    assert!(!candidates.note_pod_gone("a", "u2", start + interval * 3));
}

#[test]
fn forged_assignments_count_against_their_node_for_a_while_after_their_deletion() {
    let (mut candidates, start) = (Candidates::new(times()), Instant::now());
    let count = |candidates: &Candidates, now| candidates.without_pod(now).get("n1").copied().unwrap_or(0);
    candidates.observe(vec![suspect("a", true), orphan("b")], start);
    candidates.note_pod_missing("a", true);
    candidates.note_pod_missing("b", true);
    candidates.note_forged("a", start);
    assert_eq!(count(&candidates, start), 2);
    observe(&mut candidates, &["b"], start + SECOND);
    assert_eq!(count(&candidates, start + SECOND), 2);
    assert_eq!(count(&candidates, start + times().forgery_memory()), 1);
    candidates.forget_forgeries("n1");
    assert_eq!(
        count(&candidates, start + SECOND),
        0,
        "a void assignment that still exists counts again only after its next check"
    );
    candidates.note_pod_missing("b", true);
    assert_eq!(count(&candidates, start + SECOND), 1);
}
