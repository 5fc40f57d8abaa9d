//! Which blocks are carved, and which never.

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

fn carve(shape: &PoolShape, there: &[u64], held: &[u64], missing: u64) -> Vec<u64> {
    let reserved = reserved_spans(shape);
    next(shape, &there.iter().copied().collect(), &held.iter().copied().collect(), &reserved, missing)
}

#[test]
fn the_lowest_blocks_that_are_not_there_come_first() {
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
fn a_block_over_addresses_that_an_earlier_pool_left_is_not_carved() {
    assert_eq!(carve(&shape(&["10.0.0.0/25"], 1, &[], 5), &[], &[1], 9), [0, 2, 3]);
}

#[test]
fn wholly_reserved_blocks_are_passed_over_and_others_not() {
    let shape = shape(&["10.0.0.0/24"], 1, &["10.0.0.0/26", "10.0.0.65", "10.0.0.96/28", "10.0.0.112/28"], 5);
    assert_eq!(reserved_spans(&shape), [0..2, 3..4]);
    assert_eq!(carve(&shape, &[], &[], 2), [2, 4]);
    assert_eq!(count_outside(shape.accepted_spans(), &reserved_spans(&shape)), 5);
}

#[test]
fn halves_reserved_by_either_family_make_a_whole() {
    let subnet = Subnet { ipv4: Some("10.0.0.0/26".into()), ipv6: Some("fd00::/122".into()) };
    let shape = of(vec![subnet], 1, &["10.0.0.0/28", "fd00::10/124"], 5);
    assert_eq!(reserved_spans(&shape).as_slice(), std::slice::from_ref(&(0..1)));
}

#[test]
fn a_vast_reserved_part_of_a_vast_pool_costs_nothing() {
    let subnet = Subnet { ipv4: None, ipv6: Some("fd00::/32".into()) };
    let shape = of(vec![subnet], 1, &["fd00::/90"], 5);
    let [span] = reserved_spans(&shape).try_into().unwrap();
    assert_eq!(span, 0..(1 << 33));
    assert_eq!(carve(&shape, &[], &[], 2), [1 << 33, (1 << 33) + 1]);
    let whole = of(vec![Subnet { ipv4: None, ipv6: Some("fd00::/32".into()) }], 1, &["fd00::/16"], 5);
    assert_eq!(carve(&whole, &[], &[], 2), [] as [u64; 0]);
}

#[test]
fn one_pass_has_an_end() {
    assert_eq!(carve(&shape(&["10.0.0.0/8"], 1, &[], 0), &[], &[], u64::MAX).len(), 512);
}

fn loose(name: &str, node: &str, pool: &str, block: u64) -> Loose {
    let range = BlockRange::parse(Some(&format!("{name}/32")), None).expect("it is a range");
    Loose { name: name.into(), range, node: node.into(), pool: pool.into(), block, owner: None, block_is_there: false }
}

#[test]
fn an_absent_block_is_carved_again_only_for_the_one_node_that_all_its_records_name() {
    let shape = shape(&["10.0.0.0/24"], 1, &[], 5);
    let again = |records: &[Loose], unreadable: &[Option<BlockRange>]| {
        let residents = residents(&shape, "p", &BTreeSet::new(), records, unreadable);
        let held: Vec<u64> = residents.held.into_iter().collect();
        (held, residents.again.into_iter().map(|(index, node)| (index, node.to_string())).collect::<Vec<_>>())
    };
    let for_n1 = || (vec![1], vec![(1, "n1".to_owned())]);
    let nobody = || (vec![1], vec![]);
    let first = loose("10.0.0.33", "n1", "p", 1);
    assert_eq!(again(&[first.clone(), loose("10.0.0.34", "n1", "p", 1)], &[]), for_n1());
    // Another node, another pool, another block: whose the block was is not sure.
    for other in
        [loose("10.0.0.34", "n2", "p", 1), loose("10.0.0.34", "n1", "earlier", 1), loose("10.0.0.34", "n1", "p", 2)]
    {
        assert_eq!(again(&[first.clone(), other.clone()], &[]), nobody());
        assert_eq!(again(&[other, first.clone()], &[]), nobody());
    }
    let odd = BlockRange::parse(Some("10.0.0.40/32"), None).expect("it is a range");
    assert_eq!(again(std::slice::from_ref(&first), &[Some(odd)]), nobody());
    assert_eq!(again(std::slice::from_ref(&first), &[None]), nobody());
    let there = Loose { block_is_there: true, ..first };
    assert_eq!(again(&[there], &[]), (vec![], vec![]));
}

#[test]
fn a_block_of_an_entry_that_is_not_accepted_is_not_carved_again() {
    let shape = shape(&["10.0.0.0/24"], 0, &[], 5);
    let residents = residents(&shape, "p", &BTreeSet::new(), &[loose("10.0.0.33", "n1", "p", 1)], &[]);
    assert_eq!((residents.held.len(), residents.again.len()), (1, 0));
}
