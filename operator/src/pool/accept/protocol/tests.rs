//! Tests the acceptance protocol step by step, and with two operators in every order of their steps.

use bobbin_crds::pool::Subnet;
use bobbin_crds::{AddressPoolSpec, AddressPoolStatus};
use bobbin_ipam::pool_shape::entries;
use k8s_openapi::jiff::Timestamp;

use super::*;

fn at(second: i64) -> MicroTime {
    MicroTime(Timestamp::from_second(second).expect("it is a time"))
}

fn subnet(ipv4: &str) -> Subnet {
    Subnet { ipv4: Some(ipv4.into()), ipv6: None }
}

fn pool(name: &str, subnets: &[&str], listed: &[(&str, Acceptance, i64)]) -> AddressPool {
    let subnets = subnets.iter().map(|text| subnet(text)).collect();
    let mut pool =
        AddressPool::new(name, AddressPoolSpec { subnets, block_size_bits: 5, ..AddressPoolSpec::default() });
    pool.metadata.uid = Some(format!("uid-{name}"));
    let accepted_subnets = listed
        .iter()
        .map(|(text, state, since)| AcceptedSubnet {
            ipv4: Some((*text).into()),
            ipv6: None,
            state: *state,
            since: at(*since),
            first_index: None,
        })
        .collect();
    pool.status = Some(AddressPoolStatus { accepted_subnets, ..AddressPoolStatus::default() });
    pool
}

fn states(result: &AcceptanceResult) -> Vec<(&str, Acceptance)> {
    result.listed.iter().map(|listed| (listed.ipv4.as_deref().unwrap_or_default(), listed.state)).collect()
}

use Acceptance::{Accepted, Pending};

const A: &str = "10.0.0.0/24";
const B: &str = "10.0.1.0/24";

#[test]
fn a_new_entry_is_proposed_then_confirmed() {
    let new = pool("p", &[A, B], &[(A, Accepted, 1)]);
    assert!(is_open(&new) && !is_pending(&new));
    let proposed = propose(&new, &entries([&new]), &[], &[], &at(5));
    assert_eq!(states(&proposed), [(A, Accepted), (B, Pending)]);
    let pending = pool("p", &[A, B], &[(A, Accepted, 1), (B, Pending, 5)]);
    assert!(is_pending(&pending));
    let confirmed = confirm(&pending, &entries([&pending]), &[], &[]);
    assert_eq!(states(&confirmed), [(A, Accepted), (B, Accepted)]);
    assert!(!is_open(&pool("p", &[A], &[(A, Accepted, 1)])));
}

#[test]
fn an_entry_that_overlaps_an_accepted_entry_is_not_proposed() {
    let winner = pool("w", &["10.0.0.0/16"], &[("10.0.0.0/16", Accepted, 9)]);
    let new = pool("p", &[A], &[]);
    let result = propose(&new, &entries([&winner, &new]), &[], &[], &at(1));
    assert!(result.listed.is_empty());
    assert!(result.rejected[0].to_string().contains("\"w\""), "{}", result.rejected[0]);
}

#[test]
fn a_withdrawn_entry_does_not_affect_the_others() {
    let winner = pool("w", &[B], &[(B, Accepted, 9)]);
    let pending = pool("p", &[A, B], &[(A, Accepted, 1), (B, Pending, 5)]);
    let result = confirm(&pending, &entries([&winner, &pending]), &[], &[]);
    assert_eq!((states(&result), result.rejected.len()), (vec![(A, Accepted)], 1));
}

#[test]
fn a_block_of_an_earlier_pool_conflicts_with_a_new_entry() {
    let range = bobbin_ipam::BlockRange::parse(Some("10.0.0.32/27"), None).expect("it is a range");
    let left = [SubnetConflict::leftover("AddressBlock old-1".into(), range)];
    let pending = pool("p", &[A], &[(A, Pending, 5)]);
    let result = confirm(&pending, &entries([&pending]), &left, &[]);
    assert!(result.listed.is_empty() && result.rejected[0].to_string().contains("AddressBlock old-1"));
    assert_eq!(propose(&pool("p", &[A], &[]), &[], &left, &[], &at(1)).rejected.len(), 1);
}

