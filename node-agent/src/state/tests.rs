//! The ledger against a model: whatever comes in whatever order, no address is held twice, and nobody's address is freed by another's DEL.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

const COOLDOWN: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> BootTime {
    BootTime(Duration::from_secs(seconds))
}

fn key(container: usize) -> AttachmentKey {
    AttachmentKey::new(format!("c{container}"), "eth0")
}

/// Block `index` of four addresses in both families; even ones are of pool `a`, odd ones of pool `b`.
fn block(index: usize) -> HeldBlock {
    let range =
        BlockRange::parse(Some(&format!("10.0.0.{}/30", index * 4)), Some(&format!("fd00::{:x}/126", index * 4)))
            .unwrap();
    let pool = if index.is_multiple_of(2) { "a" } else { "b" };
    HeldBlock {
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

/// Takes a block in and brings it into service.
fn add(node_state: &NodeState, held: HeldBlock) {
    let name = held.name.clone();
    let arrival = Arrival {
        held,
        cooling_since: None,
        reserved: Reserved::default(),
        proof: Proof::None,
        now: at(0),
        not_before: at(0),
        was_used: false,
    };
    if !node_state.arrive(arrival) {
        node_state.on(&name, BlockEvent::ClaimedBack { now: at(0), not_before: at(0) });
    }
    node_state.on(&name, BlockEvent::ExportedBlocks);
}

/// Another node has the block.
fn lose(node_state: &NodeState, name: &str) -> Vec<Attachment> {
    node_state.on(name, BlockEvent::Doubt);
    node_state.found_others(name)
}

/// A block that began to be released is gone, or stays after all.
fn end_release(node_state: &NodeState, name: &str, gave_up: bool) {
    if gave_up {
        node_state.on(name, BlockEvent::Released);
    } else {
        node_state.on(name, BlockEvent::ReleaseCancelled { now: at(0), not_before: at(0) });
        node_state.on(name, BlockEvent::ExportedBlocks);
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
    let request = Request {
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
    let taken = if early { node_state.assign_early(&request, now) } else { node_state.assign(&request, now) };
    taken.map(|taken| taken.attachment)
}

#[derive(Clone, Debug)]
enum Step {
    Assign {
        pool_b: bool,
        early: bool,
    },
    /// DEL of the n-th attachment that lives.
    Release(usize),
    /// DEL of a container that ended long ago.
    ReleaseLate(usize),
    /// ADD of a container that has an attachment.
    AssignAgain(usize),
    AddBlock(usize),
    LoseBlock(usize),
    GiveBack {
        block: usize,
        gave_up: bool,
    },
    Wait(u64),
    /// The agent starts again; the blocks are known at once, or only after the attachments.
    Restart {
        blocks_late: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<bool>(), prop::bool::weighted(0.2)).prop_map(|(pool_b, early)| Step::Assign { pool_b, early }),
        5 => (0_usize..16).prop_map(Step::Release),
        2 => (0_usize..64).prop_map(Step::ReleaseLate),
        1 => (0_usize..16).prop_map(Step::AssignAgain),
        3 => (0_usize..4).prop_map(Step::AddBlock),
        1 => (0_usize..4).prop_map(Step::LoseBlock),
        2 => (0_usize..4, any::<bool>()).prop_map(|(block, gave_up)| Step::GiveBack { block, gave_up }),
        2 => (1_u64..8).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(|blocks_late| Step::Restart { blocks_late }),
    ]
}

#[derive(Default)]
struct World {
    node_state: NodeState,
    now: u64,
    /// Who holds which address, and who held one before.
    live: Vec<(usize, Attachment)>,
    ended: Vec<usize>,
    next: usize,
    /// When an address of a block that has been here since was freed.
    freed: HashMap<IpAddr, u64>,
    blocks: HashSet<usize>,
}

impl World {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Assign { pool_b, early } => self.assign(if *pool_b { "b" } else { "a" }, *early),
            Step::Release(nth) => {
                if !self.live.is_empty() {
                    let (container, attachment) = self.live.remove(nth % self.live.len());
                    let released = self.node_state.release(&key(container), at(self.now)).expect("it lives");
                    assert_eq!(released.pair, attachment.pair);
                    self.freed.extend(attachment.pair.addresses().map(|address| (address, self.now)));
                    self.ended.push(container);
                }
            }
            Step::ReleaseLate(nth) => {
                if !self.ended.is_empty() {
                    let container = self.ended[nth % self.ended.len()];
                    assert_eq!(self.node_state.release(&key(container), at(self.now)), None);
                }
            }
            Step::AssignAgain(nth) => {
                if !self.live.is_empty() {
                    let (container, attachment) = &self.live[nth % self.live.len()];
                    match assign(&self.node_state, *container, "a", at(self.now), false) {
                        Err(AssignError::AlreadyHeld(known)) => assert_eq!(known.pair, attachment.pair),
                        other => panic!("a second address for one attachment: {other:?}"),
                    }
                }
            }
            Step::AddBlock(index) => {
                add(&self.node_state, block(*index));
                self.blocks.insert(*index);
            }
            Step::LoseBlock(index) => {
                let name = block(*index).name;
                let known = self.node_state.block(&name).is_some();
                assert_eq!(lose(&self.node_state, &name).len(), if known { self.live_in(*index) } else { 0 });
                self.forget(*index);
            }
            Step::GiveBack { block: index, gave_up } => self.give_back(*index, *gave_up),
            Step::Wait(seconds) => self.now += seconds,
            Step::Restart { blocks_late } => self.restart(*blocks_late),
        }
    }

    fn assign(&mut self, pool: &str, early: bool) {
        let container = self.next;
        if let Ok(attachment) = assign(&self.node_state, container, pool, at(self.now), early) {
            self.next += 1;
            assert_eq!(attachment.pool, pool);
            let home = self.blocks.iter().map(|index| block(*index)).find(|block| block.name == attachment.block);
            let home = home.expect("an address comes from a block of this node");
            for address in attachment.pair.addresses() {
                assert!(home.range.offset_of(address).is_some());
                if let (Some(freed), false) = (self.freed.get(&address), early) {
                    assert!(
                        self.now - freed >= COOLDOWN.as_secs(),
                        "{address} rested from {freed} to {} only",
                        self.now
                    );
                }
            }
            self.live.push((container, attachment));
        }
    }

    fn give_back(&mut self, index: usize, gave_up: bool) {
        let name = block(index).name;
        if !self.node_state.begin_release(&name) {
            return assert!(!self.blocks.contains(&index) || self.live_in(index) > 0);
        }
        assert_eq!(self.live_in(index), 0, "a block in use was released");
        let pool = block(index).pool;
        while let Ok(attachment) = assign(&self.node_state, self.next, &pool, at(self.now), true) {
            assert_ne!(attachment.block, name, "an address came from a block that is released");
            self.live.push((self.next, attachment));
            self.next += 1;
        }
        end_release(&self.node_state, &name, gave_up);
        if gave_up {
            self.forget(index);
        }
    }

    fn restart(&mut self, blocks_late: bool) {
        let before = std::mem::take(&mut self.node_state);
        let blocks = || {
            let ours = before.blocks().into_iter().filter(|block| block.state.counts_as_ours());
            ours.for_each(|block| add(&self.node_state, block.held));
        };
        if !blocks_late {
            blocks();
        }
        before.attachments().into_iter().for_each(|attachment| self.node_state.restore(attachment));
        self.node_state.rest(&before.resting());
        if blocks_late {
            blocks();
        }
    }

    fn live_in(&self, index: usize) -> usize {
        let range = block(index).range;
        let inside = |pair: IpPair| pair.addresses().any(|address| range.offset_of(address).is_some());
        self.live.iter().filter(|(_, attachment)| inside(attachment.pair)).count()
    }

    fn forget(&mut self, index: usize) {
        self.blocks.remove(&index);
        let range = block(index).range;
        self.freed.retain(|address, _| range.offset_of(*address).is_none());
    }

    fn check(&self) {
        let attachments = self.node_state.attachments();
        let mut seen = HashSet::new();
        for attachment in &attachments {
            for address in attachment.pair.addresses() {
                assert!(seen.insert(address), "{address} is held twice");
            }
        }
        let ours: HashSet<(AttachmentKey, IpPair)> =
            self.live.iter().map(|(container, one)| (key(*container), one.pair)).collect();
        let theirs: HashSet<(AttachmentKey, IpPair)> = attachments.into_iter().map(|one| (one.key, one.pair)).collect();
        assert_eq!(ours, theirs);
        for index in &self.blocks {
            let name = block(*index).name;
            let uses = self.node_state.pool_use(&block(*index).pool, COOLDOWN);
            let held = uses.iter().find(|one| one.name.0 == name).map_or(0, |one| one.held as usize);
            assert_eq!(held, self.live_in(*index), "block {name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn no_address_is_held_twice_and_no_release_is_anothers(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::default();
        for step in &steps {
            world.take(step);
            world.check();
        }
    }
}

#[test]
fn every_address_of_a_block_goes_out_once() {
    let node_state = NodeState::new();
    add(&node_state, block(0));
    let pairs: HashSet<IpPair> =
        (0..4).map(|container| assign(&node_state, container, "a", at(1), false).unwrap().pair).collect();
    assert_eq!(pairs.len(), 4);
    assert_eq!(assign(&node_state, 4, "a", at(1), false), Err(AssignError::NoneCooled { blocks: 1 }));
    assert_eq!(assign(&node_state, 4, "b", at(1), false), Err(AssignError::NoBlock));
}

#[test]
fn the_longest_cooled_goes_out_first_and_early_only_when_asked() {
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
fn an_address_is_passed_over_while_another_has_its_record_also_when_its_block_comes_back() {
    let node_state = NodeState::new();
    add(&node_state, block(0));
    let first = assign(&node_state, 0, "a", at(1), false).unwrap();
    node_state.pass_over(ConflictingAssignment { pair: first.pair, name: "10.0.0.0".into(), by: "n9".into() });
    node_state.release(&key(0), at(1));
    lose(&node_state, "a-0");
    add(&node_state, block(0));
    for container in 1..4 {
        assert_ne!(assign(&node_state, container, "a", at(100), false).unwrap().pair, first.pair);
    }
    assert!(assign(&node_state, 4, "a", at(100), true).is_err());
    assert!(node_state.end_pass_over(first.pair));
    assert_eq!(assign(&node_state, 4, "a", at(100), true).unwrap().pair, first.pair);
}

#[test]
fn an_address_that_two_attachments_have_is_held_until_both_are_gone() {
    let node_state = NodeState::new();
    add(&node_state, block(0));
    let first = assign(&node_state, 0, "a", at(1), false).unwrap();
    node_state.restore(Attachment { key: key(9), ..first.clone() });
    node_state.release(&key(0), at(2));
    assert!(!node_state.begin_release("a-0"));
    node_state.release(&key(9), at(3));
    assert!(node_state.begin_release("a-0"));
}

#[test]
fn nothing_goes_out_of_a_block_in_doubt_not_even_early() {
    let node_state = NodeState::new();
    add(&node_state, block(0));
    let first = assign(&node_state, 0, "a", at(1), false).unwrap();
    node_state.release(&key(0), at(2));
    let mut changed = node_state.changed();
    node_state.on("a-0", BlockEvent::Doubt);
    assert_eq!(assign(&node_state, 1, "a", at(3), false), Err(AssignError::NoBlock));
    assert_eq!(assign(&node_state, 1, "a", at(3), true), Err(AssignError::NoBlock));
    changed.mark_unchanged();
    node_state.on("a-0", BlockEvent::FoundOurs { now: at(3), doubts: 0 });
    assert!(changed.has_changed().unwrap(), "ADDs that wait hear of it");
    assert_ne!(assign(&node_state, 1, "a", at(3), false).unwrap().pair, first.pair);
}

fn permit_of(node_state: &NodeState, container: usize) -> Permit {
    let (key, pod) = (key(container), PodRef::default());
    let request = Request {
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
    node_state.assign(&request, at(1)).unwrap().permit
}

#[test]
fn an_add_is_not_answered_if_its_block_was_ever_in_doubt_meanwhile() {
    let node_state = NodeState::new();
    add(&node_state, block(0));
    let permit = permit_of(&node_state, 0);
    assert!(node_state.permit_is_valid(&permit));
    node_state.on("a-0", BlockEvent::Retire);
    assert!(node_state.permit_is_valid(&permit), "a retiring block is still ours");
    node_state.on("a-0", BlockEvent::Reopen);
    node_state.on("a-0", BlockEvent::Doubt);
    assert!(!node_state.permit_is_valid(&permit));
    node_state.on("a-0", BlockEvent::FoundOurs { now: at(2), doubts: 0 });
    assert!(!node_state.permit_is_valid(&permit), "nobody knows what happened while it was in doubt");
    let permit = permit_of(&node_state, 1);
    assert!(node_state.permit_is_valid(&permit));
    lose(&node_state, "a-0");
    node_state.release(&key(0), at(3));
    node_state.release(&key(1), at(3));
    assert_eq!(node_state.block_state("a-0"), None, "a lost block is forgotten with its last resident");
    add(&node_state, block(0));
    assert!(!node_state.permit_is_valid(&permit), "a block that comes back is another one");
}

#[test]
fn a_checkpoint_says_what_the_ledger_will_say_and_not_what_it_says() {
    let node_state = NodeState::new();
    let held = block(0);
    let arrival = Arrival {
        held: held.clone(),
        cooling_since: None,
        reserved: Reserved::default(),
        proof: Proof::None,
        now: at(0),
        not_before: at(0),
        was_used: false,
    };
    node_state.arrive(arrival);
    let promotion = [("a-0".to_owned(), BlockEvent::ExportedBlocks)];
    assert_eq!(
        node_state.saved_with(&promotion),
        [SavedBlock { block: held, state: BlockState::Serving, records_seen: true }]
    );
    assert!(!node_state.block_state("a-0").unwrap().assignable());
}

#[test]
fn a_waiting_pod_takes_a_release_back_until_its_write_is_sent() {
    let node_state = NodeState::new();
    add(&node_state, block(0));
    assert!(node_state.begin_release("a-0"));
    assert!(!node_state.cancel_release(&[], at(0), at(0)));
    assert!(node_state.cancel_release(&["a-0".to_owned()], at(0), at(0)));
    assert!(matches!(node_state.block_state("a-0"), Some(BlockState::Exporting { .. })));
    node_state.on("a-0", BlockEvent::ExportedBlocks);
    assert!(node_state.begin_release("a-0"));
    node_state.on("a-0", BlockEvent::RecordsGone);
    node_state.on("a-0", BlockEvent::ReleaseSent);
    assert!(!node_state.cancel_release(&["a-0".to_owned()], at(0), at(0)));
}

#[test]
fn a_block_that_reads_free_stays_while_an_address_of_it_is_in_use() {
    let node_state = NodeState::new();
    add(&node_state, block(0));
    let resident = assign(&node_state, 1, "a", at(0), false).unwrap();
    node_state.on("a-0", BlockEvent::Doubt);
    assert!(!node_state.found_vacant("a-0"));
    node_state.release(&resident.key, at(1));
    assert!(node_state.found_vacant("a-0"));
    assert_eq!(node_state.block_state("a-0"), None);
}

#[test]
fn a_restart_does_not_take_records_for_seen_that_no_list_showed() {
    for (proof, after) in [(Proof::AssignmentsUnseen, Proof::AssignmentsUnseen), (Proof::None, Proof::None)] {
        let node_state = NodeState::new();
        let (held, reserved) = (block(0), Reserved::default());
        node_state.arrive(Arrival {
            held,
            cooling_since: None,
            reserved,
            proof,
            now: at(0),
            not_before: at(0),
            was_used: false,
        });
        assert_eq!(node_state.saved_with(&[])[0].proof(), after);
    }
}

#[test]
fn a_lost_block_has_records_of_others_until_a_list_shows_none() {
    let node_state = NodeState::new();
    add(&node_state, block(0));
    assign(&node_state, 1, "a", at(0), false).unwrap();
    node_state.on("a-0", BlockEvent::Doubt);
    node_state.found_others("a-0");
    node_state.on("a-0", BlockEvent::ClaimedBack { now: at(1), not_before: at(1) });
    node_state.prove("a-0", Proof::None, false);
    assert_eq!(node_state.block("a-0").unwrap().proof, Proof::AssignmentsUnseen);
}
