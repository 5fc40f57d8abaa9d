//! Tests random operations against a model. No two attachments have the same address, and no DEL frees the address of another attachment.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Operation {
    Assign {
        pool_b: bool,
        early: bool,
    },
    /// A DEL of the live attachment with this number.
    Release(usize),
    /// A DEL of a container whose attachment ended long ago.
    ReleaseLate(usize),
    /// An ADD of a container that already has an attachment.
    AssignAgain(usize),
    AddBlock(usize),
    LoseBlock(usize),
    ReleaseBlock {
        block: usize,
        completed: bool,
    },
    Wait(u64),
    /// The agent restarts, and restores the blocks before or after the attachments.
    Restart {
        blocks_late: bool,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => (any::<bool>(), prop::bool::weighted(0.2)).prop_map(|(pool_b, early)| Operation::Assign { pool_b, early }),
        5 => (0_usize..16).prop_map(Operation::Release),
        2 => (0_usize..64).prop_map(Operation::ReleaseLate),
        1 => (0_usize..16).prop_map(Operation::AssignAgain),
        3 => (0_usize..4).prop_map(Operation::AddBlock),
        1 => (0_usize..4).prop_map(Operation::LoseBlock),
        2 => (0_usize..4, any::<bool>()).prop_map(|(block, completed)| Operation::ReleaseBlock { block, completed }),
        2 => (1_u64..8).prop_map(Operation::Wait),
        1 => any::<bool>().prop_map(|blocks_late| Operation::Restart { blocks_late }),
    ]
}

#[derive(Default)]
struct Model {
    node_state: NodeState,
    now: u64,
    /// The containers that have an address.
    live: Vec<(usize, Attachment)>,
    /// The containers whose address was freed.
    ended: Vec<usize>,
    next: usize,
    /// The times at which addresses were freed, for all blocks that the node still has.
    freed: HashMap<IpAddr, u64>,
    blocks: HashSet<usize>,
}

impl Model {
    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Assign { pool_b, early } => self.assign(if *pool_b { "b" } else { "a" }, *early),
            Operation::Release(nth) => {
                if !self.live.is_empty() {
                    let (container, attachment) = self.live.remove(nth % self.live.len());
                    let released =
                        self.node_state.release(&key(container), at(self.now)).expect("the attachment is live");
                    assert_eq!(released.pair, attachment.pair);
                    self.freed.extend(attachment.pair.addresses().map(|address| (address, self.now)));
                    self.ended.push(container);
                }
            }
            Operation::ReleaseLate(nth) => {
                if !self.ended.is_empty() {
                    let container = self.ended[nth % self.ended.len()];
                    assert_eq!(self.node_state.release(&key(container), at(self.now)), None);
                }
            }
            Operation::AssignAgain(nth) => {
                if !self.live.is_empty() {
                    let (container, attachment) = &self.live[nth % self.live.len()];
                    match assign(&self.node_state, *container, "a", at(self.now), false) {
                        Err(AssignError::AlreadyAllocated(known)) => assert_eq!(known.pair, attachment.pair),
                        other => panic!("the answer for an attachment that already has an address was {other:?}"),
                    }
                }
            }
            Operation::AddBlock(index) => {
                add(&self.node_state, block(*index));
                self.blocks.insert(*index);
            }
            Operation::LoseBlock(index) => {
                let name = block(*index).name;
                let known = self.node_state.block(&name).is_some();
                assert_eq!(lose(&self.node_state, &name).len(), if known { self.live_in(*index) } else { 0 });
                self.forget(*index);
            }
            Operation::ReleaseBlock { block: index, completed } => self.release_block(*index, *completed),
            Operation::Wait(seconds) => self.now += seconds,
            Operation::Restart { blocks_late } => self.restart(*blocks_late),
        }
    }

    fn assign(&mut self, pool: &str, early: bool) {
        let container = self.next;
        if let Ok(attachment) = assign(&self.node_state, container, pool, at(self.now), early) {
            self.next += 1;
            assert_eq!(attachment.pool, pool);
            let home = self.blocks.iter().map(|index| block(*index)).find(|block| block.name == attachment.block);
            let home = home.expect("the block of the allocated address must be on this node");
            for address in attachment.pair.addresses() {
                assert!(home.range.offset_of(address).is_some());
                if let (Some(freed), false) = (self.freed.get(&address), early) {
                    assert!(
                        self.now - freed >= COOLDOWN.as_secs(),
                        "{address} was allocated too early: its cool-down began at second {freed} and ended at second {}",
                        self.now
                    );
                }
            }
            self.live.push((container, attachment));
        }
    }

    fn release_block(&mut self, index: usize, completed: bool) {
        let name = block(index).name;
        if !self.node_state.begin_release(&name) {
            return assert!(!self.blocks.contains(&index) || self.live_in(index) > 0);
        }
        assert_eq!(self.live_in(index), 0, "the node released a block with addresses in use");
        let pool = block(index).pool;
        while let Ok(attachment) = assign(&self.node_state, self.next, &pool, at(self.now), true) {
            assert_ne!(attachment.block, name, "the node allocated an address from a block that it is releasing");
            self.live.push((self.next, attachment));
            self.next += 1;
        }
        end_release(&self.node_state, &name, completed);
        if completed {
            self.forget(index);
        }
    }

    fn restart(&mut self, blocks_late: bool) {
        let before = std::mem::take(&mut self.node_state);
        let blocks = || {
            let owned = before.blocks().into_iter().filter(|block| block.state.counts_as_ours());
            owned.for_each(|block| add(&self.node_state, block.held));
        };
        if !blocks_late {
            blocks();
        }
        before.attachments().into_iter().for_each(|attachment| self.node_state.restore_attachment(attachment));
        self.node_state.cool(&before.cooling());
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
                assert!(seen.insert(address), "two attachments have {address}");
            }
        }
        let expected: HashSet<(AttachmentKey, IpPair)> =
            self.live.iter().map(|(container, one)| (key(*container), one.pair)).collect();
        let found: HashSet<(AttachmentKey, IpPair)> = attachments.into_iter().map(|one| (one.key, one.pair)).collect();
        assert_eq!(found, expected);
        for index in &self.blocks {
            let name = block(*index).name;
            let uses = self.node_state.pool_use(&block(*index).pool, COOLDOWN);
            let held = uses.iter().find(|one| one.name.0 == name).map_or(0, |one| one.held as usize);
            assert_eq!(held, self.live_in(*index), "wrong number of used addresses in block {name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn no_address_is_held_twice_and_no_del_frees_the_address_of_another_attachment(operations in prop::collection::vec(operation(), 1..120)) {
        let mut model = Model::default();
        for operation in &operations {
            model.apply(operation);
            model.check();
        }
    }
}
