//! Tests which events about deleted nodes are due, and what they say.

use k8s_openapi::jiff::SignedDuration;

use super::*;

const GRACE_PERIOD: Duration = Duration::from_mins(5);

fn nodes(names: &[&str]) -> HashMap<Arc<str>, Departure> {
    names.iter().map(|name| ((*name).into(), Departure::Unexpected)).collect()
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("it is a time")
}

/// Each node owns two blocks and one address of pool p.
fn holdings(nodes: &BTreeSet<Arc<str>>) -> HashMap<Arc<str>, Holdings> {
    nodes.iter().map(|node| (Arc::clone(node), of(2, 1))).collect()
}

fn of(blocks: u64, addresses: u64) -> Holdings {
    Holdings { blocks, addresses, pools: ["p".into()].into() }
}

/// Notes the deleted nodes at this time.
fn observe(reports: &mut NodeReports, deleted: &HashMap<Arc<str>, Departure>, now: &str) {
    let end = time(now).checked_add(SignedDuration::from_mins(5)).expect("it is a time");
    reports.observe(deleted, |_| false, |_| end, |_| false);
}

fn due(reports: &mut NodeReports, now: Instant) -> DueEvents {
    reports.due(now, GRACE_PERIOD, holdings)
}

#[test]
fn a_deleted_node_is_reported_once_with_what_it_owns_and_until_when() {
    let (mut reports, start) = (NodeReports::default(), Instant::now());
    let deleted = nodes(&["n1"]);
    observe(&mut reports, &deleted, "2026-11-22T10:00:00Z");
    let events = due(&mut reports, start).events;
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((event.node.as_deref(), event.event.reason, event.is_warning), (Some("n1"), "NodeDeleted", true));
    let note = &event.note;
    let what = "Node n1 was deleted, so the operator releases the node's 2 blocks and 1 address of pool p at 2026-11-22T10:05:00Z.";
    assert!(note.starts_with(what), "{note}");
    for words in ["restart kubelet", "event ReclaimHeld has the command"] {
        assert!(note.contains(words), "{note}");
    }
    observe(&mut reports, &deleted, "2026-11-22T10:01:00Z");
    assert_eq!(due(&mut reports, start + REPORT_INTERVAL), DueEvents::default());
    // The Node comes back and is deleted again.
    observe(&mut reports, &nodes(&[]), "2026-11-22T10:02:00Z");
    observe(&mut reports, &deleted, "2026-11-22T10:03:00Z");
    assert_eq!(due(&mut reports, start + REPORT_INTERVAL).events.len(), 1);
}

