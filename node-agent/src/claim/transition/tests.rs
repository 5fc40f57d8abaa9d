//! Claiming and giving back, as changes of a block.

use bobbin_crds::AddressBlockSpec;
use jiff::ToSpan;

use super::*;

fn node(uid: &str) -> NodeFacts {
    NodeFacts {
        name: "n1".to_owned(),
        uid: uid.to_owned(),
        ipv4: Some([192, 0, 2, 1].into()),
        ipv6: None,
        labels: std::collections::BTreeMap::new(),
    }
}

fn block(index: i64) -> AddressBlock {
    let spec = AddressBlockSpec {
        pool_name: "default".to_owned(),
        index,
        ipv4: Some(format!("10.64.0.{}/27", index * 32)),
        ..AddressBlockSpec::default()
    };
    AddressBlock::new(&format!("default-{index}"), spec)
}

fn freed(index: i64, ago_seconds: i64) -> AddressBlock {
    let mut block = block(index);
    block.spec.free_since = Some(MicroTime(now() - ago_seconds.seconds()));
    block
}

fn now() -> Timestamp {
    "2026-11-21T06:00:00Z".parse().unwrap()
}

#[test]
fn a_claim_names_node_and_finalizer_and_a_give_back_leaves_only_the_finalizer() {
    let ours = claimed(freed(1, 10), &node("u1"));
    assert_eq!(standing(&ours, &node("u1")), Standing::Ours);
    assert_eq!(standing(&ours, &node("u2")), Standing::EarlierSelf);
    assert_eq!(ours.spec.node_ipv4.as_deref(), Some("192.0.2.1"));
    assert_eq!((ours.spec.node_ipv6.clone(), ours.spec.free_since.clone()), (None, freed(1, 10).spec.free_since));
    assert_eq!(claimed(ours.clone(), &node("u2")).finalizers(), [FINALIZER]);
    let back = released(ours, now());
    assert_eq!(standing(&back, &node("u1")), Standing::Free);
    assert_eq!(back.spec, AddressBlockSpec { free_since: Some(MicroTime(now())), ..block(1).spec });
    assert_eq!(back.finalizers(), [FINALIZER]);
}

#[test]
fn a_block_that_is_being_deleted_or_anothers_is_not_to_be_had() {
    let mut going = block(1);
    going.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    assert_eq!(standing(&going, &node("u1")), Standing::Others);
    let mut other = node("u1");
    other.name = "n2".to_owned();
    let theirs = claimed(block(2), &other);
    assert_eq!(standing(&theirs, &node("u1")), Standing::Others);
    assert!(best_of(vec![going, theirs], &HashSet::new(), "n1", 0, now(), 130).is_none());
}

#[test]
fn rested_blocks_go_first_by_hash_and_resting_ones_last_the_longest_first() {
    let blocks = || vec![freed(1, 5), freed(2, 60), block(3), freed(4, 500)];
    let pick = |passed: &[&str], node: &str| {
        let passed = passed.iter().map(|name| (*name).to_owned()).collect();
        best_of(blocks(), &passed, node, 0, now(), 130).unwrap().name_any()
    };
    let firsts: HashSet<String> = (0..50).map(|number| pick(&[], &format!("n{number}"))).collect();
    assert_eq!(firsts, ["default-3".to_owned(), "default-4".to_owned()].into());
    assert_eq!(pick(&["default-3", "default-4"], "n1"), "default-2");
    assert_eq!(pick(&["default-2", "default-3", "default-4"], "n1"), "default-1");
}

#[test]
fn a_claimed_blocks_addresses_rest_from_when_the_block_became_free() {
    let boot = BootTime(Duration::from_secs(1000));
    let cooldown = Duration::from_secs(130);
    let rests = |block: &AddressBlock| resting_since(&held(block).unwrap(), cooldown, now(), boot);
    assert_eq!(rests(&freed(1, 30)), Some(BootTime(Duration::from_secs(970))));
    assert_eq!(rests(&freed(1, 131)), None);
    assert_eq!(rests(&block(1)), None);
    // Another machine's clock is ahead.
    assert_eq!(rests(&freed(1, -40)), Some(boot));
    // Freed before this node booted.
    let young = BootTime(Duration::from_secs(10));
    assert_eq!(resting_since(&held(&freed(1, 30)).unwrap(), cooldown, now(), young), Some(BootTime::default()));
}

#[test]
fn a_block_whose_range_makes_no_sense_is_told_by_name() {
    let mut broken = block(1);
    broken.spec.ipv4 = Some("10.64.0.1/27".to_owned());
    assert!(held(&broken).unwrap_err().contains("default-1"));
}