#[test]
fn a_listed_entry_that_is_not_in_the_spec_stays_listed() {
    let odd = pool("p", &[A], &[(B, Accepted, 1), (A, Accepted, 1)]);
    let result = propose(&odd, &entries([&odd]), &[], &[], &at(5));
    assert_eq!(states(&result).len(), 2);
}

/// Two operators with different clocks handle one pool each, and both pools want the same addresses. The test runs every
/// interleaving of propose, survey and confirm. A survey sees all earlier writes. The API server refuses a write if the
/// pool has changed since the survey.
#[test]
fn two_operators_never_accept_the_same_addresses_in_any_interleaving() {
    #[derive(Clone)]
    struct Op {
        step: u8,
        survey: Option<Vec<PoolSubnet>>,
    }
    fn explore(pools: &[AddressPool; 2], ops: &[Op; 2], clocks: [i64; 2], depth: u8, ends: &mut [u32; 2]) {
        let accepted = pools.iter().filter(|pool| {
            pool.status
                .as_ref()
                .is_some_and(|status| status.accepted_subnets.iter().any(|entry| entry.state == Accepted))
        });
        let accepted = accepted.count();
        assert!(accepted <= 1, "both pools were accepted");
        if depth == 0 {
            ends[accepted] += 1;
            return;
        }
        for number in 0..2 {
            let (mut pools, mut ops) = (pools.clone(), ops.clone());
            let result = match ops[number].step {
                0 => {
                    let open = is_open(&pools[number]) && !is_pending(&pools[number]);
                    let all = if open { entries(&pools) } else { Vec::new() };
                    open.then(|| propose(&pools[number], &all, &[], &[], &at(clocks[number])))
                }
                1 => {
                    ops[number].survey = Some(entries(&pools));
                    None
                }
                _ => ops[number].survey.take().map(|survey| confirm(&pools[number], &survey, &[], &[])),
            };
            ops[number].step = (ops[number].step + 1) % 3;
            if let Some(result) = result {
                pools[number].status.get_or_insert_default().accepted_subnets = result.listed;
            }
            explore(&pools, &ops, clocks, depth - 1, ends);
        }
    }
    for clocks in [[1, 2], [2, 1], [5, 5]] {
        let op = Op { step: 0, survey: None };
        let mut ends = [0; 2];
        explore(&[pool("a", &[A], &[]), pool("b", &["10.0.0.128/25"], &[])], &[op.clone(), op], clocks, 12, &mut ends);
        assert!(ends[1] > ends[0], "in most interleavings one of the two pools is accepted: {ends:?}");
    }
}

/// Returns the pool with these first block indices for the entries of its status, and with this `nextIndex`.
fn numbered(mut pool: AddressPool, first: &[Option<i64>], next: Option<i64>) -> AddressPool {
    let status = pool.status.get_or_insert_default();
    for (listed, first) in status.accepted_subnets.iter_mut().zip(first) {
        listed.first_index = *first;
    }
    status.next_index = next;
    pool
}

fn block(index: u64, ipv4: &str) -> (u64, BlockRange) {
    (index, BlockRange::parse(Some(ipv4), None).expect("it is a range"))
}

fn numbers(result: &AcceptanceResult) -> (Vec<Option<i64>>, Option<i64>) {
    (result.listed.iter().map(|listed| listed.first_index).collect(), result.next_index)
}

const C: &str = "10.0.2.0/24";

