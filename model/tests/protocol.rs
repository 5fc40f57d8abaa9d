//! Checks that the protocol keeps its rules, and that the model finds a counter-example for each wrong variant.
#![allow(clippy::panic, reason = "tests")]

use std::time::Instant;

use bobbin_model::{Budget, Protocol, Start, Variant};
use stateright::{Checker, Expectation, HasDiscoveries, Model};

const NO_FAULTS: Budget = Budget {
    operators: 1,
    releases: 1,
    crashes: 0,
    lost: 0,
    restores: 0,
    partitions: 0,
    deleted_nodes: 0,
    old_events: 0,
    unreadable: 0,
};
/// Allows all faults that the model knows in one run.
const ALL_FAULTS: Budget = Budget {
    operators: 2,
    releases: 2,
    crashes: 2,
    lost: 2,
    restores: 1,
    partitions: 1,
    deleted_nodes: 1,
    old_events: 1,
    unreadable: 1,
};

fn bobbin(start: Start, budget: Budget) -> Protocol {
    // In `Start::Restored`, the two nodes differ and the two blocks differ, because only one node has a pod, in one of the blocks. So the
    // search for states that differ only in the numbering would only cost time.
    Protocol { variant: Variant::Bobbin, start, budget, symmetric: start == Start::Empty }
}

/// Explores the states breadth-first, up to `depth` steps, and checks that none breaks a rule. Each situation in `possible` must occur in
/// some state.
fn holds(protocol: Protocol, depth: Option<usize>, possible: &[&str]) {
    let begun = Instant::now();
    let builder = protocol.checker().threads(2).finish_when(HasDiscoveries::AnyFailures);
    let builder = match depth {
        Some(depth) => builder.target_max_depth(depth),
        None => builder,
    };
    let checker = builder.spawn_bfs().join();
    println!(
        "the checker explored {} states in {:?} with the budget {:?}",
        checker.unique_state_count(),
        begun.elapsed(),
        protocol.budget
    );
    let found = checker.discoveries();
    for property in protocol.properties().iter().filter(|property| property.expectation == Expectation::Always) {
        if let Some(path) = found.get(property.name) {
            panic!(
                "the rule \"{}\" is broken after these steps:\n{}",
                property.name,
                steps(&path.clone().into_actions())
            );
        }
    }
    for name in possible {
        assert!(
            found.contains_key(name),
            "the situation \"{name}\" never occurs; the situations that occur are {:?}",
            found.keys()
        );
    }
}

/// Checks that the variant breaks this rule.
fn breaks(variant: Variant, start: Start, budget: Budget, rule: &str) {
    let protocol = Protocol { variant, start, budget, symmetric: false };
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let path = checker
        .discoveries()
        .remove(rule)
        .unwrap_or_else(|| panic!("the variant {variant:?} does not break the expected rule"));
    println!(
        "the variant {variant:?} breaks the rule \"{rule}\" (the checker explored {} states):\n{}",
        checker.unique_state_count(),
        steps(&path.into_actions())
    );
}

fn steps(actions: &[impl std::fmt::Debug]) -> String {
    actions.iter().map(|action| format!("  {action:?}")).collect::<Vec<_>>().join("\n")
}

const DUPLICATE: &str = "two living attachments never have one address";
const FREED: &str = "an address in use is never freed";
const FOREIGN: &str = "only the node named in a block assigns from it";
const ORDER: &str = "a block is exported before it serves, and freed after its assignments and its route are gone";

#[test]
fn the_rules_hold_while_blocks_change_their_owners() {
    let budget = Budget { operators: 2, releases: 2, ..NO_FAULTS };
    holds(
        bobbin(Start::Empty, budget),
        None,
        &["two pods of two nodes live", "a node assigns an address of a block that had an owner before"],
    );
}

#[test]
fn the_rules_hold_with_a_lost_answer() {
    let budget = Budget { lost: 1, ..NO_FAULTS };
    holds(
        bobbin(Start::Empty, budget),
        None,
        &[
            "a claim with an unknown outcome is a claim of another node",
            "a release is in flight after its node gave up on the answer",
        ],
    );
}

