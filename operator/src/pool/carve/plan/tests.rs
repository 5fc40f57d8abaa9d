//! Tests which blocks the operator carves, which blocks it recreates, and which blocks it never carves.

use bobbin_crds::pool::{Acceptance, AcceptedSubnet, Subnet};
use bobbin_crds::{AddressPool, AddressPoolSpec, AddressPoolStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

use super::*;

fn shape(ipv4: &[&str], accepted: usize, reserved: &[&str], bits: i64) -> PoolShape {
    of(ipv4.iter().map(|net| Subnet { ipv4: Some((*net).into()), ipv6: None }).collect(), accepted, reserved, bits)
}

fn of(subnets: Vec<Subnet>, accepted: usize, reserved: &[&str], bits: i64) -> PoolShape {
    let accepted_subnets = subnets[..accepted]
        .iter()
        .map(|entry| AcceptedSubnet {
            ipv4: entry.ipv4.clone(),
            ipv6: entry.ipv6.clone(),
            state: Acceptance::Accepted,
            since: MicroTime(Timestamp::UNIX_EPOCH),
            first_index: None,
        })
        .collect();
    let reserved = reserved.iter().map(|text| (*text).to_owned()).collect();
    let mut pool = AddressPool::new(
        "p",
        AddressPoolSpec { subnets, block_size_bits: bits, reserved, ..AddressPoolSpec::default() },
    );
    pool.status = Some(AddressPoolStatus { accepted_subnets, ..AddressPoolStatus::default() });
    PoolShape::read(&pool).expect("the pool is valid")
}

fn carve(shape: &PoolShape, existing: &[u64], occupied: &[u64], demand: u64) -> Vec<u64> {
    let reserved = reserved_spans(shape);
    next(shape, &existing.iter().copied().collect(), &occupied.iter().copied().collect(), &reserved, demand)
}

#[test]
fn the_lowest_absent_blocks_are_carved_first() {
    let shape = shape(&["10.0.0.0/24"], 1, &[], 5);
    assert_eq!(carve(&shape, &[0, 2], &[], 3), [1, 3, 4]);
    assert_eq!(carve(&shape, &[0, 1, 2, 3, 4, 5, 6, 7], &[], 3), [] as [u64; 0]);
}

#[test]
fn an_entry_that_is_not_accepted_is_not_carved_and_keeps_its_indices() {
    let mut shape = shape(&["10.0.0.0/26", "10.1.0.0/26", "10.2.0.0/26"], 3, &[], 5);
    shape.accepted[1] = false;
    assert_eq!(carve(&shape, &[], &[], 9), [0, 1, 4, 5]);
}

#[test]
fn a_block_with_assignments_of_an_earlier_pool_is_not_carved() {
    assert_eq!(carve(&shape(&["10.0.0.0/25"], 1, &[], 5), &[], &[1], 9), [0, 2, 3]);
}

#[test]
fn only_fully_reserved_blocks_are_skipped() {
    let shape = shape(&["10.0.0.0/24"], 1, &["10.0.0.0/26", "10.0.0.65", "10.0.0.96/28", "10.0.0.112/28"], 5);
    assert_eq!(reserved_spans(&shape), [0..2, 3..4]);
    assert_eq!(carve(&shape, &[], &[], 2), [2, 4]);
    assert_eq!(count_outside(shape.accepted_spans(), &reserved_spans(&shape)), 5);
}

#[test]
fn a_block_is_fully_reserved_if_ipv4_and_ipv6_reservations_together_cover_it() {
    let subnet = Subnet { ipv4: Some("10.0.0.0/26".into()), ipv6: Some("fd00::/122".into()) };
    let shape = of(vec![subnet], 1, &["10.0.0.0/28", "fd00::10/124"], 5);
    assert_eq!(reserved_spans(&shape).as_slice(), std::slice::from_ref(&(0..1)));
}

#[test]
fn a_huge_reserved_range_is_skipped_without_a_scan() {
    let subnet = Subnet { ipv4: None, ipv6: Some("fd00::/32".into()) };
    let shape = of(vec![subnet], 1, &["fd00::/90"], 5);
    let [span] = reserved_spans(&shape).try_into().unwrap();
    assert_eq!(span, 0..(1 << 33));
    assert_eq!(carve(&shape, &[], &[], 2), [1 << 33, (1 << 33) + 1]);
    let whole = of(vec![Subnet { ipv4: None, ipv6: Some("fd00::/32".into()) }], 1, &["fd00::/16"], 5);
    assert_eq!(carve(&whole, &[], &[], 2), [] as [u64; 0]);
}

#[test]
fn one_pass_carves_at_most_128_blocks() {
    assert_eq!(carve(&shape(&["10.0.0.0/8"], 1, &[], 0), &[], &[], u64::MAX).len(), 128);
}

fn suspect(name: &str, node: &str, pool: &str, block: u64) -> SuspectAssignment {
    let range = BlockRange::parse(Some(&format!("{name}/32")), None).expect("it is a range");
    SuspectAssignment {
        outside: false,
        name: name.into(),
        range,
        node: node.into(),
        pool: pool.into(),
        block,
        owner: None,
        block_exists: false,
    }
}

#[test]
fn a_missing_block_is_recreated_only_if_all_its_assignments_name_the_same_node() {
    let shape = shape(&["10.0.0.0/24"], 1, &[], 5);
    let missing = |suspects: &[SuspectAssignment], unreadable: &[Option<BlockRange>]| {
        let missing = missing_blocks(&shape, "p", &BTreeSet::new(), suspects, unreadable);
        let occupied: Vec<u64> = missing.occupied.into_iter().collect();
        let recreatable = missing.recreatable.into_iter().map(|(index, node)| (index, node.to_string()));
        (occupied, recreatable.collect::<Vec<_>>())
    };
    let for_n1 = || (vec![1], vec![(1, "n1".to_owned())]);
    let for_none = || (vec![1], vec![]);
    let first = suspect("10.0.0.33", "n1", "p", 1);
    assert_eq!(missing(&[first.clone(), suspect("10.0.0.34", "n1", "p", 1)], &[]), for_n1());
    // If two assignments with addresses of one block name different nodes, pools or blocks, the former owner of the block
    // is unknown.
    for other in [
        suspect("10.0.0.34", "n2", "p", 1),
        suspect("10.0.0.34", "n1", "earlier", 1),
        suspect("10.0.0.34", "n1", "p", 2),
    ] {
        assert_eq!(missing(&[first.clone(), other.clone()], &[]), for_none());
        assert_eq!(missing(&[other, first.clone()], &[]), for_none());
    }
    let unreadable = BlockRange::parse(Some("10.0.0.40/32"), None).expect("it is a range");
    assert_eq!(missing(std::slice::from_ref(&first), &[Some(unreadable)]), for_none());
    assert_eq!(missing(std::slice::from_ref(&first), &[None]), for_none());
    let existing = SuspectAssignment { block_exists: true, ..first };
    assert_eq!(missing(&[existing], &[]), (vec![], vec![]));
}

#[test]
fn a_missing_block_of_an_entry_that_is_not_accepted_is_not_recreated() {
    let shape = shape(&["10.0.0.0/24"], 0, &[], 5);
    let missing = missing_blocks(&shape, "p", &BTreeSet::new(), &[suspect("10.0.0.33", "n1", "p", 1)], &[]);
    assert_eq!((missing.occupied.len(), missing.recreatable.len()), (0, 0));
}

#[test]
fn a_block_that_cools_down_does_not_count_as_free() {
    let shape = shape(&["10.0.0.0/24"], 1, &[], 5);
    let (now, cooldown) = (Timestamp::from_second(1000).expect("a time"), Duration::from_secs(100));
    let block = |index: u64, free_since: Option<i64>, finalizer: Option<usize>| BlockInfo {
        index,
        range: shape.layout.block(index),
        free_since: free_since.map(|second| MicroTime(Timestamp::from_second(second).expect("a time"))),
        finalizer,
        ..BlockInfo::default()
    };
    let blocks =
        vec![block(0, None, None), block(1, Some(901), None), block(2, Some(900), None), block(3, Some(1), Some(0))];
    let view = PoolView { blocks, ..PoolView::default() };
    assert_eq!(stock(&shape, &view, cooldown, now).free, 2, "only blocks 0 and 2 count as free");
    assert_eq!(stock(&shape, &view, Duration::ZERO, now).free, 4);
}