#[test]
fn many_nodes_cause_one_event_and_reports_keep_their_distance() {
    let (mut reports, start) = (NodeReports::default(), Instant::now());
    let names: Vec<String> = (0..100).map(|number| format!("n{number:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    observe(&mut reports, &nodes(&names[..1]), "2026-11-22T10:00:00Z");
    assert_eq!(due(&mut reports, start).events.len(), 1);
    observe(&mut reports, &nodes(&names), "2026-11-22T10:00:00Z");
    let early = due(&mut reports, start + Duration::from_secs(1));
    assert_eq!(early, DueEvents { events: vec![], next: Some(REPORT_INTERVAL.saturating_sub(Duration::from_secs(1))) });
    let events = due(&mut reports, start + REPORT_INTERVAL).events;
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((event.node.as_deref(), event.is_warning), (None, true));
    let what = "99 Nodes were deleted: n001, n002, n003, n004, n005 and 94 more. The operator releases the nodes' 198 blocks and 99 addresses of pool p";
    assert!(event.note.starts_with(what), "{}", event.note);
}

#[test]
fn a_node_that_is_held_before_its_report_is_reported_as_held() {
    let (mut reports, start) = (NodeReports::default(), Instant::now());
    let (deleted, end) = (nodes(&["n1"]), time("2026-11-22T10:05:00Z"));
    reports.observe(&deleted, |_| false, |_| end, |_| false);
    // More Nodes are deleted before the report is due.
    reports.observe(&deleted, |_| false, |_| end, |_| true);
    let events = due(&mut reports, start).events;
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert!(
        event.note.contains("The operator does not release the node's 2 blocks") && !event.note.contains("10:05"),
        "{}",
        event.note
    );
}

#[test]
fn a_node_that_comes_back_before_its_report_is_not_reported() {
    let (mut reports, start) = (NodeReports::default(), Instant::now());
    observe(&mut reports, &nodes(&["n1"]), "2026-11-22T10:00:00Z");
    due(&mut reports, start);
    observe(&mut reports, &nodes(&["n1", "n2"]), "2026-11-22T10:00:01Z");
    observe(&mut reports, &nodes(&["n1"]), "2026-11-22T10:00:02Z");
    assert_eq!(due(&mut reports, start + REPORT_INTERVAL), DueEvents::default());
}

#[test]
fn a_release_is_reported_and_only_a_loss_of_addresses_is_a_warning() {
    let (mut reports, start) = (NodeReports::default(), Instant::now());
    reports.released(&"n1".into(), &of(2, 3));
    reports.released(&"n2".into(), &of(1, 0));
    reports.released(&"n3".into(), &of(0, 0));
    let events = due(&mut reports, start).events;
    let warnings: Vec<_> = events.iter().map(|event| (event.event.reason, event.is_warning)).collect();
    assert_eq!(warnings, [("NodeAddressesReleased", true), ("NodeAddressesReleased", false)]);
    let what = "the operator released 2 blocks and 3 addresses of pool p of node n1, because Node n1 was deleted.";
    assert!(events[0].note.starts_with(what), "{}", events[0].note);
    for number in 0..=MAX_NODE_EVENTS {
        reports.released(&format!("n{number}").as_str().into(), &of(1, 1));
    }
    assert_eq!(
        due(&mut reports, start + Duration::from_secs(1)).next,
        Some(REPORT_INTERVAL.saturating_sub(Duration::from_secs(1)))
    );
    let events = due(&mut reports, start + REPORT_INTERVAL).events;
    assert!(
        events.len() == 1 && events[0].note.contains("6 blocks and 6 addresses of pool p of 6 nodes"),
        "{events:?}"
    );
}

#[test]
fn a_new_leader_does_not_repeat_the_report_of_an_earlier_leader() {
    let (mut reports, deleted) = (NodeReports::default(), nodes(&["n1", "n2"]));
    reports.observe(&deleted, |node| node == "n1", |_| time("2026-11-22T10:05:00Z"), |_| false);
    let events = due(&mut reports, Instant::now()).events;
    assert_eq!(events.iter().map(|event| event.node.as_deref()).collect::<Vec<_>>(), [Some("n2")]);
}

#[test]
fn a_node_out_of_service_is_released_at_once() {
    let mut reports = NodeReports::default();
    observe(&mut reports, &HashMap::from([("n1".into(), Departure::OutOfService)]), "2026-11-22T10:00:00Z");
    let events = due(&mut reports, Instant::now()).events;
    assert!(events[0].note.ends_with("releases the node's 2 blocks and 1 address of pool p at once"), "{events:?}");
}

#[test]
fn an_event_about_a_held_node_says_so_and_names_no_end_of_the_grace_period() {
    for count in [1, MAX_NODE_EVENTS + 1] {
        let mut reports = NodeReports::default();
        let names: Vec<String> = (0..count).map(|number| format!("n{number}")).collect();
        let deleted = nodes(&names.iter().map(String::as_str).collect::<Vec<_>>());
        reports.observe(&deleted, |_| false, |_| time("2026-11-22T10:05:00Z"), |_| true);
        let events = due(&mut reports, Instant::now()).events;
        let [event] = events.as_slice() else { panic!("{events:?}") };
        assert!(event.note.contains("because many Nodes were deleted together"), "{}", event.note);
        assert!(
            !event.note.contains("the operator releases")
                && event.note.contains("run the command in the event ReclaimHeld"),
            "{}",
            event.note
        );
    }
}