#[test]
fn the_rules_hold_with_a_crash() {
    holds(bobbin(Start::Empty, Budget { crashes: 1, ..NO_FAULTS }), None, &["two pods of two nodes live"]);
}

#[test]
fn the_rules_hold_after_a_restore() {
    holds(
        bobbin(Start::Restored, Budget { operators: 0, releases: 0, partitions: 1, unreadable: 1, ..NO_FAULTS }),
        None,
        &["a block with a resident is lost", "an address is excluded", "two pods of two nodes live"],
    );
}

#[test]
fn the_rules_hold_after_a_restore_with_a_crash() {
    holds(
        bobbin(Start::Restored, Budget { operators: 0, releases: 0, crashes: 1, ..NO_FAULTS }),
        None,
        &["a block with a resident is lost"],
    );
}

#[test]
fn the_rules_hold_with_two_operators_and_an_old_event() {
    holds(
        bobbin(Start::Empty, Budget { operators: 2, old_events: 1, ..NO_FAULTS }),
        None,
        &["two pods of two nodes live"],
    );
}

#[test]
fn the_rules_hold_while_two_operators_release_what_a_deleted_node_owned() {
    let budget = Budget { operators: 2, releases: 0, deleted_nodes: 1, ..NO_FAULTS };
    holds(bobbin(Start::Empty, budget), Some(13), &["both operators release the same block"]);
}

#[test]
fn the_rules_hold_for_all_faults_together_in_the_first_steps() {
    holds(bobbin(Start::Empty, ALL_FAULTS), Some(7), &[]);
    holds(bobbin(Start::Restored, ALL_FAULTS), Some(6), &[]);
}

#[test]
fn a_block_released_before_its_route_is_withdrawn_breaks_the_order() {
    breaks(Variant::ReleaseBeforeWithdrawing, Start::Empty, NO_FAULTS, ORDER);
}

#[test]
fn a_block_released_before_its_assignments_are_deleted_breaks_the_order() {
    breaks(Variant::ReleaseBeforeDeleting, Start::Empty, NO_FAULTS, ORDER);
}

#[test]
fn one_look_frees_an_address_in_use() {
    breaks(Variant::FreeOnOneLook, Start::Restored, NO_FAULTS, FREED);
}

#[test]
fn an_add_that_answers_from_an_unproven_block_makes_a_duplicate() {
    breaks(Variant::AnswerUnproven, Start::Restored, NO_FAULTS, DUPLICATE);
}

#[test]
fn an_add_that_answers_before_the_assignments_of_its_block_are_listed_makes_a_duplicate() {
    breaks(Variant::AnswerUnlisted, Start::Restored, Budget { partitions: 1, ..NO_FAULTS }, DUPLICATE);
}

#[test]
fn saved_blocks_that_are_trusted_after_a_long_absence_may_be_of_another_node() {
    let budget = Budget { releases: 0, crashes: 1, deleted_nodes: 1, partitions: 1, ..NO_FAULTS };
    breaks(Variant::TrustAfterLongAbsence, Start::Empty, budget, FOREIGN);
}

#[test]
fn without_a_quiet_time_a_restore_makes_a_duplicate() {
    breaks(Variant::NoQuietTime, Start::Restored, NO_FAULTS, DUPLICATE);
}

#[test]
fn an_agent_that_forgets_the_quiet_time_in_a_restart_makes_a_duplicate() {
    breaks(Variant::ForgetQuietTime, Start::Restored, Budget { crashes: 1, ..NO_FAULTS }, DUPLICATE);
}

#[test]
fn an_unreadable_assignment_that_counts_as_absent_makes_a_duplicate() {
    breaks(Variant::UnreadableIsAbsent, Start::Restored, Budget { unreadable: 1, ..NO_FAULTS }, DUPLICATE);
}
