//! Tests allocation, release, cool-down and exclusion of addresses, one rule per test.

mod random_operations;

use std::collections::HashSet;

use super::*;

const COOLDOWN: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> BootTime {
    BootTime(Duration::from_secs(seconds))
}

fn key(container: usize) -> AttachmentKey {
    AttachmentKey::new(format!("c{container}"), "eth0")
}

/// The block with the index `index`. It has four IPv4 addresses and four IPv6 addresses. Blocks with an even index belong to pool `a`, the
/// others to pool `b`.
fn block(index: usize) -> ClaimedBlock {
    let range =
        BlockRange::parse(Some(&format!("10.0.0.{}/30", index * 4)), Some(&format!("fd00::{:x}/126", index * 4)))
            .unwrap();
    let pool = if index.is_multiple_of(2) { "a" } else { "b" };
    ClaimedBlock {
        name: format!("{pool}-{index}"),
        uid: format!("u{index}"),
        resource_version: "1".to_owned(),
        pool: pool.to_owned(),
        index: i64::try_from(index).unwrap(),
        range,
        free_since: None,
        deleting: false,
    }
}

/// Adds a block and brings it into service.
fn add(node_state: &NodeState, held: ClaimedBlock) {
    let name = held.name.clone();
    let new = NewBlock {
        held,
        cooling_since: None,
        reserved: Reserved::default(),
        proof: Proof::None,
        now: at(0),
        not_before: at(0),
        was_used: false,
    };
    if !node_state.add_block(new) {
        node_state.on(&name, BlockEvent::ClaimedBack { now: at(0), not_before: at(0) });
    }
    node_state.on(&name, BlockEvent::Exported);
}

/// Lets the node find out that another node owns the block. Returns the attachments that use the block.
fn lose(node_state: &NodeState, name: &str) -> Vec<Attachment> {
    node_state.on(name, BlockEvent::Doubt);
    node_state.found_foreign(name)
}

/// Completes or cancels the release of a block.
fn end_release(node_state: &NodeState, name: &str, completed: bool) {
    if completed {
        node_state.on(name, BlockEvent::Released);
    } else {
        node_state.on(name, BlockEvent::ReleaseCancelled { now: at(0), not_before: at(0) });
        node_state.on(name, BlockEvent::Exported);
    }
}

fn assign(
    node_state: &NodeState,
    container: usize,
    pool: &str,
    now: BootTime,
    early: bool,
) -> Result<Attachment, AssignError> {
    let (key, pod) = (key(container), PodRef::default());
    let request = AllocationRequest {
        key: &key,
        pod: &pod,
        pool,
        cooldown: COOLDOWN,
        boot_id: "boot",
        netns: None,
        network: None,
        pod_seen: false,
        at: jiff::Timestamp::UNIX_EPOCH,
    };
    let allocation = if early { node_state.assign_early(&request, now) } else { node_state.assign(&request, now) };
    allocation.map(|allocation| allocation.attachment)
}

#[test]
fn every_address_of_a_block_is_allocated_once() {
    let node_state = NodeState::new();
    add(&node_state, block(0));
    let pairs: HashSet<IpPair> =
        (0..4).map(|container| assign(&node_state, container, "a", at(1), false).unwrap().pair).collect();
    assert_eq!(pairs.len(), 4);
    assert_eq!(assign(&node_state, 4, "a", at(1), false), Err(AssignError::NoFreeAddress { blocks: 1 }));
    assert_eq!(assign(&node_state, 4, "b", at(1), false), Err(AssignError::NoBlock));
}

#[test]
fn the_address_that_cooled_longest_comes_first_and_before_its_time_only_on_request() {
    let node_state = NodeState::new();
    add(&node_state, block(0));
    let held: Vec<Attachment> =
        (0..4).map(|container| assign(&node_state, container, "a", at(1), false).unwrap()).collect();
    node_state.release(&key(2), at(5));
    node_state.release(&key(1), at(6));
    assert!(assign(&node_state, 10, "a", at(7), false).is_err());
    assert_eq!(assign(&node_state, 10, "a", at(7), true).unwrap().pair, held[2].pair);
    assert!(assign(&node_state, 11, "a", at(15), false).is_err());
    assert_eq!(assign(&node_state, 11, "a", at(16), false).unwrap().pair, held[1].pair);
}