#[test]
fn a_pool_of_an_older_program_keeps_the_numbers_of_all_its_entries() {
    // The older version of the operator also gave numbers to entry B, which is refused.
    let old = pool("p", &[A, B, C], &[(A, Accepted, 1), (C, Accepted, 2)]);
    assert!(is_unnumbered(&old));
    let blocks = [block(0, "10.0.0.0/27"), block(19, "10.0.2.96/27")];
    for blocks in [&blocks[..], &[]] {
        assert_eq!(numbers(&number(&old, blocks).unwrap()), (vec![Some(0), Some(16)], Some(24)));
    }
    let layout = |pool: &AddressPool| PoolShape::read(pool).unwrap().layout;
    let after = numbered(old.clone(), &[Some(0), Some(16)], Some(24));
    assert_eq!(layout(&after), layout(&old));
    assert!(!is_unnumbered(&after));
    // If the operator later accepts the refused entry B, then B gets new numbers. If the spec loses B, the other
    // entries keep their numbers.
    let pending = pool("p", &[A, B, C], &[(A, Accepted, 1), (C, Accepted, 2), (B, Pending, 3)]);
    let pending = numbered(pending, &[Some(0), Some(16), None], Some(24));
    let confirmed = confirm(&pending, &entries([&pending]), &[], &[]);
    assert_eq!(numbers(&confirmed), (vec![Some(0), Some(16), Some(24)], Some(32)));
    let mut shorter = after.clone();
    shorter.spec.subnets.remove(1);
    for index in [0, 7, 16, 23] {
        assert_eq!(layout(&shorter).block(index), layout(&old).block(index));
    }
}

#[test]
fn an_entry_that_an_older_program_accepted_meanwhile_gets_the_numbers_of_its_blocks() {
    let mixed = numbered(pool("p", &[A, B, C], &[(A, Accepted, 1), (C, Accepted, 2)]), &[Some(0)], Some(8));
    let blocks = [block(17, "10.0.2.32/27")];
    assert_eq!(numbers(&number(&mixed, &blocks).unwrap()), (vec![Some(0), Some(16)], Some(24)));
}

#[test]
fn entries_whose_numbers_would_overlap_stay_unnumbered() {
    let mixed = numbered(pool("p", &[A, B], &[(A, Accepted, 1), (B, Accepted, 2)]), &[Some(8)], Some(16));
    assert!(number(&mixed, &[]).is_err());
}

#[test]
fn a_pool_without_its_status_gets_the_numbers_of_its_blocks_in_any_order() {
    let blocks = [block(1, "10.0.1.32/27"), block(9, "10.0.0.32/27")];
    for order in [[A, B, C], [C, B, A], [B, C, A]] {
        let listed = order.map(|entry| (entry, Pending, 1));
        let restored = pool("p", &order, &listed);
        let confirmed = confirm(&restored, &entries([&restored]), &[], &blocks);
        let first = |entry: &str| {
            let listed = confirmed.listed.iter().find(|listed| listed.ipv4.as_deref() == Some(entry));
            listed.and_then(|listed| listed.first_index)
        };
        assert_eq!((first(B), first(A), first(C)), (Some(0), Some(8), Some(16)), "{order:?}");
        assert_eq!(confirmed.next_index, Some(24));
    }
}

#[test]
fn no_number_is_given_twice_when_refused_entries_come_and_go() {
    let first = numbered(pool("p", &[B, A], &[(A, Accepted, 1), (B, Pending, 2)]), &[Some(0)], Some(8));
    let both = confirm(&first, &entries([&first]), &[], &[]);
    assert_eq!(numbers(&both), (vec![Some(0), Some(8)], Some(16)));
    // An operator with an older survey gives entry C the number 8, which `both` gives to entry B. The API server
    // accepts only one of the two writes.
    let second = numbered(pool("p", &[C, A], &[(A, Accepted, 1), (C, Pending, 2)]), &[Some(0)], Some(8));
    assert_eq!(numbers(&confirm(&second, &entries([&second]), &[], &[])).0, [Some(0), Some(8)]);
    // If the status has no `nextIndex`, entry C still gets the first number after those of entry B.
    let lost = numbered(pool("p", &[C, B, A], &[(B, Accepted, 1), (C, Pending, 2)]), &[Some(8)], None);
    assert_eq!(numbers(&confirm(&lost, &entries([&lost]), &[], &[])), (vec![Some(8), Some(16)], Some(24)));
}
