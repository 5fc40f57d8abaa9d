use serde_json::json;

use super::*;
use crate::{AddressBlockSpec, AddressPoolStatus, IPAssignmentSpec};

/// Times that Kubernetes accepts and the library jiff refuses, and values that no schema admits.
const UNREADABLE: [&str; 6] = [
    r#""2026-01-01T00:00:00.000000+99:99""#,
    r#""9999-12-31T23:59:59.000000Z""#,
    r#""""#,
    "7",
    r#"{"a": [1]}"#,
    "[null]",
];

fn unreadable() -> impl Iterator<Item = serde_json::Value> {
    UNREADABLE.iter().map(|text| serde_json::from_str(text).expect("the text is JSON"))
}

#[test]
fn an_unreadable_free_since_counts_as_the_far_future() {
    for time in unreadable() {
        let spec = json!({"poolName": "p", "index": 0, "freeSince": time});
        let spec: AddressBlockSpec = serde_json::from_value(spec).expect("the block can be decoded");
        assert_eq!(spec.free_since, Some(MicroTime(Timestamp::MAX)));
    }
}

#[test]
fn a_readable_free_since_keeps_its_time_and_an_absent_one_stays_absent() {
    let spec = json!({"poolName": "p", "index": 0, "freeSince": "2026-01-01T00:00:00.5Z"});
    let spec: AddressBlockSpec = serde_json::from_value(spec).expect("the block can be decoded");
    assert_eq!(spec.free_since.map(|time| time.0), "2026-01-01T00:00:00.5Z".parse().ok());
    for spec in [json!({"poolName": "p", "index": 0}), json!({"poolName": "p", "index": 0, "freeSince": null})] {
        let spec: AddressBlockSpec = serde_json::from_value(spec).expect("the block can be decoded");
        assert_eq!(spec.free_since, None);
    }
}

#[test]
fn an_assignment_with_an_unreadable_time_is_readable() {
    for time in unreadable() {
        let spec = json!({
            "poolName": "p", "blockName": "p-0", "nodeName": "n", "ipv4": "10.0.0.1", "containerID": "c", "ifName": "eth0",
            "createdAt": time, "bootID": "b",
        });
        let spec: IPAssignmentSpec = serde_json::from_value(spec).expect("the assignment can be decoded");
        assert_eq!(spec.created_at, MicroTime(Timestamp::MAX));
    }
}

#[test]
fn a_pool_with_unreadable_times_keeps_its_conditions_and_accepted_subnets() {
    for time in unreadable() {
        let status = json!({
            "acceptedSubnets": [{"ipv4": "10.0.0.0/24", "state": "Accepted", "since": time}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "SubnetsAccepted", "message": "m", "lastTransitionTime": time}],
        });
        let status: AddressPoolStatus = serde_json::from_value(status).expect("the status can be decoded");
        assert_eq!(status.accepted_subnets[0].since, MicroTime(Timestamp::UNIX_EPOCH));
        let condition = &status.conditions[0];
        assert_eq!((condition.type_.as_str(), condition.status.as_str()), ("Ready", "True"));
        assert_eq!(condition.last_transition_time, Time(Timestamp::UNIX_EPOCH));
    }
}

#[test]
fn the_substitute_for_an_unreadable_time_can_be_encoded() {
    let text = serde_json::to_value(MicroTime(Timestamp::MAX)).expect("the time can be encoded");
    let read: MicroTime = serde_json::from_value(text).expect("the time can be decoded");
    assert_eq!(read.0.as_microsecond(), Timestamp::MAX.as_microsecond());
}
