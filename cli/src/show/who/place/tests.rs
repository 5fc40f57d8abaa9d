//! Tests where an address lies, and why no pod has it.

use kube::ResourceExt;
use serde_json::{Value, json};

use super::*;

fn pool(name: &str, subnet: &str, accepted: bool) -> AddressPool {
    let listed = if accepted {
        json!([{"ipv4": subnet, "state": "Accepted", "since": "2026-01-01T00:00:00.000000Z", "firstIndex": 0}])
    } else {
        json!([])
    };
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"subnets": [{"ipv4": subnet}], "blockSizeBits": 2, "reserved": ["10.0.0.1"]},
        "status": {"acceptedSubnets": listed, "nodeAddresses": ["10.0.0.2"]}
    }))
    .expect("a pool")
}

fn block(spec: &Value) -> AddressBlock {
    let mut all = json!({"poolName": "p", "index": 0, "ipv4": "10.0.0.0/30"});
    all.as_object_mut().expect("an object").extend(spec.as_object().cloned().unwrap_or_default());
    serde_json::from_value(json!({"metadata": {"name": "p-0"}, "spec": all})).expect("a block")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn an_address_lies_in_a_block_in_a_subnet_that_is_not_accepted_or_in_no_pool() {
    let pools = [pool("p", "10.0.0.0/24", true), pool("q", "10.1.0.0/24", false)];
    assert!(matches!(place(&pools, address("10.0.0.9")), Place::Block(pool, 2) if pool.name_any() == "p"));
    assert!(matches!(place(&pools, address("10.1.0.9")), Place::NotAccepted(pool, _) if pool.name_any() == "q"));
    assert!(matches!(place(&pools, address("10.2.0.9")), Place::InNoPool));
    assert!(matches!(place(&pools, address("fd00::1")), Place::InNoPool));
}

#[test]
fn an_address_without_a_pod_is_reserved_claimed_free_or_never_assigned() {
    let pool = pool("p", "10.0.0.0/24", true);
    let state = |text: &str, block: Option<&AddressBlock>| unassigned(&pool, 0, address(text), block);
    assert!(matches!(state("10.0.0.1", None), State::Reserved { why } if why.contains("spec.reserved")));
    assert!(matches!(state("10.0.0.2", None), State::Reserved { why } if why.contains("Node")));
    let free = block(&json!({}));
    assert!(matches!(state("10.0.0.3", Some(&free)), State::NeverAssigned));
    assert!(matches!(state("10.0.0.3", None), State::NeverAssigned));
    let released = block(&json!({"freeSince": "2026-01-01T00:00:00.000000Z"}));
    assert!(matches!(state("10.0.0.3", Some(&released)), State::Free { .. }));
    let claimed = block(&json!({"nodeName": "n1", "freeSince": "2026-01-01T00:00:00.000000Z"}));
    assert!(matches!(state("10.0.0.3", Some(&claimed)), State::Claimed { node } if node == "n1"));
}