#[test]
fn an_address_is_excluded_until_its_conflict_ends_even_if_its_block_leaves_and_returns() {
    let node_state = NodeState::new();
    add(&node_state, block(0));
    let first = assign(&node_state, 0, "a", at(1), false).unwrap();
    node_state.exclude(ConflictingAssignment { pair: first.pair, name: "10.0.0.0".into(), by: "n9".into() });
    node_state.release(&key(0), at(1));
    lose(&node_state, "a-0");
    add(&node_state, block(0));
    for container in 1..4 {
        assert_ne!(assign(&node_state, container, "a", at(100), false).unwrap().pair, first.pair);
    }
    assert!(assign(&node_state, 4, "a", at(100), true).is_err());
    assert!(node_state.end_exclusion(first.pair));
    assert_eq!(assign(&node_state, 4, "a", at(100), true).unwrap().pair, first.pair);
}

#[test]
fn an_address_of_two_attachments_is_held_until_both_are_gone() {
    let node_state = NodeState::new();
    add(&node_state, block(0));
    let first = assign(&node_state, 0, "a", at(1), false).unwrap();
    node_state.restore_attachment(Attachment { key: key(9), ..first.clone() });
    node_state.release(&key(0), at(2));
    assert!(!node_state.begin_release("a-0"));
    node_state.release(&key(9), at(3));
    assert!(node_state.begin_release("a-0"));
}

#[test]
fn a_doubted_block_allocates_nothing_not_even_a_cooling_address() {
    let node_state = NodeState::new();
    add(&node_state, block(0));
    let first = assign(&node_state, 0, "a", at(1), false).unwrap();
    node_state.release(&key(0), at(2));
    let mut changed = node_state.changed();
    node_state.on("a-0", BlockEvent::Doubt);
    assert_eq!(assign(&node_state, 1, "a", at(3), false), Err(AssignError::NoBlock));
    assert_eq!(assign(&node_state, 1, "a", at(3), true), Err(AssignError::NoBlock));
    changed.mark_unchanged();
    node_state.on("a-0", BlockEvent::FoundOwned { now: at(3), doubts: 0 });
    assert!(changed.has_changed().unwrap(), "the change of the block's state did not wake waiting ADDs");
    assert_ne!(assign(&node_state, 1, "a", at(3), false).unwrap().pair, first.pair);
}

fn permit_of(node_state: &NodeState, container: usize) -> FencingToken {
    let (key, pod) = (key(container), PodRef::default());
    let request = AllocationRequest {
        key: &key,
        pod: &pod,
        pod_seen: false,
        network: None,
        pool: "a",
        cooldown: COOLDOWN,
        boot_id: "boot",
        netns: None,
        at: jiff::Timestamp::UNIX_EPOCH,
    };
    node_state.assign(&request, at(1)).unwrap().token
}

#[test]
fn a_token_expires_once_its_block_was_doubted() {
    let node_state = NodeState::new();
    add(&node_state, block(0));
    let token = permit_of(&node_state, 0);
    assert!(node_state.token_is_current(&token));
    node_state.on("a-0", BlockEvent::Retire);
    assert!(
        node_state.token_is_current(&token),
        "the token of a retiring block expired, although the node still owns the block"
    );
    node_state.on("a-0", BlockEvent::Reopen);
    node_state.on("a-0", BlockEvent::Doubt);
    assert!(!node_state.token_is_current(&token));
    node_state.on("a-0", BlockEvent::FoundOwned { now: at(2), doubts: 0 });
    assert!(
        !node_state.token_is_current(&token),
        "the token became valid again after a doubt, although another node may have owned the block during the doubt"
    );
    let token = permit_of(&node_state, 1);
    assert!(node_state.token_is_current(&token));
    lose(&node_state, "a-0");
    node_state.release(&key(0), at(3));
    node_state.release(&key(1), at(3));
    assert_eq!(
        node_state.block_state("a-0"),
        None,
        "the node's state kept a lost block after the block's last attachment ended"
    );
    add(&node_state, block(0));
    assert!(!node_state.token_is_current(&token), "a block that the node claimed again has its old epoch");
}

#[test]
fn a_further_doubt_does_not_change_since_when_a_block_is_doubted() {
    let node_state = NodeState::new();
    add(&node_state, block(0));
    let since = || node_state.snapshot(at(0), |_| COOLDOWN).blocks[0].since.unwrap();
    let serving = since();
    node_state.on("a-0", BlockEvent::Doubt);
    let doubted = since();
    node_state.on("a-0", BlockEvent::Doubt);
    assert!(serving < doubted);
    assert_eq!(since(), doubted);
    assert_eq!(node_state.block_state("a-0"), Some(BlockState::Doubted { before: SettledState::Serving, doubts: 1 }));
}

