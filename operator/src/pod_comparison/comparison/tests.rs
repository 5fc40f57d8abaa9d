//! Tests the comparison with pods and assignments of every kind.

use bobbin_crds::AddressPool;
use serde_json::json;

use super::*;

/// The UID of a static pod.
const HASH: &str = "0123456789abcdef";

fn pools() -> Pools {
    let subnet = |state: &str, ipv4: &str, ipv6: &str| json!({"ipv4": ipv4, "ipv6": ipv6, "state": state, "since": "2026-01-01T00:00:00.000000Z"});
    let pool: AddressPool = serde_json::from_value(json!({
        "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": "p"},
        "spec": {"subnets": []},
        "status": {"acceptedSubnets": [
            subnet("Accepted", "10.0.0.0/24", "fd00::/120"),
            subnet("Pending", "10.0.1.0/24", "fd00::100/120"),
        ]},
    }))
    .expect("it is a pool");
    let mut pools = Pools::default();
    pools.add("p", Some(&pool));
    pools
}

fn id(name: &str, uid: &str) -> PodId {
    PodId { namespace: "shop".into(), name: name.into(), uid: uid.into() }
}

fn pod(name: &str, uid: &str, addresses: &[&str]) -> LivePod {
    LivePod { id: id(name, uid), static_pod_uid: None, addresses: parsed(addresses) }
}

fn mirror(name: &str, uid: &str, addresses: &[&str]) -> LivePod {
    LivePod { static_pod_uid: Some(HASH.into()), ..pod(name, uid, addresses) }
}

fn parsed(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|text| text.parse().expect("it is an address")).collect()
}

/// Compares assignments (addresses and pod) with pods. Returns kind, pool, address and pod of each difference, sorted.
fn compare(assignments: &[(&[&str], Option<PodId>)], pods: &[LivePod]) -> Vec<String> {
    let pools = pools();
    let mut comparison = Comparison::new(&pools);
    for (addresses, pod) in assignments {
        comparison.add_assignment("p", parsed(addresses), pod.clone());
    }
    for pod in pods {
        comparison.add_pod(pod);
    }
    texts(comparison)
}

fn texts(comparison: Comparison<'_>) -> Vec<String> {
    let text = |one: &Difference| format!("{:?} {} {} {}", one.kind, one.pool, one.address, one.pod.name);
    let mut texts: Vec<String> = comparison.differences().iter().map(text).collect();
    texts.sort();
    texts
}

const NONE: [&str; 0] = [];

#[test]
fn a_pod_with_both_its_addresses_agrees_with_its_assignment() {
    let both = ["10.0.0.1", "fd00::1"];
    assert_eq!(compare(&[(&both, Some(id("a", "u-1")))], &[pod("a", "u-1", &both)]), NONE);
}

#[test]
fn an_address_is_held_but_not_used_if_its_pod_is_gone_or_has_another_address() {
    let held = [(&["10.0.0.1", "fd00::1"] as &[_], Some(id("a", "u-1")))];
    let both = ["HeldNotUsed p 10.0.0.1 a", "HeldNotUsed p fd00::1 a"];
    assert_eq!(compare(&held, &[]), both);
    assert_eq!(compare(&held, &[pod("b", "u-1", &[])]), both);
    assert_eq!(compare(&held, &[pod("a", "u-2", &[])]), both);
    assert_eq!(compare(&held, &[pod("a", "u-1", &["192.0.2.1"])]), both);
    // Each address of a pair counts separately.
    assert_eq!(compare(&held, &[pod("a", "u-1", &["10.0.0.1"])]), ["HeldNotUsed p fd00::1 a"]);
}

