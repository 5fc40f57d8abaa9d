use super::*;

const TIMES: HoldTimes = HoldTimes { grace_period: Duration::from_mins(5), hold: Duration::from_hours(1) };

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("it is a time")
}

/// Twelve nodes that own something. The nodes in `deleted` are deleted.
fn owners(deleted: &[(&str, Departure)]) -> NodeOwners {
    let deleted = deleted.iter().map(|(node, departure)| ((*node).into(), *departure)).collect();
    NodeOwners { count: 12, deleted }
}

fn all(departure: Departure) -> NodeOwners {
    owners(&["n1", "n2", "n3", "n4"].map(|node| (node, departure)))
}

fn held(deletions: &Deletions) -> usize {
    deletions.held().count()
}

#[test]
fn expected_deletions_are_not_held_and_do_not_count() {
    for departure in [Departure::Expected, Departure::OutOfService] {
        let deletions = Deletions::default().observe(&all(departure), at(0), TIMES);
        assert!(held(&deletions) == 0 && deletions.may_release("n1"));
    }
    let two = owners(&[
        ("n1", Departure::Unexpected),
        ("n2", Departure::Unexpected),
        ("n3", Departure::Expected),
        ("n4", Departure::Expected),
    ]);
    assert_eq!(held(&Deletions::default().observe(&two, at(0), TIMES)), 0);
}

#[test]
fn an_operator_that_starts_keeps_a_hold_and_knows_which_deletions_were_expected() {
    let before = Deletions::default().observe(&all(Departure::Unexpected), at(0), TIMES);
    assert_eq!(held(&before), 4);
    let after = before.observe(&all(Departure::Unknown), at(600), TIMES);
    assert_eq!(after, before);
    let before = Deletions::default().observe(&all(Departure::Expected), at(0), TIMES);
    assert_eq!(before.observe(&all(Departure::Unknown), at(600), TIMES), before);
    // After a restart and without entries, the operator does not know whether the deletions were expected. So it
    // holds the nodes.
    assert_eq!(held(&Deletions::default().observe(&all(Departure::Unknown), at(0), TIMES)), 4);
}

#[test]
fn a_confirmation_ends_the_holds_of_nodes_that_were_deleted_before_it() {
    let mut deletions = Deletions::default().observe(&all(Departure::Unexpected), at(0), TIMES);
    deletions.confirmed_until = Some(at(-1));
    assert_eq!(held(&deletions.observe(&all(Departure::Unexpected), at(400), TIMES)), 4);
    deletions.confirmed_until = Some(at(0));
    assert_eq!(held(&deletions.observe(&all(Departure::Unexpected), at(299), TIMES)), 4);
    let first = deletions.observe(&all(Departure::Unexpected), at(300), TIMES);
    assert!(held(&first) == 3 && first.is_released("n4") && first.may_release("n4"), "{first:?}");
    // At second 310, the operator sees that the released node n4 owns nothing any more. The next hold ends one grace
    // period later.
    let three = owners(&["n1", "n2", "n3"].map(|node| (node, Departure::Unexpected)));
    let second = first.observe(&three, at(310), TIMES);
    assert_eq!(held(&second), 3);
    assert_eq!(held(&second.observe(&three, at(609), TIMES)), 3);
    assert_eq!(held(&second.observe(&three, at(610), TIMES)), 2);
}

#[test]
fn a_confirmation_does_not_cover_nodes_that_are_deleted_after_it() {
    // The administrator confirmed at second 0. An operator sees further deletions in the same second, or at an earlier
    // time because its clock is behind.
    let confirmed = Deletions { confirmed_until: Some(at(0)), ..Deletions::default() };
    for now in [at(0), at(-5)] {
        let mut deletions = confirmed.observe(&all(Departure::Unexpected), now, TIMES);
        for _ in 0..2 {
            deletions = deletions.observe(&all(Departure::Unexpected), at(600), TIMES);
            assert_eq!(held(&deletions), 4, "{deletions:?}");
            let stored = serde_json::to_string(&deletions.nodes["n1"]).expect("it is JSON");
            deletions.nodes.insert("n1".into(), serde_json::from_str(&stored).expect("it is an entry"));
        }
    }
}

#[test]
fn nothing_is_remembered_after_the_last_deleted_node() {
    let none = owners(&[]);
    let held = Deletions::default().observe(&all(Departure::Unexpected), at(0), TIMES);
    assert!(held.observe(&none, at(10), TIMES).nodes.is_empty());
    let mut deletions = held;
    deletions.confirmed_until = Some(at(0));
    let deletions = deletions.observe(&all(Departure::Unexpected), at(300), TIMES);
    assert!(deletions.observe(&none, at(310), TIMES).nodes.is_empty());
}

#[test]
fn a_node_that_is_deleted_again_is_a_new_deletion() {
    let one = |departure| owners(&[("n1", departure)]);
    let expected = Deletions::default().observe(&one(Departure::Expected), at(0), TIMES);
    let again = expected.observe(&one(Departure::Unexpected), at(600), TIMES);
    assert_eq!(again.nodes["n1"], Deletion { deleted_at: Time(at(600)), progress: Progress::Waiting });
}

#[test]
fn a_time_in_the_future_counts_as_now() {
    let deletions = Deletions::default().observe(&all(Departure::Unexpected), at(3600), TIMES);
    let earlier = deletions.observe(&all(Departure::Unknown), at(0), TIMES);
    assert!(earlier.held().all(|(_, when)| when == at(0)));
}

#[test]
fn entries_survive_as_text() {
    let deletions = Deletions::default().observe(&all(Departure::Unexpected), at(0), TIMES);
    let text = serde_json::to_string(&deletions.nodes["n1"]).expect("it is JSON");
    assert_eq!(text, r#"{"deletedAt":"2027-01-15T08:00:00Z","state":"Held"}"#);
    let entry = Deletion { deleted_at: Time(at(0)), progress: Progress::Released { released_at: Time(at(1)) } };
    let text = serde_json::to_string(&entry).expect("it is JSON");
    assert_eq!(serde_json::from_str::<Deletion>(&text).expect("it is an entry"), entry, "{text}");
}