#[test]
fn after_a_restart_a_block_keeps_the_time_of_its_state_unless_the_restart_changes_the_state() {
    let node_state = NodeState::new();
    add(&node_state, block(0));
    let saved = |node_state: &NodeState| node_state.checkpoint_with(&[]).remove(0);
    let (serving, now) = (saved(&node_state), at(1_000_000_000));
    assert!(serving.since.is_some());
    assert_eq!(serving.restored(true, now), Some((BlockState::Serving, serving.since)));
    assert!(matches!(serving.restored(false, now), Some((BlockState::Doubted { .. }, since)) if since == Some(now)));
    node_state.on("a-0", BlockEvent::Doubt);
    let doubted = saved(&node_state);
    assert_eq!(doubted.restored(false, now), Some((doubted.state, doubted.since)));
    let older = serde_json::to_value(&doubted).unwrap();
    let without = older.as_object().unwrap().iter().filter(|(name, _)| *name != "since");
    let older: CheckpointedBlock =
        serde_json::from_value(without.map(|(k, v)| (k.clone(), v.clone())).collect()).unwrap();
    assert_eq!((older.state, older.since), (doubted.state, None));
}

#[test]
fn the_checkpoint_has_a_transition_before_the_state_has_it() {
    let node_state = NodeState::new();
    let held = block(0);
    let new = NewBlock {
        held: held.clone(),
        cooling_since: None,
        reserved: Reserved::default(),
        proof: Proof::None,
        now: at(0),
        not_before: at(0),
        was_used: false,
    };
    node_state.add_block(new);
    let promotion = [("a-0".to_owned(), BlockEvent::Exported)];
    assert_eq!(
        node_state.checkpoint_with(&promotion),
        [CheckpointedBlock { block: held, state: BlockState::Serving, since: None, assignments_listed: true }]
    );
    assert!(!node_state.block_state("a-0").unwrap().assignable());
}

#[test]
fn a_release_can_be_cancelled_until_its_write_is_sent() {
    let node_state = NodeState::new();
    add(&node_state, block(0));
    assert!(node_state.begin_release("a-0"));
    assert!(!node_state.cancel_release(&[], at(0), at(0)));
    assert!(node_state.cancel_release(&["a-0".to_owned()], at(0), at(0)));
    assert!(matches!(node_state.block_state("a-0"), Some(BlockState::Exporting { .. })));
    node_state.on("a-0", BlockEvent::Exported);
    assert!(node_state.begin_release("a-0"));
    node_state.on("a-0", BlockEvent::AssignmentsDeleted);
    node_state.on("a-0", BlockEvent::ReleaseSent);
    assert!(!node_state.cancel_release(&["a-0".to_owned()], at(0), at(0)));
}

#[test]
fn a_block_without_owner_stays_while_an_address_of_it_is_in_use() {
    let node_state = NodeState::new();
    add(&node_state, block(0));
    let resident = assign(&node_state, 1, "a", at(0), false).unwrap();
    node_state.on("a-0", BlockEvent::Doubt);
    assert!(!node_state.found_free("a-0"));
    node_state.release(&resident.key, at(1));
    assert!(node_state.found_free("a-0"));
    assert_eq!(node_state.block_state("a-0"), None);
}

#[test]
fn a_restart_remembers_that_the_assignments_were_not_listed() {
    for (proof, after) in [(Proof::AssignmentsUnseen, Proof::AssignmentsUnseen), (Proof::None, Proof::None)] {
        let node_state = NodeState::new();
        let (held, reserved) = (block(0), Reserved::default());
        node_state.add_block(NewBlock {
            held,
            cooling_since: None,
            reserved,
            proof,
            now: at(0),
            not_before: at(0),
            was_used: false,
        });
        assert_eq!(node_state.checkpoint_with(&[])[0].proof(), after);
    }
}

#[test]
fn a_lost_block_needs_a_list_of_its_assignments_before_it_is_proven() {
    let node_state = NodeState::new();
    add(&node_state, block(0));
    assign(&node_state, 1, "a", at(0), false).unwrap();
    node_state.on("a-0", BlockEvent::Doubt);
    node_state.found_foreign("a-0");
    node_state.on("a-0", BlockEvent::ClaimedBack { now: at(1), not_before: at(1) });
    node_state.prove("a-0", Proof::None, false);
    assert_eq!(node_state.block("a-0").unwrap().proof, Proof::AssignmentsUnseen);
}