#[test]
fn an_address_is_used_but_not_held_only_inside_an_accepted_subnet() {
    let used = |addresses: &[&str]| compare(&[], &[pod("a", "u-1", addresses)]);
    assert_eq!(used(&["10.0.0.1", "fd00::1"]), ["UsedNotHeld p 10.0.0.1 a", "UsedNotHeld p fd00::1 a"]);
    assert_eq!(used(&["10.0.1.1", "fd00::101"]), NONE);
    assert_eq!(used(&["192.0.2.1"]), NONE);
}

#[test]
fn the_second_pod_with_an_address_uses_it_without_holding_it() {
    let held = [(&["10.0.0.1"] as &[_], Some(id("a", "u-1")))];
    let pods = [pod("a", "u-1", &["10.0.0.1"]), pod("b", "u-2", &["10.0.0.1"])];
    assert_eq!(compare(&held, &pods), ["UsedNotHeld p 10.0.0.1 b"]);
    // The pod was replaced by a pod of the same name. The assignment of the old pod does not count for the new pod.
    let again = compare(&held, &[pod("a", "u-3", &["10.0.0.1"])]);
    assert_eq!(again, ["HeldNotUsed p 10.0.0.1 a", "UsedNotHeld p 10.0.0.1 a"]);
}

#[test]
fn a_pod_that_starts_may_have_the_address_of_its_assignment() {
    let held = [(&["10.0.0.1"] as &[_], Some(id("a", "u-1")))];
    assert_eq!(compare(&held, &[pod("a", "u-1", &[])]), NONE);
}

#[test]
fn an_assignment_that_names_no_pod_is_used_by_anybody() {
    assert_eq!(compare(&[(&["10.0.0.1"], None)], &[]), NONE);
    assert_eq!(compare(&[(&["10.0.0.1"], None)], &[pod("a", "u-1", &["10.0.0.1"])]), NONE);
    // If the assignment has no UID, the name of the pod decides.
    let unknown = [(&["10.0.0.1"] as &[_], Some(id("a", "")))];
    assert_eq!(compare(&unknown, &[pod("a", "u-1", &["10.0.0.1"])]), NONE);
    assert_eq!(compare(&unknown, &[pod("a", "u-1", &[])]), NONE);
    assert_eq!(compare(&unknown, &[pod("b", "u-1", &[])]), ["HeldNotUsed p 10.0.0.1 a"]);
}

#[test]
fn a_static_pod_is_known_by_its_mirror_pod_and_may_run_without_it() {
    let held = [(&["10.0.0.1"] as &[_], Some(id("a", HASH)))];
    assert_eq!(compare(&held, &[mirror("a", "u-1", &["10.0.0.1"])]), NONE);
    assert_eq!(compare(&held, &[mirror("a", "u-1", &[])]), NONE);
    assert_eq!(compare(&held, &[]), NONE);
    assert_eq!(
        compare(&held, &[mirror("a", "u-1", &["10.0.0.2"])]),
        ["HeldNotUsed p 10.0.0.1 a", "UsedNotHeld p 10.0.0.2 a"]
    );
}

#[test]
fn what_cannot_be_decoded_counts_as_agreement() {
    let pools = pools();
    let mut comparison = Comparison::new(&pools);
    comparison.add_unreadable_assignment("10.0.0.1".parse().expect("it is an address"));
    comparison.add_assignment("p", parsed(&["10.0.0.2"]), Some(id("b", "u-2")));
    // The unreadable assignment may also hold fd00::1, because its name shows only one of its addresses.
    comparison.add_pod(&pod("a", "u-1", &["10.0.0.1", "fd00::1"]));
    comparison.add_unreadable_pod("shop", "b");
    assert_eq!(texts(comparison), NONE);
}

#[test]
fn an_assignment_of_a_pool_that_does_not_exist_is_counted_under_no_pool() {
    let pools = pools();
    let mut comparison = Comparison::new(&pools);
    comparison.add_assignment("anything", parsed(&["10.0.0.1"]), Some(id("a", "u-1")));
    assert_eq!(texts(comparison), ["HeldNotUsed (none) 10.0.0.1 a"]);
}
