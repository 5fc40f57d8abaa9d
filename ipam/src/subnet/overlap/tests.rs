//! Tests the messages of the acceptance protocol. Also tests operators that write, list and confirm in any order.

use proptest::prelude::*;

use super::*;

fn subnet(text: &str) -> SubnetPair {
    SubnetPair::parse(Some(text), None).unwrap()
}

fn entry(pool: &str, since: i64, state: Acceptance, net: &str) -> PoolSubnet {
    PoolSubnet {
        pool_uid: format!("uid-{pool}"),
        pool: pool.to_owned(),
        since,
        state,
        subnet: subnet(net),
        deleting: false,
    }
}

#[test]
fn a_subnet_without_an_overlap_is_accepted() {
    let ours = entry("a", 5, Acceptance::Pending, "10.0.0.0/16");
    let others = [ours.clone(), entry("b", 1, Acceptance::Accepted, "10.1.0.0/16")];
    assert_eq!(decide(&ours, &others, &[]), AcceptanceDecision::Accept);
}

#[test]
fn the_entry_that_came_later_loses_whichever_pool_is_older() {
    let ours = entry("a", 5, Acceptance::Pending, "10.0.0.0/16");
    for other in [entry("b", 9, Acceptance::Accepted, "10.0.7.0/24"), entry("b", 4, Acceptance::Pending, "10.0.7.0/24")]
    {
        let AcceptanceDecision::Withdraw(overlap) = decide(&ours, [&other], &[]) else {
            panic!("the subnet was not withdrawn, although it overlaps {other:?}")
        };
        assert_eq!(
            overlap.to_string(),
            "subnet 10.0.0.0/16 overlaps the earlier subnet 10.0.7.0/24 of pool \"b\": change or remove subnet 10.0.0.0/16, or delete pool \"b\""
        );
    }
    let later = entry("b", 6, Acceptance::Pending, "10.0.7.0/24");
    assert!(matches!(decide(&ours, [&later], &[]), AcceptanceDecision::Wait(_)));
    let same_time = entry("b", 5, Acceptance::Pending, "10.0.7.0/24");
    assert!(
        matches!(decide(&ours, [&same_time], &[]), AcceptanceDecision::Wait(_)),
        "of two entries with the same time, the entry of the pool with the lower UID comes first"
    );
    assert!(matches!(decide(&same_time, [&ours], &[]), AcceptanceDecision::Withdraw(_)));
}

#[test]
fn a_subnet_that_overlaps_a_block_of_a_deleted_pool_is_withdrawn() {
    let ours = entry("a", 5, Acceptance::Pending, "10.0.0.0/16");
    let range = BlockRange::parse(Some("10.0.9.0/27"), None).unwrap();
    let conflict = SubnetConflict::leftover("AddressBlock a-288".to_owned(), range);
    let AcceptanceDecision::Withdraw(overlap) = decide(&ours, &[], [&conflict]) else {
        panic!("the subnet was not withdrawn, although it overlaps a block")
    };
    assert_eq!(
        overlap.to_string(),
        "subnet 10.0.0.0/16 overlaps AddressBlock a-288 (10.0.9.0/27). A deleted pool left this object behind, and pods may still use its addresses. Delete these pods, or wait until the object is deleted"
    );
}

/// The next step of an operator that reconciles one pool.
#[derive(Clone, Debug)]
enum Step {
    Write,
    List,
    Answer(Vec<PoolSubnet>),
    Done,
}

/// Runs one operator for each pool. Each operator has its own clock. `order` says which operator does the next step. If
/// `stale` is true, the caches are stale: an operator may begin although another operator has already begun.
fn run(clocks: &[i64], order: &[usize], stale: bool) -> Vec<Option<PoolSubnet>> {
    let mut stored: Vec<Option<PoolSubnet>> = vec![None; clocks.len()];
    let mut steps = vec![Step::Write; clocks.len()];
    for who in order {
        let who = who % clocks.len();
        steps[who] = match std::mem::replace(&mut steps[who], Step::Done) {
            Step::Write => {
                let cache: Vec<PoolSubnet> = stored.iter().flatten().cloned().collect();
                if may_begin(&format!("uid-{who}"), subnet("10.0.0.0/24"), &cache, &[]).is_err() && !stale {
                    steps[who] = Step::Write;
                    continue;
                }
                stored[who] = Some(entry(&who.to_string(), clocks[who], Acceptance::Pending, "10.0.0.0/24"));
                Step::List
            }
            Step::List => Step::Answer(stored.iter().flatten().cloned().collect()),
            Step::Answer(seen) => {
                let ours = stored[who].clone().unwrap();
                match decide(&ours, &seen, &[]) {
                    AcceptanceDecision::Accept => {
                        stored[who] = Some(PoolSubnet { state: Acceptance::Accepted, ..ours });
                        Step::Done
                    }
                    AcceptanceDecision::Wait(_) => Step::List,
                    AcceptanceDecision::Withdraw(_) => {
                        stored[who] = None;
                        Step::Write
                    }
                }
            }
            Step::Done => Step::Done,
        };
        let accepted = stored.iter().flatten().filter(|entry| entry.state == Acceptance::Accepted).count();
        assert!(accepted <= 1, "the operators accepted the same subnet for {accepted} pools: {stored:?}");
    }
    stored
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    #[test]
    fn two_pools_are_never_both_accepted_in_any_interleaving_with_any_clocks(
        clocks in prop::collection::vec(0_i64..3, 2..=3), order in prop::collection::vec(0_usize..6, 0..60), stale: bool,
    ) {
        run(&clocks, &order, stale);
    }

    #[test]
    fn one_of_the_pools_is_accepted_in_the_end(clocks in prop::collection::vec(0_i64..3, 2..=3), order in prop::collection::vec(0_usize..6, 0..30)) {
        // After a random start, the operators take turns of three steps each.
        let turns = (0..60).map(|i| i / 3);
        let order: Vec<usize> = order.into_iter().chain(turns).collect();
        let accepted = run(&clocks, &order, false).iter().flatten().filter(|entry| entry.state == Acceptance::Accepted).count();
        prop_assert_eq!(accepted, 1);
    }
}

#[test]
fn an_overlap_with_a_deleted_pool_advises_to_wait_and_not_to_delete_it_again() {
    let ours = subnet("10.0.0.0/24");
    let other = PoolSubnet { deleting: true, ..entry("old", 1, Acceptance::Accepted, "10.0.0.0/16") };
    let overlap = may_begin("uid-new", ours, [&other], []).unwrap_err();
    let text = overlap.to_string();
    assert!(text.contains("which is being deleted. The operator accepts subnet "), "{text}");
    assert!(!text.contains("or delete pool"), "{text}");
    let other = PoolSubnet { deleting: false, ..other };
    let text = may_begin("uid-new", ours, [&other], []).unwrap_err().to_string();
    assert!(text.ends_with("or delete pool \"old\""), "{text}");
}
